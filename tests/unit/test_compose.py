"""The compose files and the image: services, ports, health, bounds, and that every setting and module gets in."""

import ast
import json
import re
import shutil
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import ROOT, Settings
from stack import postgres

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OWN = {name for name, service in SERVICES.items() if service["image"] == "text-pipeline"}
LOOPS = {"bridge", "persist-worker", "embed-worker", "beat"}
APIS = {"text-writer-service", "embedding-service"}

# What only the parts that run without containers are told.
LOCAL = {
    "DATA_DIR",
    "KAFKA_UI_PORT",
    "KAFKA_PORT",
    "KAFKA_CONTROLLER_PORT",
    "KAFKA_COORDINATION",
    "ZOOKEEPER_PORT",
    "REDIS_PORT",
    "BRIDGE_ID",
    # ./start.sh alone has somebody who starts workers.
    "PERSIST_AUTOSCALE",
    "EMBED_AUTOSCALE",
    # The Kafka in here is a single one without logins.
    "KAFKA_REPLICATION_FACTOR",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CAFILE",
}


# Read by OpenTelemetry itself, which takes an empty one for a value: handed on where they are set.
OF_OTEL = {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}


def test_the_log_of_postgresql_quotes_no_row_there_either() -> None:
    """tests/integration/test_logs_of_parts.py looks into the one of ./start.sh."""
    lines = postgres.configuration(Settings()).splitlines()
    said = [line.replace(" = ", "=") for line in lines if line.startswith("log_") and "error" in line]
    assert len(said) == 2
    assert set(said) <= set(SERVICES["postgres"]["command"].split())


def test_every_setting_reaches_the_containers() -> None:
    names = {field.name.upper() for field in fields(Settings)}
    assert set(COMPOSE["x-settings"]) | LOCAL == names | OF_OTEL
    assert {name for name, value in COMPOSE["x-settings"].items() if value is None} == OF_OTEL
    assert set(COMPOSE["x-settings"]) & LOCAL == set()


def test_the_page_names_what_reaches_no_container() -> None:
    page = (ROOT / "docs/containers.md").read_text()
    sentence = page.partition("Every setting reaches the containers but these:")[2].partition("\n\n")[0]
    files = [(ROOT / f"docker-compose{which}.yml").read_text() for which in ("", ".zookeeper")]
    chosen = {name for name in LOCAL if any(f"${{{name}:-" in file for file in files)}
    chosen.add("KAFKA_COORDINATION")  # by which of the files there are
    logins = {name for name in LOCAL if name.startswith(("KAFKA_SASL_", "KAFKA_SSL_"))}
    assert "`KAFKA_SECURITY_PROTOCOL` and what belongs to it" in sentence
    assert LOCAL - chosen - logins <= set(re.findall("`([A-Z_]+)`", sentence))


@pytest.mark.parametrize(
    ("service", "variable", "port", "inside"),
    [
        ("gateway", "TEXT_API_PORT", 5002, 5001),
        ("gateway", "SEARCH_API_PORT", 5003, 5003),
        ("postgres", "DATABASE_PORT", 5434, 5432),
        ("redis", "REDIS_PORT", 6379, 6379),
        ("flower", "FLOWER_PORT", 5555, 5555),
        ("kafka-ui", "KAFKA_UI_PORT", 8080, 8080),
        ("kafka", "KAFKA_PORT", 9092, 29092),  # the listener for programs of this machine; containers use 9092
    ],
)
def test_ports(service: str, variable: str, port: int, inside: int) -> None:
    assert f"${{BIND_HOST:-127.0.0.1}}:${{{variable}:-{port}}}:{inside}" in SERVICES[service]["ports"]
    assert getattr(Settings(), variable.lower()) == port


def test_nothing_listens_beyond_this_machine_by_default() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("${BIND_HOST:-127.0.0.1}:")


def test_the_gateway_hands_on_what_it_is_asked_for_to_the_api_that_listens_there() -> None:
    gateway = (ROOT / "deploy/gateway/haproxy.cfg").read_text()
    for name, port in (("text-writer-service", 5001), ("embedding-service", 5003)):
        assert f"bind :{port}\n    default_backend {name}\n" in gateway
        assert re.search(rf"server-template \S+ \d+ {name}:{port}\n", gateway)
        assert f"--bind 0.0.0.0:{port} " in SERVICES[name]["command"]


def test_what_the_gateway_answers_itself_is_a_problem_document() -> None:
    folder = ROOT / "deploy/gateway"
    files = dict(re.findall(r"errorfile (\d+) /etc/haproxy/(\S+)\n", (folder / "haproxy.cfg").read_text()))
    assert files.keys() == {"400", "408", "502", "503", "504"}
    assert set(files.values()) == {path.name for path in folder.glob("*.http")}
    for status, name in files.items():
        head, _, body = (folder / name).read_bytes().decode("ascii").partition("\r\n\r\n")
        problem = json.loads(body)
        assert head.splitlines()[0] == f"HTTP/1.1 {status} {problem['title']}"
        assert "Content-Type: application/problem+json\r\n" in head
        assert problem["status"] == int(status)
        assert problem["detail"]


def test_everything_waits_for_the_migrations() -> None:
    assert {"migrate", "flower"} | LOOPS | APIS == OWN
    migrated = {"migrate": {"condition": "service_completed_successfully"}}
    for name in OWN - {"migrate"} - APIS:
        assert SERVICES[name]["depends_on"] == migrated
    for name in APIS:  # so that one of them alone can be started, and is reached
        assert SERVICES[name]["depends_on"] == migrated | {"gateway": {"condition": "service_healthy"}}
    assert set(SERVICES["migrate"]["depends_on"]) == {"kafka", "postgres", "redis"}
    for each in SERVICES["migrate"]["depends_on"].values():
        assert each == {"condition": "service_healthy"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_bounds_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("on-failure:5" if name == "migrate" else "unless-stopped")


@pytest.mark.parametrize("name", OWN | {"gateway"})
def test_our_own_containers_need_no_rights(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_health_is_asked_of_every_service_that_can_tell() -> None:
    for name in LOOPS:
        assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "python", "-m", "telemetry.heartbeat"]
        assert SERVICES[name]["environment"]["HEARTBEAT_FILE"].startswith(SERVICES[name]["tmpfs"][0])
    for name in SERVICES.keys() - LOOPS - {"migrate", "kafka-ui"}:  # the image of kafka-ui brings nothing to ask with
        assert SERVICES[name]["healthcheck"]["test"]


def test_the_check_of_postgresql_takes_any_name_of_a_user_and_a_database(tmp_path: Path) -> None:
    line = SERVICES["postgres"]["healthcheck"]["test"].replace("$$", "$")
    tool = tmp_path / "pg_isready"
    tool.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    tool.chmod(0o755)
    names = {"USER": "o'brien $x", "NAME": 'my "texts"'}
    by_compose = {f"DATABASE_{name}": value for name, value in names.items()}
    in_container = {"POSTGRES_USER": names["USER"], "POSTGRES_DB": names["NAME"]}
    environment = {"PATH": str(tmp_path), **by_compose, **in_container}
    asked = subprocess.run(["/bin/sh", "-c", line], env=environment, capture_output=True, text=True, check=True).stdout
    assert asked.splitlines() == ["-h", "localhost", "-U", names["USER"], "-d", names["NAME"]]


def test_workers_and_apis_can_be_scaled() -> None:
    for name in {"bridge", "persist-worker", "embed-worker"} | APIS:
        assert "ports" not in SERVICES[name]
        assert "container_name" not in SERVICES[name]


def test_each_worker_is_one_process_and_the_settings_say_how_many_there_are() -> None:
    services = composed("docker-compose.yml", EMBED_WORKERS="3", BRIDGES="2")
    assert [services[name]["scale"] for name in ("bridge", "persist-worker", "embed-worker")] == [2, 1, 3]
    for queue in ("persist", "embed"):
        assert "--pool solo" in SERVICES[f"{queue}-worker"]["command"]


def test_images_of_others_have_a_version() -> None:
    for name in SERVICES.keys() - OWN - {"gateway"}:
        _, _, tag = SERVICES[name]["image"].partition(":")
        assert tag
        assert tag not in {"latest", "main"}


def test_what_traces_need_is_built_into_the_image_where_they_are_wanted() -> None:
    """It cannot be added to a container: pip is none of what the image keeps."""
    build = (ROOT / "Dockerfile").read_text().partition(" AS build\n")[2].partition("\nFROM ")[0]
    (copy,) = re.findall(r"^COPY (requirements.*) \./$", build, re.MULTILINE)
    copied = set(copy.split())
    assert copied == {"requirements.txt", "requirements-otel.txt"}
    assert copied <= {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert re.search(r'^ARG OTEL=""\nRUN pip install .*\$\{OTEL:\+-r requirements-otel\.txt\}$', build, re.MULTILINE)
    built = [each["build"] for name, each in SERVICES.items() if name in OWN and "build" in each]
    assert [each["args"] for each in built] == [{"OTEL": "${OTEL_EXPORTER_OTLP_ENDPOINT:+yes}"}] * 2


def test_what_the_image_runs_is_in_it() -> None:
    """Every module of this project that one in the image imports is let through by .dockerignore."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:].removesuffix(".py") for line in lines if line.startswith("!") and "conf." not in line}
    at_the_top = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    needed = {
        name
        for part in let_through & at_the_top
        for file in sources(ROOT / part)
        for name in imported(file) & at_the_top
    }
    assert needed <= let_through


def sources(part: Path) -> list[Path]:
    return sorted(part.rglob("*.py")) if part.is_dir() else [part.with_suffix(".py")]


def imported(file: Path) -> set[str]:
    """The first names of what a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def composed(*files: str, **variables: str) -> dict[str, Any]:
    """The services as compose itself understands them."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("there is no docker compose here")
    names = [argument for file in files for argument in ("-f", file)]
    answer = subprocess.run(
        [docker, "compose", "--env-file", "/dev/null", *names, "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": str(Path(docker).parent), "HOME": str(Path.home()), **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return dict(json.loads(answer.stdout)["services"])


def test_compose_hands_on_what_opentelemetry_reads_and_builds_for_it() -> None:
    off = composed("docker-compose.yml")
    endpoint = "http://collector:4318"
    on = composed("docker-compose.yml", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_TRACES_SAMPLER="always_off")
    assert off["migrate"]["build"]["args"] == {"OTEL": ""}
    assert on["migrate"]["build"]["args"] == {"OTEL": "yes"}
    assert off["bridge"]["environment"].get("OTEL_TRACES_SAMPLER") is None
    assert on["bridge"]["environment"]["OTEL_TRACES_SAMPLER"] == "always_off"


def test_compose_accepts_the_file() -> None:
    services = composed("docker-compose.yml", KAFKA_PORT="19092")
    assert set(services) == set(SERVICES)
    kafka = services["kafka"]
    assert [(port["host_ip"], port["published"], port["target"]) for port in kafka["ports"]] == [
        ("127.0.0.1", "19092", 29092)
    ]
    assert kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"] == "INTERNAL://kafka:9092,HOST://localhost:19092"


class WithOverrides(yaml.SafeLoader):
    """Takes Compose's own `!override`, by which a value replaces that of the other file instead of joining it."""


def overriding(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node, deep=True)


WithOverrides.add_constructor("!override", overriding)


def test_zookeeper_has_bounds_like_the_others() -> None:
    file = (ROOT / "docker-compose.zookeeper.yml").read_text()
    zookeeper = yaml.load(file, WithOverrides)["services"]["zookeeper"]
    assert zookeeper["mem_limit"]
    assert zookeeper["pids_limit"]
    assert zookeeper["logging"] == COMPOSE["x-logging"]


def test_with_zookeeper_kafka_is_one_that_knows_it_and_keeps_data_of_its_own() -> None:
    services = composed("docker-compose.yml", "docker-compose.zookeeper.yml")
    assert set(services) == set(SERVICES) | {"zookeeper"}
    kafka = services["kafka"]
    assert kafka["image"] == "confluentinc/cp-kafka:7.9.1"
    assert kafka["environment"]["KAFKA_ZOOKEEPER_CONNECT"] == "zookeeper:2181"
    assert not {"KAFKA_PROCESS_ROLES", "CLUSTER_ID"} & set(kafka["environment"])
    assert [volume["source"] for volume in kafka["volumes"]] == ["kafka-zookeeper-data"]
    assert kafka["depends_on"]["zookeeper"]["condition"] == "service_healthy"
    assert kafka["healthcheck"]["test"] == composed("docker-compose.yml")["kafka"]["healthcheck"]["test"]

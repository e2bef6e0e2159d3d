"""The compose file: its services, the ports they are reached at, and that every setting reaches the containers."""

from dataclasses import fields
from typing import Any

import pytest
import yaml

from settings import ROOT, Settings

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]

# What only the parts that run without containers are told.
LOCAL = {
    "DATA_DIR",
    "KAFKA_UI_PORT",
    "KAFKA_PORT",
    "KAFKA_CONTROLLER_PORT",
    "KAFKA_COORDINATION",
    "ZOOKEEPER_PORT",
    "REDIS_PORT",
    "BRIDGES",
    "BRIDGE_ID",
    # The Kafka in here is a single one without logins.
    "KAFKA_REPLICATION_FACTOR",
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "KAFKA_SSL_CAFILE",
}


def test_every_setting_reaches_the_containers() -> None:
    names = {field.name.upper() for field in fields(Settings)}
    assert set(COMPOSE["x-settings"]) | LOCAL == names
    assert set(COMPOSE["x-settings"]) & LOCAL == set()


@pytest.mark.parametrize(
    ("service", "variable", "port", "inside"),
    [
        ("text-writer-service", "TEXT_API_PORT", 5002, 5001),
        ("embedding-service", "SEARCH_API_PORT", 5003, 5003),
        ("postgres", "DATABASE_PORT", 5434, 5432),
        ("redis", "REDIS_PORT", 6379, 6379),
        ("flower", "FLOWER_PORT", 5555, 5555),
        ("kafka-ui", "KAFKA_UI_PORT", 8080, 8080),
        ("kafka", "KAFKA_PORT", 9092, 29092),  # the listener for programs of this machine; containers use 9092
    ],
)
def test_ports(service: str, variable: str, port: int, inside: int) -> None:
    assert SERVICES[service]["ports"] == [f"${{BIND_HOST:-127.0.0.1}}:${{{variable}:-{port}}}:{inside}"]
    assert getattr(Settings(), variable.lower()) == port


def test_everything_waits_for_the_migrations() -> None:
    own = {name for name, service in SERVICES.items() if service["image"] == "text-pipeline"}
    assert own == {
        "migrate",
        "bridge",
        "persist-worker",
        "embed-worker",
        "beat",
        "text-writer-service",
        "embedding-service",
        "flower",
    }
    for name in own - {"migrate"}:
        assert SERVICES[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert set(SERVICES["migrate"]["depends_on"]) == {"kafka", "postgres", "redis"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_bounds_and_comes_back(name: str) -> None:
    assert SERVICES[name]["mem_limit"]
    assert SERVICES[name]["restart"] == ("on-failure:5" if name == "migrate" else "unless-stopped")


def test_workers_can_be_scaled() -> None:
    for name in ("bridge", "persist-worker", "embed-worker"):
        assert "ports" not in SERVICES[name]
        assert "container_name" not in SERVICES[name]

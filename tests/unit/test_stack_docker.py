"""What the scripts make of `docker compose ps`, and that they remember where the system runs."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from settings import Settings
from stack import commands, demo, docker, pipeline_state, report
from stack.errors import StackError

BRIDGE = {"ID": "aa", "Name": "text-pipeline-bridge-1", "Project": "text-pipeline", "Service": "bridge"}
MIGRATE = {"ID": "bb", "Name": "text-pipeline-migrate-1", "Project": "text-pipeline", "Service": "migrate"}


@pytest.fixture(autouse=True)
def details(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_details", lambda ids: {"aa": (41, 2)})


def lines(*containers: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(line.name, line.state, line.runs) for line in docker.lines(list(containers), Settings())]


@pytest.mark.parametrize(
    ("state", "said", "runs"),
    [
        ({"State": "running", "Health": "healthy"}, "running", True),
        ({"State": "running", "Health": ""}, "running", True),  # it has no health check
        ({"State": "running", "Health": "starting"}, "starting", False),
        ({"State": "running", "Health": "unhealthy"}, "unhealthy", False),
        ({"State": "exited", "ExitCode": 137}, "ended with 137", False),
        ({"State": "exited", "ExitCode": 0}, "ended with 0", False),
        ({"State": "created"}, "created", False),
    ],
)
def test_a_part_is_well_when_it_runs_and_is_healthy(state: dict[str, Any], said: str, runs: bool) -> None:
    assert lines(BRIDGE | state) == [("bridge-1", said, runs)]


def test_migrations_that_ended_well_are_no_part_of_what_runs() -> None:
    assert lines(MIGRATE | {"State": "exited", "ExitCode": 0}) == []
    assert lines(MIGRATE | {"State": "exited", "ExitCode": 1}) == [("migrate-1", "ended with 1", False)]


def test_a_line_has_pid_restarts_and_published_ports() -> None:
    ports = [{"PublishedPort": 5002, "TargetPort": 5001}, {"PublishedPort": 0, "TargetPort": 5001}]
    (line,) = docker.lines([BRIDGE | {"State": "running", "Publishers": ports}], Settings())
    assert (line.pid, line.restarts, [port.number for port in line.ports]) == (41, 2, [5002])


def test_both_forms_that_compose_prints_are_read() -> None:
    assert docker._containers('{"ID": "aa"}\n{"ID": "bb"}\n') == [{"ID": "aa"}, {"ID": "bb"}]
    assert docker._containers('[{"ID": "aa"}]') == [{"ID": "aa"}]
    assert docker._containers("") == []


def test_what_was_started_in_containers_is_remembered_until_they_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=str(tmp_path / "data"))
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/docker")
    monkeypatch.setattr(docker, "_compose", lambda *_: None)
    monkeypatch.setattr(docker, "_ask", lambda *_: "")
    assert not docker.is_up(settings)
    docker.up(settings)
    monkeypatch.setattr(docker, "_ask", lambda *_: "aa\n")
    assert docker.is_up(settings)
    monkeypatch.setattr(docker, "_ask", lambda *_: "\n")  # ended by hand
    assert not docker.is_up(settings)
    monkeypatch.setattr(docker, "_ask", lambda *_: "aa\n")
    assert not docker.is_up(settings)


def compose(settings: Settings, *arguments: str) -> list[str]:
    """The files that a compose command is given."""
    words = docker._command(settings, *arguments)
    return [name for option, name in pairwise(words) if option == "-f"]


@pytest.mark.parametrize("mode", ["kraft", "zookeeper"])
def test_what_is_shown_or_removed_is_that_of_both_modes(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a stop that is not told KAFKA_COORDINATION would leave the volumes of the mode that it does not know."""
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/docker")
    settings = Settings(kafka_coordination=mode)
    both = ["docker-compose.yml", "docker-compose.zookeeper.yml"]
    own = [name for name in compose(settings, "down", "-v") if "override" not in name]
    assert own == both
    assert compose(settings, "ps", "-a", "-q") == compose(settings, "down", "-v")
    assert compose(settings, "up", "-d") == (compose(settings, "down") if mode == "zookeeper" else [])


def test_an_override_is_read_with_both_modes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _name: "/usr/bin/docker")
    monkeypatch.setattr(docker, "ROOT", tmp_path)
    for name in ("docker-compose.yml", "docker-compose.zookeeper.yml", "docker-compose.override.yml"):
        (tmp_path / name).touch()
    files = ["docker-compose.yml", "docker-compose.override.yml", "docker-compose.zookeeper.yml"]
    assert compose(Settings(), "down") == files


@pytest.mark.parametrize(
    ("mode", "services", "refused"),
    [
        ("kraft", ["kafka", "zookeeper"], "zookeeper"),
        ("zookeeper", ["kafka"], "kraft"),
        ("kraft", ["kafka"], None),
        ("zookeeper", ["kafka", "zookeeper"], None),
        ("zookeeper", ["migrate"], None),
    ],
)
def test_no_start_mixes_the_two_modes(
    mode: str, services: list[str], refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    monkeypatch.setattr(docker, "_ask", lambda *_: "".join(f'{{"Service": "{name}"}}\n' for name in services))
    monkeypatch.setattr(docker, "_compose", lambda _settings, *arguments: started.append(arguments[0]))
    settings = Settings(data_dir=str(tmp_path / "data"), kafka_coordination=mode)
    if refused is None:
        docker.up(settings)
        assert started == ["up"]
    else:
        with pytest.raises(StackError, match=f"it runs with KAFKA_COORDINATION={refused}"):
            docker.up(settings)
        assert started == []


@pytest.mark.parametrize("paused", [True, False, None])  # None: Redis does not answer
def test_a_start_sends_no_message_into_a_paused_intake(
    paused: bool | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(redis_url="redis://elsewhere:6379/0")
    here = docker.seen_from_here(settings)
    shown: list[Settings] = []
    monkeypatch.setattr(pipeline_state, "intake_paused", lambda asked: paused if asked == here else None)
    monkeypatch.setattr(docker, "up", lambda _: None)
    monkeypatch.setattr(demo, "demo", shown.append)
    monkeypatch.setattr(report, "show", lambda *_, **__: None)
    assert commands._start_docker(settings, demo=True) == 0
    assert shown == ([] if paused else [here])
    assert ("The intake is paused" in capfd.readouterr().out) is bool(paused)


@pytest.mark.parametrize("paused", [True, False])
def test_the_state_tells_of_a_paused_intake(
    paused: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    container = json.dumps(BRIDGE | {"State": "running"})
    monkeypatch.setattr(docker, "_ask", lambda *_: container)
    monkeypatch.setattr(pipeline_state, "intake_paused", lambda _settings: paused)
    assert docker.status(Settings()) == 0
    assert ("intake: paused" in capfd.readouterr().out) is paused

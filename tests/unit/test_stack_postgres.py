"""The lock file that a PostgreSQL has left which was killed, whose process number may be anybody's now; and data that
lie outside of their DATA_DIR."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import Settings
from stack import postgres, postgres_place
from stack.errors import StackError
from tests.parts import eventually


@contextlib.contextmanager
def process(name: str, folder: Path) -> Iterator[int]:
    """A process of that name that works in a folder."""
    program = folder.parent / name
    program.symlink_to(Path(sys.executable).resolve())
    with subprocess.Popen([str(program), "-c", "import time; time.sleep(60)"], cwd=folder) as running:
        try:
            eventually(lambda: Path(f"/proc/{running.pid}/comm").read_text() == f"{name}\n")
            yield running.pid
        finally:
            running.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "data"
    found.mkdir()
    return found


def lock(folder: Path, first_line: str) -> Path:
    file = folder / "postmaster.pid"
    file.write_text(f"{first_line}\n/srv/data\n1700000000\n")
    return file


def test_the_lock_of_a_server_that_runs_stays(folder: Path) -> None:
    with process("postgres", folder) as pid:
        file = lock(folder, str(pid))
        postgres._remove_stale_lock(folder)
        assert file.exists()


@pytest.mark.parametrize("line", [str(os.getpid()), "4194305", "", "half"])
def test_a_lock_with_the_number_of_no_server_is_removed(line: str, folder: Path) -> None:
    file = lock(folder, line)
    postgres._remove_stale_lock(folder)
    assert not file.exists()


def test_a_lock_with_the_number_of_a_server_of_other_data_is_removed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with process("postgres", other) as pid:
        file = lock(folder, str(pid))
        postgres._remove_stale_lock(folder)
        assert not file.exists()


def test_data_without_a_lock_is_left_alone(folder: Path) -> None:
    postgres._remove_stale_lock(folder)
    assert list(folder.iterdir()) == []


def test_a_copy_of_a_data_folder_neither_uses_nor_removes_the_database_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nobody(postgres_place.Account):
        def reaches(self, path: Path) -> bool:
            return False

    monkeypatch.setattr(postgres_place, "_OUTSIDE", tmp_path / "outside")
    monkeypatch.setattr(postgres_place, "account", lambda _: Nobody(0, 0))
    first, copy, moved = (Settings(data_dir=str(tmp_path / name)) for name in ("first", "copy", "moved"))
    database = postgres_place.make_data_place(first)
    database.mkdir()
    shutil.copytree(tmp_path / "first", tmp_path / "copy", symlinks=True)
    with pytest.raises(StackError, match="from which this one was copied"):
        postgres_place.make_data_place(copy)
    postgres_place.remove_data(copy)
    assert database.is_dir()
    monkeypatch.setattr(Nobody, "reaches", lambda *_: True)
    (tmp_path / "first").rename(tmp_path / "moved")
    assert postgres_place.make_data_place(moved) == database
    postgres_place.remove_data(moved)
    assert not database.exists()

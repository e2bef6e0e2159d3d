"""The lock file that a PostgreSQL has left which was killed: whose process number it holds may be anybody's now."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import postgres
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

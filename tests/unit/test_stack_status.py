"""What is said of a part, by its supervisor and by what its start wrote down."""

import os
import signal
import time
from pathlib import Path

import pytest

from settings import Settings
from stack import record, status, supervisor, system
from stack.part import PIPELINE
from stack.processes import identity
from stack.record import Record
from stack.system import KnownPart


class Talk:
    """A supervisor by whom the part runs under that number."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def states(self) -> dict[str, tuple[str, int]]:
        return {"beat": ("RUNNING", self.pid)}


@pytest.mark.parametrize(("pid", "state"), [(os.getpid(), "running"), (os.getpid() + 1, "starting")])
def test_a_process_that_has_written_nothing_yet_does_not_run_by_the_record_of_the_one_before(
    pid: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=str(tmp_path))
    (tmp_path / "run").mkdir()
    system.write(settings, [KnownPart("beat", PIPELINE, ())], ready=True)
    process = identity(os.getpid())
    assert process is not None
    record.write(settings, "beat", Record(process, signal.SIGTERM, 7, 0, time.monotonic() - 1))
    monkeypatch.setattr(supervisor, "talk", lambda _: Talk(pid))
    assert [(line.state, line.restarts) for line in status.lines(settings) if line.name == "beat"] == [(state, 6)]

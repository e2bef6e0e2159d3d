"""What is said of workers that have not ended: nobody knows whether they had a task in hand."""

import os
import signal
from pathlib import Path

import pytest

from settings import Settings
from stack import record, scale
from stack.errors import StackError
from stack.processes import identity
from stack.record import Record


class Told:
    """A supervisor that passes on nothing."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, str]] = []

    def signal(self, name: str, signal: str) -> None:
        self.signals.append((name, signal))


@pytest.mark.parametrize("patience", [0, 0.2])
def test_a_worker_that_has_not_ended_in_time_is_not_said_to_work(
    patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=str(tmp_path))
    (tmp_path / "run").mkdir()
    process = identity(os.getpid())
    assert process is not None
    record.write(settings, "persist-worker-2", Record(process, signal.SIGTERM, 1, 0, 0.0))
    told = Told()
    monkeypatch.setattr(scale, "_talk", lambda _: told)
    with pytest.raises(StackError) as late:
        scale._wait_for_tasks(settings, ["persist-worker-2"], patience)
    assert str(late.value).startswith(f"persist-worker-2 did not end within {patience:g} s: ")
    assert "at work" not in str(late.value)
    assert "--timeout" in str(late.value)
    assert told.signals == [("persist-worker-2", "TERM")]

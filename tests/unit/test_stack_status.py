"""What is said of a part, by its supervisor and by what its start wrote down."""

import os
import signal
import socket
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


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("variable", ["kafka_bootstrap_servers", "database_host", "redis_url"])
def test_a_server_of_somebody_elses_is_in_use_only_while_it_answers(
    variable: str, listens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if not listens:
            server.close()
        given = {
            "kafka_bootstrap_servers": {"kafka_bootstrap_servers": f"127.0.0.1:1,127.0.0.1:{port}"},
            "database_host": {"database_host": "127.0.0.1", "database_port": port},
            "redis_url": {"redis_url": f"redis://:secret@127.0.0.1:{port}/0"},
        }[variable]
        settings = Settings(data_dir=str(tmp_path), **given)
        (tmp_path / "run").mkdir()
        system.write(settings, [], ready=True)
        monkeypatch.setattr(supervisor, "talk", lambda _: Talk(1))
        (line,) = status.lines(settings)
    assert (line.state, line.runs) == (("in use", True) if listens else ("does not answer", False))

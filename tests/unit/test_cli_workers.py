"""What is asked of the workers is not taken back by whoever stops waiting for it."""

from types import SimpleNamespace

import pytest

from clients import workers
from settings import Settings


def test_ctrl_c_says_that_the_request_is_done_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    application = SimpleNamespace(send_task=lambda *_, **__: None, close=lambda: None)
    monkeypatch.setattr(workers, "app", application)
    monkeypatch.setattr(workers, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        workers.ask(Settings(), "a task", {}, "about it")
    assert capsys.readouterr().err == "kafka_cli.py: the request is in its queue, and will be done all the same\n"

"""The embed workers' place among the processes of a machine: behind those for which somebody waits."""

import os
from pathlib import Path

import pytest

import settings
from settings import Settings
from tasks import embed, resources
from tasks.app import app


@pytest.mark.parametrize(
    ("queue", "provider", "expected"),
    [("embed", "minilm", [embed.NICE]), ("embed", "openai", []), ("persist", "minilm", [])],
)
def test_a_model_on_these_cores_takes_what_others_leave(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, queue: str, provider: str, expected: list[int]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    monkeypatch.setattr(embed, "AUTOGROUP", tmp_path / "autogroup")
    monkeypatch.setattr(settings, "load", lambda: Settings(embedding_provider=provider))
    monkeypatch.setattr(resources, "embedder", lambda: None)
    monkeypatch.setattr(app.amqp.queues, "_consume_from", {queue: object()})
    embed.load_model()
    assert asked == expected


@pytest.mark.parametrize(("session", "expected"), [("own", True), ("parent's", True), ("a shell's", False)])
def test_only_a_session_of_its_own_stands_back_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, session: str, expected: bool
) -> None:
    monkeypatch.setattr(os, "nice", lambda _: None)
    leader = {"own": os.getpid(), "parent's": os.getppid(), "a shell's": -1}[session]
    monkeypatch.setattr(os, "getsid", lambda _: leader)
    told = tmp_path / "autogroup"
    monkeypatch.setattr(embed, "AUTOGROUP", told)
    embed.stand_back()
    assert (told.read_text() if told.exists() else "") == (str(embed.NICE) if expected else "")


def test_a_system_without_autogroups_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "nice", lambda _: None)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid())
    monkeypatch.setattr(embed, "AUTOGROUP", tmp_path / "absent" / "autogroup")
    embed.stand_back()

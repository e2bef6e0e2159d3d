"""That all contestants are given the same."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import contestants, environments
from benchmarks.contestants import Contestant, Round
from settings import ROOT, Settings


def started_with(monkeypatch: pytest.MonkeyPatch, contestant: Contestant, settings: Settings) -> Any:
    """The environment that a contestant's only part is started with."""
    monkeypatch.setattr(environments, "python", lambda name: name)
    monkeypatch.setattr(contestants, "Running", lambda *_, **given: SimpleNamespace(**given))
    servers: Any = None
    (part,) = contestant.parts
    started: Any = contestant.start(Round(servers, settings, Path("folder"), 384, False), part)
    return started.environment


@pytest.mark.parametrize("contestant", [contestants.pathway(), contestants.script()])
def test_a_peer_has_every_setting_so_that_none_comes_from_the_checkouts_env_file(
    monkeypatch: pytest.MonkeyPatch, contestant: Contestant
) -> None:
    settings = Settings(kafka_topic="texts-1", hashing_microseconds=21, embedding_provider="hashing")
    environment = started_with(monkeypatch, contestant, settings)
    for field in fields(Settings):
        assert environment[field.name.upper()] == str(getattr(settings, field.name))
    assert environment["PYTHONPATH"] == str(ROOT)
    assert environment["BENCH_TOPIC"] == "texts-1"


def test_the_script_gets_as_many_cores_for_the_model_as_the_others_have_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert started_with(monkeypatch, contestants.script(threads=2), Settings())["EMBEDDING_THREADS"] == "2"
    assert started_with(monkeypatch, contestants.script(), Settings())["EMBEDDING_THREADS"] == "1"

"""The embed workers' place among the processes of a machine: behind those for which somebody waits."""

import os

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
    monkeypatch: pytest.MonkeyPatch, queue: str, provider: str, expected: list[int]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "nice", asked.append)
    monkeypatch.setattr(settings, "load", lambda: Settings(embedding_provider=provider))
    monkeypatch.setattr(resources, "embedder", lambda: None)
    monkeypatch.setattr(app.amqp.queues, "_consume_from", {queue: object()})
    embed.load_model()
    assert asked == expected

"""When the number of a queue's workers follows its backlog: up soon, down late, and not with every burst."""

import dataclasses
from pathlib import Path

import pytest

from settings import InvalidSetting, Settings, from_environment
from stack import StackError, autoscale, pipeline_state
from stack import scale as scaling
from stack.autoscale import DOWN_SECONDS, UP_SECONDS, Wish


def after(wish: Wish, seconds: float, *, workers: int, waiting: int, start: float = 1_000.0) -> int:
    """What is wished when it has been so for that time, with a look each second."""
    wanted = workers
    for second in range(int(seconds) + 1):
        wanted = wish.look(start + second, workers=workers, waiting=waiting)
        if wanted != workers:
            break
    return wanted


def test_a_backlog_that_lasts_doubles_the_workers_up_to_the_most() -> None:
    wish = Wish(1, 5)
    assert after(wish, UP_SECONDS, workers=1, waiting=2) == 2
    assert after(wish, UP_SECONDS, workers=2, waiting=30) == 4
    assert after(wish, UP_SECONDS, workers=4, waiting=30) == 5
    assert after(wish, 100, workers=5, waiting=30) == 5


def test_a_burst_that_is_over_sooner_changes_nothing() -> None:
    wish = Wish(1, 4)
    assert after(wish, UP_SECONDS - 1, workers=1, waiting=9) == 1
    assert wish.look(2_000.0, workers=1, waiting=1) == 1
    assert after(wish, UP_SECONDS - 1, workers=1, waiting=9, start=2_001.0) == 1


def test_workers_go_one_by_one_when_nothing_waits_for_long_and_never_below_the_fewest() -> None:
    wish = Wish(2, 4)
    assert after(wish, DOWN_SECONDS - 1, workers=4, waiting=0) == 4
    assert wish.look(2_000.0, workers=4, waiting=1) == 4  # not nothing
    assert after(wish, DOWN_SECONDS - 1, workers=4, waiting=0, start=2_001.0) == 4
    assert after(wish, DOWN_SECONDS, workers=4, waiting=0, start=3_000.0) == 3
    assert after(wish, 3 * DOWN_SECONDS, workers=2, waiting=0, start=4_000.0) == 2


def test_as_many_tasks_as_workers_change_nothing_however_long() -> None:
    assert after(Wish(1, 4), 500, workers=2, waiting=2) == 2


def test_texts_in_postgres_count_as_the_tasks_that_they_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(embed_batch_max=100)
    monkeypatch.setattr(pipeline_state, "queue_length", lambda *_: 3)
    for texts, tasks in ((0, 3), (100, 3), (5_000, 49)):
        monkeypatch.setattr(pipeline_state, "texts_pending", lambda *_, texts=texts: texts)
        assert autoscale.waiting(settings, "embed") == tasks
        assert autoscale.waiting(settings, "persist") == 3
    monkeypatch.setattr(pipeline_state, "texts_pending", lambda *_: None)
    assert autoscale.waiting(settings, "embed") is None  # not known: nothing is changed then


@pytest.mark.parametrize("bounds", ["4", "0,2", "3,2", "1,x", "1,2,3", "-1,2", "1,17"])
def test_bounds_that_cannot_be_meant_are_refused(bounds: str) -> None:
    with pytest.raises(InvalidSetting, match=r"EMBED_AUTOSCALE.*such as 1,4, up to 16"):
        from_environment({"EMBED_AUTOSCALE": bounds})


def test_every_number_within_the_bounds_can_be_scaled_to() -> None:
    found = from_environment({"EMBED_AUTOSCALE": "1,16"}).autoscale("embed")
    assert found is not None
    for wanted in found:
        scaling.check("embed", wanted)


def test_bounds(tmp_path: Path) -> None:
    settings = from_environment({"EMBED_AUTOSCALE": " 1, 4 ", "PERSIST_WORKERS": "3"})
    assert (settings.autoscale("embed"), settings.autoscale("persist")) == ((1, 4), None)
    assert [dataclasses.replace(settings, embed_workers=count).workers("embed") for count in (1, 3, 9)] == [1, 3, 4]
    assert settings.workers("persist") == 3


def test_a_queue_that_cannot_be_scaled_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled: list[str] = []

    def scale(_settings: Settings, queue: str, _wanted: int, *, patience: float) -> None:
        scaled.append(queue)
        if queue == "persist":
            raise StackError("no port is free")

    monkeypatch.setattr(scaling, "running", lambda _settings: [])
    monkeypatch.setattr(scaling, "counts", lambda _running: {"persist": 1, "embed": 1})
    monkeypatch.setattr(scaling, "scale", scale)
    monkeypatch.setattr(autoscale, "waiting", lambda _settings, _queue: 0)
    with pytest.raises(StackError, match="no port"):
        autoscale.follow(Settings(), {"persist": Wish(2, 4), "embed": Wish(2, 4)}, print)
    assert scaled == ["persist", "embed"]

"""How numbers are counted, and what the search API makes of those in Redis; no server is needed."""

import pytest

import celeryconfig
from api.console.throughput import measure
from api.observed import Contents
from api.pipeline_numbers import counter, open_letters
from records import REASONS
from telemetry.numbers import ALL, CONSUMED, DEAD_LETTERS, FRESHNESS, PERSISTED, SUM, TASKS, Number, Tally, field


def samples(number: Number, totals: dict[str, float]) -> dict[tuple[str, ...], float]:
    """By label values."""
    shown = counter(number, totals).samples
    found = {tuple(sample.labels[name] for name in number.labels): sample.value for sample in shown}
    assert len(found) == len(shown)
    return found


def test_a_counter_is_0_before_anything_was_counted() -> None:
    """Prometheus sees no increase in a series that begins with its first burst."""
    tasks = {name.removeprefix("tasks.") for name in celeryconfig.task_routes}
    assert samples(CONSUMED, {}) == {(): 0}
    assert samples(DEAD_LETTERS, {}) == {(reason,): 0 for reason in REASONS}
    assert samples(PERSISTED, {}) == {("stored",): 0, ("unchanged",): 0, ("rejected",): 0}
    states = ("success", "retry", "failure", "ignored")
    assert samples(TASKS, {}) == {(task, state): 0 for task in tasks for state in states}


@pytest.mark.parametrize("number", [number for number in ALL if not number.buckets], ids=lambda number: number.name)
def test_every_counter_names_the_values_of_its_labels(number: Number) -> None:
    assert len(number.values) == len(number.labels)
    assert all(number.values)


def test_what_was_counted_takes_the_place_of_its_0_also_under_a_name_that_nobody_knew() -> None:
    found = samples(DEAD_LETTERS, {field(DEAD_LETTERS, ["invalid-json"]): 7.0, field(DEAD_LETTERS, ["of old"]): 2.0})
    assert found == {**dict.fromkeys([(reason,) for reason in REASONS], 0), ("invalid-json",): 7, ("of old",): 2}


@pytest.mark.parametrize("counted", [{}, {"invalid-json": 7}, {"of old": 2}], ids=str)
def test_of_each_reason_there_are_0_open_dead_letters_where_there_are_none(counted: dict[str, int]) -> None:
    rows = [{"reason": reason, "count": count} for reason, count in counted.items()]
    found = open_letters(Contents(newest=[], letter_counts=rows, letters={}, failures={})).samples
    assert {sample.labels["reason"]: sample.value for sample in found} == dict.fromkeys(REASONS, 0) | counted


def test_a_value_at_the_bound_of_a_bucket_is_in_it() -> None:
    tally, number = Tally(), Number("seconds", "", buckets=(1.0, 2.0))
    tally.observe(number, [0.5, 1.0, 2.0, 3.0])
    assert tally.take() == {"seconds\t0": 2, "seconds\t1": 1, "seconds\t2": 1, "seconds\tsum": 6.5}


def test_the_console_leaves_out_a_bucket_that_only_another_version_knows() -> None:
    counted = {field(FRESHNESS, (), "0"): 4.0, field(FRESHNESS, (), "99"): 1.0, field(FRESHNESS, (), SUM): 0.02}
    shown = measure([(0, counted), (5, {})])
    assert (shown.median_freshness, shown.slow_freshness) == pytest.approx((0.005, 0.0095))

"""The plan and the load of a run come from its seed alone."""

from collections import Counter

import pytest

from tests.chaos.bad_records import KINDS
from tests.chaos.plan import CHILD, FORKING, make_plan
from tests.chaos.workload import workload

PARTS = ("bridge", "persist-worker", "embed-worker", "beat", "text-api", "search-api", "kafka", "postgres", "valkey")


def test_the_same_seed_gives_the_same_plan_and_the_same_load() -> None:
    assert make_plan(7, PARTS, bridges=1) == make_plan(7, PARTS, bridges=1)
    assert workload(7, 500, 50) == workload(7, 500, 50)


def test_another_seed_gives_another_order() -> None:
    assert make_plan(7, PARTS, bridges=1).events != make_plan(8, PARTS, bridges=1).events
    assert workload(7, 500, 50) != workload(8, 500, 50)


@pytest.mark.parametrize("seed", range(20))
def test_every_part_is_killed_three_times_and_two_at_once_three_times(seed: int) -> None:
    plan = make_plan(seed, PARTS, bridges=1)
    kills = Counter(
        name for event in plan.events for name, how in zip(event.parts, event.how, strict=True) if how != CHILD
    )
    assert kills == dict.fromkeys(PARTS, 3)
    assert sum(len(event.parts) == 2 and len(set(event.parts)) == 2 for event in plan.events) == 3
    assert Counter(event.parts[0] for event in plan.events if CHILD in event.how) == dict.fromkeys(FORKING, 1)
    assert [event.action for event in plan.events].count("flush") == 2
    assert [event.action for event in plan.events].count("fill") == 1


def test_the_load_has_all_that_it_should() -> None:
    records = workload(1, 5_000, 500)
    bad = [record for record in records if record.key == b"" or (record.key or b"").startswith(b"bad/")]
    assert (len(records), len(bad)) == (5_500, 500)
    assert len(KINDS) >= 20
    assert len({kind.reason for kind in KINDS.values()}) == 10
    assert sum(record.value is None for record in records) > 200
    assert sum(record.key in (None, b"any") for record in records) > 100

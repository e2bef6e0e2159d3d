"""The short form of `make chaos`, in a minute: every part is killed once, under load, with Redis flushed and filled."""

import random

import pytest

from tests.chaos.plan import make_plan
from tests.chaos.run import run_plan
from tests.chaos.system import PIPELINE, SERVERS, bridge_names, running_system


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nothing_is_lost_and_nothing_comes_twice() -> None:
    seed = random.randrange(1, 10**6)
    plan = make_plan(
        seed,
        [*bridge_names(1), *PIPELINE, *SERVERS],
        bridges=1,
        kills=1,
        pairs=1,
        children=0,
        flushes=1,
        fill_seconds=1.0,
        pauses=(0.5, 2.0),
    )
    # Leases that fit the short run: with those of every day a lost task alone would take longer than all the rest.
    with running_system("short", bridge_lease_seconds=3.0, embed_lease_seconds=5.0) as system:
        outcome = run_plan(system, plan, good=2_000, bad=80, settle_seconds=90, clean_up=False)
    assert not outcome.problems, outcome.verdict()

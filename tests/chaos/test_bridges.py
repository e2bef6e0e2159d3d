"""Bridges join and leave their group under load, some in order and some by kill -9: nothing lost, nothing twice."""

import random
import time
from dataclasses import replace

import pytest

from stack import Part, local_part
from tests.chaos.plan import GROUP
from tests.chaos.run import Say, run
from tests.chaos.system import System, bridge_names, running_system

WITHOUT_ID = "bridge-without-id"
CHANGES = 24
STOP_SECONDS = 10.0


def bridge_without_id(system: System) -> Part:
    """A dynamic member of the group: after a kill its partitions come free when its session is over."""
    part = local_part(system.settings, "bridge-0")
    return replace(part, name=WITHOUT_ID, environment={**part.environment, "BRIDGE_ID": ""})


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_bridges_join_and_leave(run_seed: int, pytestconfig: pytest.Config) -> None:
    rng = random.Random(f"members/{run_seed}")
    good = pytestconfig.getoption("--records") * 2 // 5

    def disturb(say: Say) -> None:
        system.add_part(bridge_without_id(system))
        say(f"{WITHOUT_ID} joins")
        for _ in range(CHANGES):
            time.sleep(rng.uniform(0.5, 5.0))
            bridge = system.parts[rng.choice([*bridge_names(3), WITHOUT_ID])]
            if not bridge.wanted:
                say(f"{bridge.part.name} joins")
                bridge.come_back()
            elif rng.random() < 0.5:
                say(f"{bridge.part.name} leaves after {bridge.end(STOP_SECONDS):.1f} s")
            elif rng.random() < 0.5:
                say(f"kill -9 {bridge.part.name}, it stays away")
                bridge.stay_away(GROUP)
            else:
                say(f"kill -9 {bridge.part.name}")
                bridge.crash(GROUP)
        for name in bridge_names(3):
            system.parts[name].come_back()

    with running_system(f"bridges-{run_seed}", keep_logs=True, bridges=3) as system:
        outcome = run(system, run_seed, disturb, CHANGES * 2.75, good, good // 100, 300)
    assert not outcome.problems, outcome.verdict()

"""The full run: every part is killed three times and more under load; nothing is lost, nothing comes twice."""

import pytest

from tests.chaos import report
from tests.chaos.plan import bridges_of, make_plan
from tests.chaos.run import run_plan
from tests.chaos.system import PIPELINE, SERVERS, bridge_names, running_system

TITLE = "Every part killed in random order, under load"
COLUMNS = ("seed", "bridges", "faults", "records", "messages", "dead letters", "at rest after (s)", "problems")


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_every_part_killed_in_random_order(run_seed: int, pytestconfig: pytest.Config) -> None:
    bridges = bridges_of(run_seed)
    plan = make_plan(run_seed, [*bridge_names(bridges), *PIPELINE, *SERVERS], bridges=bridges)
    good = pytestconfig.getoption("--records")
    with running_system(str(run_seed), keep_logs=True, bridges=bridges) as system:
        outcome = run_plan(system, plan, good=good, bad=good // 100, settle_seconds=300)
        figures = [outcome.figures[name] for name in ("records", "messages", "dead letters", "at rest after (s)")]
        report.add(TITLE, COLUMNS, [run_seed, bridges, len(plan.events), *figures, len(outcome.problems)])
        assert not outcome.problems, outcome.verdict()

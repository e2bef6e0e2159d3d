"""Options of the long runs (`make chaos`), and their report at the end."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos import report


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--seed", type=int, default=None, help="seed of the first run; the others follow (default: any)")
    group.addoption("--runs", type=int, default=1, help="how many full runs (default: 1)")
    group.addoption("--records", type=int, default=50_000, help="good records of a full run (default: 50000)")
    group.addoption("--backlog", type=int, default=200_000, help="records of the backlog (default: 200000)")
    group.addoption("--away", type=float, default=60, help="seconds that a server stays away (default: 60)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--seed", None) is None:
        config.option.seed = random.randrange(1, 10**6)


def pytest_report_header(config: pytest.Config) -> str:
    return f"chaos: seeds {', '.join(map(str, seeds(config)))}"


def seeds(config: pytest.Config) -> Sequence[int]:
    first = config.getoption("--seed", None) or random.randrange(1, 10**6)
    return range(first, first + config.getoption("--runs", 1))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "run_seed" in metafunc.fixturenames:
        metafunc.parametrize("run_seed", seeds(metafunc.config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long runs are for those who ask for them by name (-m chaos), not for every `-m "not model"`."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            # kafka-python 3.0 does not close the socket of a connection that was refused, and here many are.
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))
    if "chaos" not in (config.getoption("-m") or ""):
        long = [item for item in items if item.get_closest_marker("chaos")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for table in report.tables():
        terminalreporter.write_line(table)

"""The command: `python -m benchmarks [CASE ...]`, every case by default. A case's own arguments follow its name."""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

from benchmarks import ending, plots, report, servers
from benchmarks.bench import Bench
from benchmarks.watch import Unfinished
from stack import StackError
from stack.progress import say

CASES = (
    "throughput",
    "minilm",
    "freshness",
    "backlog",
    "restart",
    "search",
    "scaling",
    "quality",
    "indexing",
    "keeping_up",
)


def case(name: str) -> ModuleType:
    """Raises StackError where a development package is missing."""
    try:
        return import_module(f"benchmarks.cases.{name}")
    except ModuleNotFoundError as error:
        raise StackError(f"the package {error.name} is missing; `make install` installs all that is needed") from error


def parser(name: str | None = None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="make bench ARGS=" if name is None else f"benchmarks {name}",
        description=__doc__ if name is None else case(name).ABOUT,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help="small sizes and one round: to see that it works")
    made.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the JSON, to which the cases are added; by default a new one below benchmarks/results",
    )
    made.add_argument("--plot", type=Path, metavar="FOLDER", help="draw the plots (SVG) into this folder")
    if name is None:
        made.epilog = f"cases: {', '.join(CASES)}; `benchmarks CASE --help` shows the arguments of one"
    else:
        case(name).arguments(made)
    return made


def chosen(arguments: Sequence[str]) -> list[tuple[str, argparse.Namespace]]:
    """The cases to run with their arguments: one that is named first, or all."""
    if arguments and not arguments[0].startswith("-"):
        name, *rest = arguments
        if name not in CASES:
            parser().error(f"no case {name!r}: it is one of {', '.join(CASES)}")
        return [(name, read(name, rest))]
    parser().parse_args(arguments)
    return [(name, read(name, arguments)) for name in CASES]


def read(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """A case's arguments. --quick sets other defaults, so what is said beside it holds."""
    made = parser(name)
    if made.parse_args(arguments).quick:
        defaults = made.parse_args([])
        case(name).quick(defaults)
        made.set_defaults(**{key: value for key, value in vars(defaults).items() if key != "quick"})
    return made.parse_args(arguments)


def what_matters(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that say only where its files go."""
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    files.add_argument("--output")
    files.add_argument("--plot")
    return files.parse_known_args(arguments)[1]


def main(arguments: Sequence[str]) -> int:
    work = chosen(arguments)
    failed = []
    with servers.started() as running:
        first = work[0][1]
        results = report.Results(first.output, shlex.join(["benchmarks", *what_matters(arguments)]), running)
        for name, given in work:
            began = time.monotonic()
            say(f"{name}: {case(name).ABOUT}")
            try:
                outcome = case(name).run(Bench(running, quick=given.quick), given)
            except Unfinished as error:
                say(f"{name} failed: {error}")
                failed.append(name)
                continue
            outcome.given = {key: value for key, value in vars(given).items() if key not in ("output", "plot")}
            outcome.details["seconds"] = round(time.monotonic() - began)
            report.show(outcome)
            results.add(outcome)
            if given.plot is not None and outcome.plot is not None:
                say(f"  {plots.draw(outcome.plot, given.plot / f'{name}.svg')}")
        say(f"written to {results.path}")
    return 1 if failed else 0


if __name__ == "__main__":
    ending.on_request()
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

"""`.venv/bin/python -m benchmarks [CASE ...]`: every case by default. A case's own arguments follow its name."""

import argparse
import itertools
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import streams
from benchmarks import arguments as kinds
from benchmarks import ending, plots, report, servers
from benchmarks.bench import Bench, what_matters
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
    """Raises StackError if a development package is missing."""
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
        type=kinds.results_file,
        metavar="FILE",
        help="the JSON, to which the cases are added; by default a new one below benchmarks/results",
    )
    made.add_argument("--plot", type=kinds.folder, metavar="FOLDER", help="draw the plots (SVG) into this folder")
    if name is None:
        made.epilog = f"cases: {', '.join(CASES)}; `benchmarks CASE --help` shows the arguments of one"
    else:
        case(name).arguments(made)
    return made


def chosen(arguments: Sequence[str]) -> list[tuple[str, argparse.Namespace]]:
    """The cases to run, with their arguments: the one that is named first, or all."""
    if arguments and not arguments[0].startswith("-"):
        name, *rest = arguments
        if name not in CASES:
            parser().error(f"no case {name!r}: it is one of {', '.join(CASES)}")
        return [(name, read(name, rest))]
    parser().parse_args(arguments)
    return [(name, read(name, arguments)) for name in CASES]


def read(name: str, arguments: Sequence[str]) -> argparse.Namespace:
    """A case's arguments. --quick only sets other defaults, so arguments beside it hold."""
    made = parser(name)
    if made.parse_args(arguments).quick:
        defaults = made.parse_args([])
        case(name).quick(defaults)
        made.set_defaults(**{key: value for key, value in vars(defaults).items() if key != "quick"})
    given = made.parse_args(arguments)
    check = getattr(case(name), "check", None)
    if check is not None and (problem := check(given)) is not None:
        made.error(problem)
    return given


def kept_command(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that only say where files go."""
    files = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    files.add_argument("--output")
    files.add_argument("--plot")
    return files.parse_known_args(arguments)[1]


def main(arguments: Sequence[str]) -> int:
    work = chosen(arguments)
    numbers = itertools.count(1)
    with servers.started() as running:
        first = work[0][1]
        results = report.Results(first.output, shlex.join(["benchmarks", *kept_command(arguments)]), running)
        try:
            measured = [measure(name, given, Bench(running, given.quick, numbers), results) for name, given in work]
        finally:
            if results.written:
                say(f"written to {results.path}")
    return 0 if all(measured) else 1


def measure(name: str, given: argparse.Namespace, bench: Bench, results: report.Results) -> bool:
    """Whether all went well. A case that fails does not end the others, and what it had found by then is kept."""
    began = time.monotonic()
    say(f"{name}: {case(name).ABOUT}")
    failed = None
    try:
        case(name).run(bench, given)
    except KeyboardInterrupt:
        if bench.outcome is not None and bench.outcome.figures:
            results.add(bench.outcome, failed="interrupted")
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, hours of other cases may have gone before or follow
        failed = reason(error)
        say(f"{name} failed: {failed}")
    outcome = bench.outcome or report.Outcome(name, case(name).ABOUT, what_matters(given))
    outcome.details["seconds"] = round(time.monotonic() - began)
    results.add(outcome, failed)
    if outcome.figures:
        report.show(outcome)
    if given.plot is not None and outcome.plot is not None and failed is None:
        try:
            say(f"  {plots.draw(outcome.plot, given.plot / f'{name}.svg')}")
        except (StackError, OSError, subprocess.CalledProcessError) as error:
            failed = reason(error)
            say(f"  no plot of {name}: {failed}")
    return failed is None


def reason(error: Exception) -> str:
    """What went wrong; for an error that nobody has foreseen, also where."""
    if isinstance(error, Unfinished | StackError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {place.name}, {Path(place.filename).name}:{place.lineno})"


if __name__ == "__main__":
    ending.on_request()
    try:
        sys.exit(main(sys.argv[1:]))
    except StackError as error:
        sys.exit(f"benchmarks: {error}")
    except KeyboardInterrupt:
        sys.exit(streams.INTERRUPTED)

"""Progress bars on a terminal, and nothing elsewhere. They go to standard error, so that the output stays clean."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


def console() -> Console:
    return Console(stderr=True)


@contextmanager
def bar(description: str, *, total: int) -> Iterator[Callable[[int], None]]:
    """A bar up to `total`; the function it gives moves it on by so many."""
    screen = console()
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def reading(description: str, *, total_bytes: int | None) -> Iterator[Callable[[int, int], None]]:
    """A bar over the bytes of an input of known or unknown length; the function takes bytes and records done so far."""
    screen = console()
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[records]:,} records"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(description, total=total_bytes, records=0)
        yield lambda done, records: progress.update(task, completed=done, records=records)


@contextmanager
def counting_down(description: str) -> Iterator[Callable[[int, str], None]]:
    """A bar over work that only shrinks; the function takes how much is left, and that in words."""
    screen = console()
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(description, total=None, words="")
        most = 0

        def show(left: int, words: str) -> None:
            nonlocal most
            most = max(most, left)
            progress.update(task, total=most or None, completed=most - left, words=words)

        yield show

"""How a command speaks: tables on a terminal, plain lines in a pipe, one line for an error, an exit code for its kind.

Texts come from anyone, so no control character of theirs reaches the terminal.
"""

import errno
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import BinaryIO

import streams
from records import OBEYED
from settings import InvalidSetting


class CommandFailed(Exception):
    """The command could not do what was asked; the message is one line that says why, and what to do."""

    exit_code = streams.FAILED


class WrongUsage(CommandFailed):
    """What was typed makes no sense."""

    exit_code = streams.WRONG_USAGE


class Unreachable(CommandFailed):
    """Nobody answers; the message says what to start."""

    exit_code = 3


SNIPPET = 200  # characters of a text in a line of its own; a table cuts at the terminal's edge
NARROW = 40  # columns; below that a table would show only dots; some terminals report 0

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the commands write nowhere but to their output

# ESC is among the C0 controls. Halves of surrogate pairs are shown by the stream (backslashreplace).
COMMANDS = re.compile(f"[\x00-\x08\x0b-\x1f{OBEYED}]")


def run(program: str, command: Callable[[], int]) -> int:
    """Runs a command and returns its exit code. Errors are one line; a closed pipe and Ctrl-C are silent."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if sys.stdout is None:  # the shell's >&-; nothing was done yet
        say(f"{program}: standard output is closed: there is nowhere to write to")
        return CommandFailed.exit_code
    code = 0
    try:
        code = outcome(program, command)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has enough (`| head`)
        streams.discard_output()
    except KeyboardInterrupt:
        return streams.INTERRUPTED
    except OSError as error:
        if error.errno not in FULL and not output_fails():
            raise
        streams.discard_output()
        say(f"{program}: standard output: {error.strerror}")
        return code or CommandFailed.exit_code
    return code


def outcome(program: str, command: Callable[[], int]) -> int:
    """The exit code of a command that has ended in one of the ways in which commands end."""
    try:
        return command()
    except SystemExit as ended:  # argparse, after --help or wrong usage
        return streams.exit_code(ended)
    except KeyboardInterrupt:
        return streams.INTERRUPTED
    except InvalidSetting as error:
        say(f"{program}: {one_line(str(error))}")
        return WrongUsage.exit_code
    except CommandFailed as error:
        say(f"{program}: {one_line(str(error))}")
        return error.exit_code


def output_fails() -> bool:
    """Whether an OSError came from standard output: then what is still buffered fails again."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def say(line: str) -> None:
    """A line for the person, beside the output: on standard error, if that is open."""
    if sys.stderr is not None:  # print would take standard output instead
        with suppress(OSError):  # full: there is no other place to say it
            print(line, file=sys.stderr)


def standard_input() -> BinaryIO:
    """Raises WrongUsage if it is closed, as by the shell's <&-."""
    if sys.stdin is None:
        raise WrongUsage("standard input is closed: there is nothing to read")
    return sys.stdin.buffer


def confirm(question: str, otherwise: str, *, yes: bool, unasked: str | None = None) -> None:
    """Asks on the terminal, unless --yes has answered already. `otherwise` is said after anything but a yes.

    Without a terminal to ask on, the command goes on if it destroys nothing; with `unasked`, which says what would be
    done, it is wrong usage. Raises CommandFailed for a no and for the end of the input, and WrongUsage.
    """
    if yes:
        return
    answer = streams.confirmed(question)
    if answer is None and unasked is not None:
        raise WrongUsage(f"{unasked}: without a terminal to ask on, it wants --yes too")
    if answer is False:
        raise CommandFailed(otherwise)


def printable(text: str) -> str:
    """The text without anything that a terminal takes for a command; line breaks and tabs stay."""
    return COMMANDS.sub("\N{REPLACEMENT CHARACTER}", text)


def escaped(text: str) -> str:
    """The text with what a terminal takes for a command shown by its code, such as \\x1b; line breaks and tabs stay."""
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    return printable(" ".join(text.split()))


def snippet(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= SNIPPET else line[: SNIPPET - 1] + "…"


def on_terminal() -> bool:
    return sys.stdout.isatty()


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), wide: str = ""
) -> None:
    """A table on the terminal. `right` columns are numbers; the `wide` one takes the room that is left, and is cut.

    If there is hardly any room, it prints lines that the terminal wraps, so that no name is cut.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    screen = Console()
    if screen.width < NARROW:
        named = (zip(columns, row, strict=True) for row in rows)
        lines([columns, *([snippet(str(cell)) if name == wide else cell for name, cell in row] for row in named)])
        return
    drawn = Table(box=None, pad_edge=False, header_style="bold", expand=bool(wide))
    for column in columns:
        drawn.add_column(
            column,
            justify="right" if column in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if column == wide else None,
        )
    for row in rows:
        drawn.add_row(*(Text(one_line(str(cell))) for cell in row))
    screen.print(drawn)


def lines(rows: Iterable[Sequence[object]]) -> None:
    """Rows for a pipe: a line each, fields separated by tabs."""
    for row in rows:
        print("\t".join(one_line(str(cell)) for cell in row))


def pairs(fields: Iterable[tuple[str, object]]) -> None:
    """Names and values, a line each: aligned on a terminal, `name: value` in a pipe."""
    found = list(fields)
    width = max((len(name) for name, _ in found), default=0) if on_terminal() else 0
    for name, value in found:
        print(f"{name + ':':<{width + 1}} {printable(str(value))}")

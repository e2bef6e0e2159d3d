"""The parser of cli.py, kafka_cli.py and e2e_test.sh: argparse's, but for how it writes its help and where options
stand."""

import argparse
import sys
from typing import Any


def utf8(given: str) -> str:
    """What was typed, if it is UTF-8: Python holds every other byte as half of a surrogate pair."""
    try:
        given.encode("utf-8")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{given!r} is not UTF-8") from None
    return given


class Parser(argparse.ArgumentParser):
    """Raises OSError if its help cannot be written, which argparse would pass over; for subcommands too.

    An optional argument can also stand behind an option: argparse by itself takes it as missing after the first run of
    arguments (`produce TOPIC --key a JSON`).

    A value that is not UTF-8 is refused, unless `type=str` says that its bytes are meant.
    """

    _intermixing = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", None, utf8)  # of every argument without a type of its own

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._intermixing or all(action.nargs not in ("?", "*") for action in self._get_positional_actions()):
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False

    def add_subparsers(self, **kwargs: Any) -> "argparse._SubParsersAction[Any]":
        made = super().add_subparsers(**kwargs)
        made.type = str  # its values are all the words of a command, which that command's parser checks
        return made

    def print_help(self, file: Any = None) -> None:
        (file or sys.stdout).write(self.format_help())

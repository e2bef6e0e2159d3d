"""The parser of every command line here: argparse's, but for how it writes its help, and options stand anywhere."""

import argparse
import sys
from typing import Any


class Parser(argparse.ArgumentParser):
    """Raises OSError where its help cannot be written, which argparse would pass over; for subcommands too.

    An argument that may be missing can stand behind an option as well: argparse by itself gives it up with the first
    run of arguments (`produce TOPIC --key a JSON`).
    """

    _intermixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._intermixing or all(action.nargs not in ("?", "*") for action in self._get_positional_actions()):
            return super().parse_known_args(args, namespace)
        self._intermixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixing = False

    def print_help(self, file: Any = None) -> None:
        (file or sys.stdout).write(self.format_help())

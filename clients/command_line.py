"""The parser of every command line here: argparse's, but for how it writes its help."""

import argparse
import sys
from typing import Any


class Parser(argparse.ArgumentParser):
    """Raises OSError where its help cannot be written, which argparse would pass over; for subcommands too."""

    def print_help(self, file: Any = None) -> None:
        (file or sys.stdout).write(self.format_help())

"""What every command line here has that argparse's own has not."""

import argparse
import sys
from typing import Any


class Parser(argparse.ArgumentParser):
    """Raises OSError where its help cannot be written, which argparse would pass over; for subcommands too."""

    def print_help(self, file: Any = None) -> None:
        (file or sys.stdout).write(self.format_help())

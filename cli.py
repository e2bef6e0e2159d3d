#!/usr/bin/env python3
"""REST client of the two APIs: `python cli.py --help`. What it does is in clients/rest_commands.py."""

import sys

from checkout import use_environment


def main() -> int:
    use_environment(__file__)
    from clients import rest_commands

    return rest_commands.main(sys.argv[1:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit(130)

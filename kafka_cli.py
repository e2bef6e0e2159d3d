#!/usr/bin/env python3
"""Kafka client of the system: `python kafka_cli.py --help`. What it does is in clients/kafka_commands.py."""

import sys

from checkout import use_environment


def main() -> int:
    use_environment(__file__, "kafka", "rich", "sqlalchemy")
    from clients import kafka_commands

    return kafka_commands.main(sys.argv[1:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit(130)

"""`python -m bridge`: one consumer of the group, until SIGTERM or Ctrl-C."""

import sys

from checkout import use_environment


def main() -> int:
    use_environment(__file__, "kafka", "celery")
    from bridge import command_line

    return command_line.main(sys.argv[1:])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit(130)

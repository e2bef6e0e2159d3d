"""`python -m db`: the schema. Upgrade it, downgrade it, show its revision, or have vectors made anew.

python -m db upgrade [REVISION]     run the migrations that are missing, and set up the read-only role
python -m db downgrade REVISION     undo migrations down to REVISION ("base": all of them)
python -m db current                show the revision
python -m db reembed [--provider P] change the embedding model while everything runs (--help says more)
python -m db retry-failed           embed once more what is marked as failed
python -m db embed-missing          embed what has no vectors, as somebody has deleted them or not restored them
"""

import sys

from checkout import use_environment


def main() -> int:
    use_environment(__file__, "sqlalchemy")
    from db import command_line

    return command_line.main()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit(130)

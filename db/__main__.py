"""`python -m db`: the schema, the embedding model, and messages without a vector.

python -m db upgrade [REVISION]     run the migrations that are missing, and set up the read-only role
python -m db downgrade REVISION     undo migrations down to REVISION ("base": all of them)
python -m db current                show the revision
python -m db reembed [--provider P] change the embedding model while everything runs (--help says more)
python -m db retry-failed           embed once more what is marked as failed
python -m db embed-missing          embed what has no vectors, because somebody has deleted or not restored them
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

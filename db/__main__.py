"""`python -m db`: the schema. Upgrade it, downgrade it, show its revision, or have vectors made anew.

python -m db upgrade [REVISION]     run the migrations that are missing, and set up the read-only role
python -m db downgrade REVISION     undo migrations down to REVISION ("base": all of them)
python -m db current                show the revision
python -m db reembed [--provider P] change the embedding model while everything runs (--help says more)
python -m db retry-failed           embed once more what is marked as failed
"""

import importlib.util
import os
import sys
from pathlib import Path

from settings import ROOT

MARK = "checkout"  # of a process that was started here, so that a broken .venv ends in a message and not in a circle


def main() -> int:
    """Goes on in the checkout's .venv where this Python has not the packages."""
    if importlib.util.find_spec("sqlalchemy") is None:
        python = ROOT / ".venv" / "bin" / "python"
        inside = Path(sys.prefix) == ROOT / ".venv" or MARK in sys._xoptions
        if not inside and os.access(python, os.X_OK):
            os.execv(python, [str(python), "-X", MARK, "-m", "db", *sys.argv[1:]])
        missing = "the Python package sqlalchemy is missing"
        print(f"db: {missing}: run {ROOT}/start.sh once, it installs what is needed", file=sys.stderr)
        return 1
    from db import command_line

    return command_line.main()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # while it was still being loaded
        sys.exit(130)

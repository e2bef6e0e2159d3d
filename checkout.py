"""Finding the Python that has the project's packages, whatever Python a script was started with.

It also tells an old Python that it is too old, so nothing newer than Python 3.6 may be used in here.
"""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST = (3, 11)

# Marks a process that this module has started, so that a broken .venv ends in a message and not in an endless loop.
MARK = "checkout"


def use_environment(script: str, *packages: str) -> None:
    """Goes on in the checkout's .venv, which replaces this process, or in this Python where it has the packages.

    `script` is the caller's `__file__`, that of a package's `__main__` too. Ends the process with one line where
    neither is there.
    """
    path = Path(script).resolve()
    is_package = path.name == "__main__.py"
    name = path.parent.name if is_package else path.name
    what = ["-m", name] if is_package else [str(path)]
    # kafka-python reads a byte within an assert: without it, it takes no answer of Kafka.
    os.environ.pop("PYTHONOPTIMIZE", None)
    inside = (Path(sys.prefix) == ROOT / ".venv" and not sys.flags.optimize) or MARK in sys._xoptions
    python = ROOT / ".venv" / "bin" / "python"
    if not inside and os.access(str(python), os.X_OK):
        for variable in ("PYTHONHOME", "PYTHONPATH"):  # another Python's packages, which would come before ours
            os.environ.pop(variable, None)
        try:
            os.execv(str(python), [str(python), "-X", MARK, *what, *sys.argv[1:]])
        except OSError as error:
            sys.exit(f"{name}: {python} does not run ({error.strerror}): delete .venv and run {ROOT}/start.sh")
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        sys.exit(
            f"{name}: the Python package {missing[0]} is missing: run {ROOT}/start.sh once, it installs what is needed"
        )
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"{name}: needs Python 3.11 or later, this is {found}: run {ROOT}/start.sh once, it finds one")

"""The virtual environments of the peers and of the plots, each with packages of its own, below `.local/bench`.

The peers embed with the product's own code, so the libraries of that code have the product's versions there too.
"""

from pathlib import Path

from stack import places
from stack.packages import Packages
from stack.progress import Progress

HERE = Path(__file__).resolve().parent


def environment(name: str) -> Packages:
    return Packages(f"benchmark environment {name}", places.LOCAL / "bench" / name, [HERE / "peers" / f"{name}.txt"])


def python(name: str) -> Path:
    """The Python of an environment, which is installed first if needed. Raises StackError."""
    packages = environment(name)
    if packages.state() != "ready":
        with Progress() as progress:
            packages.install(progress)
    return packages.python

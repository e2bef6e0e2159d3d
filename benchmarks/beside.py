"""Work that goes on in a thread beside a measurement. A thread that dies tells nobody, so without this the measurement
would be reported as if the work had gone on."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.watch import Unfinished


@contextlib.contextmanager
def beside(what: str, work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `work` until the block has ended, which the event tells it. Raises Unfinished if the work has failed."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(work, over)
        try:
            yield
        finally:
            over.set()
        if (error := going.exception()) is not None:
            raise Unfinished(f"{what} failed: {type(error).__name__}: {error}") from error

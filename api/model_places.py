"""How many searches may wait at once for a model that answers over the network."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from api.problems import Unavailable

PLACES = 8  # the other half of gunicorn's threads answers all that needs no model
PLACE_SECONDS = 1.0  # for which a search waits for a place; one held for longer shows that the model is slow


class Places:
    """The places among those who wait for the model. Safe for threads."""

    def __init__(self, *, limited: bool) -> None:
        # A model that computes here keeps the processor busy, not the threads: its searches always get a place.
        self.limited = limited
        self._free = threading.Semaphore(PLACES)
        self._is_slow = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """A place. Raises Unavailable if none gets free within PLACE_SECONDS, and at once while the model is slow."""
        if not self.limited:
            yield
            return
        if not self._free.acquire(timeout=0 if self._is_slow else PLACE_SECONDS):
            self._is_slow = True
            raise Unavailable(
                "the embedding model answers slowly, and as many searches as may wait for it do; "
                "mode keyword works meanwhile"
            )
        began = time.monotonic()
        try:
            yield
        finally:
            self._is_slow = time.monotonic() - began > PLACE_SECONDS
            self._free.release()

"""How large the tables are, for whoever asks as often as they like."""

import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection

from db.queries import Row

# A count that takes no longer than this is made for everyone who asks.
QUICK_SECONDS = 0.1
# A slower one is given again for this many times as long as it took, or for LONGEST_SECONDS.
SHARE = 10
LONGEST_SECONDS = 10.0


class Sizes:
    """The last count. Safe for threads: if counting takes long, one of those who ask counts, and the others take the
    last answer, if that is no older than twice LONGEST_SECONDS."""

    def __init__(self, count: Callable[[Connection], Row]) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._counted: Row = {}
        self._good_until = float("-inf")
        self._is_slow = self._is_counting = False

    def of(self, connection: Connection) -> Row:
        began = time.monotonic()
        with self._lock:
            is_under_way = self._is_counting and began < self._good_until + LONGEST_SECONDS
            if began < self._good_until or (self._is_slow and is_under_way):
                return self._counted
            self._is_counting = True
        try:
            counted = self.count(connection)
        finally:
            self._is_counting = False
        ended = time.monotonic()
        with self._lock:
            self._counted = counted
            self._is_slow = ended - began >= QUICK_SECONDS
            self._good_until = ended + (min(SHARE * (ended - began), LONGEST_SECONDS) if self._is_slow else 0.0)
        return counted

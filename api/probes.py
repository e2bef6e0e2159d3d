"""Questions to other parts that may never answer: asked in a thread, and waited for with a time limit.

Only one question of a kind is under way, however many ask, so a part that hangs costs one thread.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """The part did not answer in time."""


class Probe(Generic[T]):
    """`answer()` is what `ask` returns or raises, at most `keep_seconds` old; NoAnswer after `wait_seconds`."""

    def __init__(self, ask: Callable[[], T], *, wait_seconds: float, keep_seconds: float = 0.0) -> None:
        self.ask = ask
        self.wait_seconds = wait_seconds
        self.keep_seconds = keep_seconds
        self._lock = threading.Lock()
        self._under_way: Future[T] | None = None
        self._finished_at = 0.0

    def answer(self) -> T:
        with self._lock:
            current = self._under_way
            if current is None or (current.done() and time.monotonic() - self._finished_at >= self.keep_seconds):
                current = Future()
                threading.Thread(target=self._run, args=(current,), name=f"probe {self.ask}", daemon=True).start()
                self._under_way = current  # not before: without a thread nobody would ever answer
        try:
            return current.result(self.wait_seconds)
        except TimeoutError:
            if current.done():
                raise  # the question itself timed out
            raise NoAnswer(f"no answer within {self.wait_seconds:g} s") from None

    def _run(self, future: "Future[T]") -> None:
        try:
            result = self.ask()
        except Exception as error:  # noqa: BLE001 - whatever it is, the askers get it
            self._finished_at = time.monotonic()
            future.set_exception(error)
        else:
            self._finished_at = time.monotonic()
            future.set_result(result)

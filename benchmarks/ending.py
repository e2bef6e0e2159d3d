"""Ending on request: Ctrl-C, `kill` and a closed terminal end what runs alike, and cannot leave half of it."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from stack.progress import say

REQUESTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def on_request() -> None:
    """From now on each of these signals raises KeyboardInterrupt, except for those that are already ignored, as SIGHUP
    is under `nohup`."""
    for each in REQUESTS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, _stop)


def _stop(_number: int, _frame: FrameType | None) -> None:
    say("stopping …")
    raise KeyboardInterrupt


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """For cleaning up: another Ctrl-C in the middle of that would leave the servers and their data behind."""
    before = {each: signal.signal(each, signal.SIG_IGN) for each in REQUESTS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

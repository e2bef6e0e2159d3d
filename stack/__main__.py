"""`python -m stack install|start|stop|status|scale`, which the scripts at the top call: how it begins.

Any Python from 3.11 on will do: `start` installs what is missing and goes on in `.venv`.
"""

import os
import signal
import sys
from types import FrameType


def main() -> int:
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # a background job is not
    if interruptible:
        signal.signal(signal.SIGINT, _end_quietly)
    from stack import commands

    return commands.main(sys.argv[1:], interruptible=interruptible)


def _end_quietly(number: int, frame: FrameType | None) -> None:
    """Ends without a traceback: nothing was begun yet, and where in its imports a program was helps nobody."""
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())

"""What the supervisor runs for each part: `python -m stack run NAME` writes the start down and becomes the part.

So the supervisor's configuration needs no paths, quoting or environment, and a part that keeps dying is started again
for ever, with pauses that are bounded.
"""

import os
import signal
import time

from settings import Settings
from stack import leaving, log_lines, record
from stack.plan import supervised_part


def run(settings: Settings, name: str) -> None:
    """Becomes the part. Never returns; raises OSError if its program is not there."""
    # Python ignores SIGPIPE and catches SIGINT; a program that is started expects neither.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    while leaving.is_marked(settings, name):
        leaving.say_waiting(settings, name)
        time.sleep(0.1)  # until it is stopped
    part = supervised_part(settings, name)
    start = record.write_own(settings, name, part.stop_signal)
    pause = start.waits_until - time.monotonic()
    if pause > 0:
        line = f"{name} died early: its next start comes in {pause:.1f} s"
        print(log_lines.told(settings, line, process=name, logger=__name__, pid=os.getpid()), flush=True)
        time.sleep(pause)
    os.chdir(part.directory)
    os.execve(part.command[0], part.command, part.environment)

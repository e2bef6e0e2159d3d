"""Scaling by what waits: looks at the queues every few seconds, and starts and ends workers as `./scale.sh` does.

It is a part of the system if PERSIST_AUTOSCALE or EMBED_AUTOSCALE is set. What waits for `embed` in PostgreSQL counts
as the tasks that it will become, because that queue is bounded. While a server is away, all stays as it is.
"""

import contextlib
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import streams
from settings import InvalidSetting, Settings, load
from stack import log_lines, pipeline_state, scale
from stack.errors import StackError
from task_names import QUEUES

LOOK_SECONDS = 1.0
# A shorter burst is over before a new worker is there.
UP_SECONDS = 3.0
# Starting a worker costs something: the model is loaded and compiled. So it stays for a while.
DOWN_SECONDS = 30.0
# How long a worker that is to go may take to end its task; no queue is looked at meanwhile.
PATIENCE_SECONDS = 30.0


@dataclass
class Wish:
    """How many workers one queue wants. Knows no time but what it is told.

    More than one waiting task for each worker, for a while, doubles the workers; nothing waiting for a longer while
    ends one. In between their number stays, so that it does not go up and down with every burst.
    """

    fewest: int
    most: int
    more_since: float | None = None
    fewer_since: float | None = None

    def look(self, now: float, *, workers: int, waiting: int) -> int:
        self.more_since = (self.more_since if self.more_since is not None else now) if waiting > workers else None
        self.fewer_since = (self.fewer_since if self.fewer_since is not None else now) if not waiting else None
        wanted = workers
        if self.more_since is not None and now - self.more_since >= UP_SECONDS:
            wanted, self.more_since = workers * 2, None
        elif self.fewer_since is not None and now - self.fewer_since >= DOWN_SECONDS:
            wanted, self.fewer_since = workers - 1, None
        return min(max(wanted, self.fewest), self.most)


def waiting(settings: Settings, queue: str) -> int | None:
    """How many tasks wait in a queue, including those that texts in PostgreSQL will become; None if that cannot be
    known."""
    tasks = pipeline_state.queue_length(settings, queue)
    if tasks is None or queue != "embed":
        return tasks
    texts = pipeline_state.texts_pending(settings)
    return None if texts is None else max(tasks, math.ceil(texts / settings.embed_task_messages) - 1)


def follow(settings: Settings, wishes: dict[str, Wish], say: Callable[[str], None]) -> None:
    """Looks at each queue once, and scales it if that is wanted. Raises the StackError of the last queue for which
    scaling failed."""
    now = scale.counts(scale.running(settings))
    failed: StackError | None = None
    for queue, wish in wishes.items():
        found = waiting(settings, queue)
        if found is None:
            continue
        wanted = wish.look(time.monotonic(), workers=now[queue], waiting=found)
        if wanted != now[queue]:
            say(f"{queue}: {now[queue]} → {wanted} workers, as {found} tasks wait")
            try:
                scale.scale(settings, queue, wanted, patience=PATIENCE_SECONDS)
            except StackError as error:
                failed = error
    if failed is not None:
        raise failed


def main() -> int:
    settings = load()
    wishes = {queue: Wish(*bounds) for queue in QUEUES if (bounds := settings.autoscale(queue)) is not None}
    complained = ""

    def say(line: str) -> None:
        if settings.log_format != "json":
            line = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}"
        print(log_lines.told(settings, line, process="autoscale", logger=__name__, pid=os.getpid()), flush=True)

    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                follow(settings, wishes, say)
                complained = ""
            except StackError as error:
                if str(error) != complained:
                    say(str(error))
                complained = str(error)
            time.sleep(LOOK_SECONDS)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InvalidSetting as error:
        print(f"autoscale: {error}", file=sys.stderr)
        sys.exit(streams.WRONG_USAGE)

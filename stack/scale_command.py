"""./scale.sh: checks what was typed, and shows how many workers there are. stack.scale starts and ends them."""

import argparse
import contextlib
import json
import re
import sys

import streams
from settings import Settings
from stack import docker, scale, system
from stack.errors import StackError, WrongUsage
from stack.progress import Progress, dim, say
from task_names import QUEUES


def run(settings: Settings, arguments: argparse.Namespace) -> int:
    """Returns the exit code. Raises StackError, and WrongUsage for what makes no sense."""
    queue, workers = arguments.queue, arguments.workers
    if queue is not None:
        _check(queue, workers)
    if docker.is_up(settings):
        service = f"{queue or 'embed'}-worker={workers or 4}"
        raise StackError(f"it runs in containers: docker compose up -d --no-recreate --scale {service}")
    before = scale.counts(scale.running(settings))
    if queue is None:
        return _show(settings, before, as_json=arguments.json)
    known = scale.running(settings).settings
    if bounds := known.autoscale(queue):
        raise StackError(
            f"{queue} has {before[queue]} workers, between {bounds[0]} and {bounds[1]} by its backlog, as "
            f"{queue.upper()}_AUTOSCALE says: for a number of your own, unset that and start again"
        )
    patience = scale.PATIENCE_SECONDS if arguments.timeout is None else arguments.timeout
    try:
        with contextlib.ExitStack() as shown:
            if not arguments.json:
                step = f"{queue}: {before[queue]} → {workers} workers"
                shown.enter_context(shown.enter_context(Progress()).step(step))
            scale.scale(settings, queue, int(workers), patience=patience)
    except KeyboardInterrupt:
        now = system.read(settings)
        print(f"interrupted: {queue} has {scale.counts(now)[queue] if now else 0}", file=sys.stderr)
        return streams.INTERRUPTED
    return _show(settings, scale.counts(scale.running(settings)), as_json=arguments.json)


def _check(queue: str, workers: str | None) -> None:
    if queue not in QUEUES:
        raise WrongUsage(f"there is no queue {queue!r}: there are {' and '.join(QUEUES)}")
    if workers is None or not re.fullmatch(r"[0-9]{1,6}", workers):
        raise WrongUsage(f"how many workers for {queue}? A whole number, such as ./scale.sh {queue} 4")
    scale.check(queue, int(workers))


def _show(settings: Settings, counts: dict[str, int], *, as_json: bool) -> int:
    known = system.read(settings)
    if as_json:
        say(json.dumps(counts))
        return 0
    for queue, count in counts.items():
        bounds = known.settings.autoscale(queue) if known else None
        say(f"{queue:<8} {count}{dim(f'  by its backlog, {bounds[0]} to {bounds[1]}') if bounds else ''}")
    asked = {queue: settings.workers(queue) for queue in counts}
    if asked != counts:
        numbers = ", ".join(f"{queue.upper()}_WORKERS={number}" for queue, number in asked.items())
        say(dim(f"The next ./start.sh goes by its settings again: {numbers}"))
    return 0

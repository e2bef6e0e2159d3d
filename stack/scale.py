"""`scale`: starts and ends worker processes of a queue while the system runs. It goes by what runs, not by settings.

A worker that goes takes no new task, ends the one in hand, however long that takes, and hands back what it had fetched:
nothing is lost, and nothing is done twice.
"""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from settings import MOST_WORKERS, Settings
from stack import leaving, lock, places, plan, processes, record, supervisor, system
from stack.errors import StackError, Unhealthy, WrongUsage
from stack.part import Part
from stack.pipeline import worker, worker_name, worker_of
from stack.processes import Identity
from stack.start import HEALTHY_SECONDS, last_lines
from stack.supervisor import Supervisor
from stack.system import System
from task_names import QUEUES

PATIENCE_SECONDS = 300.0
_STOP_SECONDS = 15.0
_LOCK_SECONDS = 5.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class WrongNumber(WrongUsage):
    """That many workers cannot be run here."""


def counts(known: System) -> dict[str, int]:
    """How many worker processes each queue has, by what runs."""
    found = [of for part in known.parts if (of := worker_of(part.name)) is not None]
    return {queue: sum(of[0] == queue for of in found) for queue in QUEUES}


def running(settings: Settings) -> System:
    """The system that runs in this DATA_DIR. Raises StackError when none does."""
    known = system.read(settings)
    if supervisor.talk(settings) is None or known is None:
        raise StackError(
            "it does not run: ./start.sh starts it, with as many workers as PERSIST_WORKERS and EMBED_WORKERS say"
        )
    if not known.ready:
        raise StackError(
            "it is being started or stopped: try again when that is done (or ./start.sh, where that was killed)"
        )
    return known


def check(queue: str, wanted: int) -> None:
    """Raises WrongNumber for a number that makes no sense."""
    if wanted == 0:
        raise WrongNumber(
            f"a queue needs a worker, or its work waits for ever: 1 or more for {queue}; to hold the pipeline, "
            "`python kafka_cli.py pause` or `drain`"
        )
    if not 1 <= wanted <= MOST_WORKERS:
        raise WrongNumber(
            f"{wanted} workers: 1 to {MOST_WORKERS} a queue can be run here; more of them, on other machines"
        )


def scale(settings: Settings, queue: str, wanted: int, *, patience: float = PATIENCE_SECONDS) -> tuple[int, int]:
    """Brings a queue to `wanted` workers, and returns how many there were and are. Raises StackError.

    When it returns, all workers that are wanted run and are well, also one that a killed command had left stopped, and
    those that were to go have ended. Only one command does this at a time.
    """
    check(queue, wanted)
    running(settings)
    only = _take(settings, "run/scale.lock", "the workers are being scaled already: wait for that")
    try:
        known = running(settings)
        now = counts(known)[queue]
        _revive(known, queue, min(now, wanted))
        if wanted > now:
            _add(known, queue, range(now + 1, wanted + 1))
        elif wanted < now:
            _retire(known, queue, range(wanted + 1, now + 1), patience)
        return now, wanted
    finally:
        only.release()


def _revive(known: System, queue: str, count: int) -> None:
    """Starts those of the first `count` workers that are stopped. Raises Unhealthy."""
    names = _talk(known.settings).stopped([worker_name(queue, number) for number in range(1, count + 1)])
    parts = [worker(known.settings, queue, of[1]) for name in names if (of := worker_of(name)) is not None]
    if parts:
        _start(known, queue, parts, counts(known)[queue])
        _wait_until_well(known.settings, parts)


def _add(known: System, queue: str, numbers: Sequence[int]) -> None:
    new = [worker(known.settings, queue, number) for number in numbers]
    _start(known, queue, new, numbers[-1])
    try:
        _wait_until_well(known.settings, new)
    except Unhealthy as error:
        log = places.log(known.settings, new[0].name)
        _remove(known, queue, numbers)
        left = f"{queue} has {numbers[0] - 1} as before"
        raise Unhealthy(f"{error}; {left}; the end of {log}:", last_lines(log)) from None


def _start(known: System, queue: str, parts: Sequence[Part], count: int) -> None:
    for part in parts:
        part.prepare()
        record.forget(known.settings, part.name)
    names = [part.name for part in parts]
    with _alone(known.settings):
        talk = _talk(known.settings)
        _write_down(known.settings, queue, count)
        talk.add(names)
        talk.start(names)


def _wait_until_well(settings: Settings, parts: Sequence[Part]) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    for part in parts:
        part.wait_until_healthy(deadline - time.monotonic(), partial(_hopeless, settings, part))


def _hopeless(settings: Settings, part: Part) -> str | None:
    reason = record.hopeless(settings, part.name)
    return reason or (None if supervisor.talk(settings) else "the system was stopped")


def _retire(known: System, queue: str, numbers: Sequence[int], patience: float) -> None:
    """Ends workers once their tasks in hand are done. The supervisor alone would kill them after some seconds."""
    names = [worker_name(queue, number) for number in numbers]
    for name in names:
        leaving.mark(known.settings, name)
    try:
        talk = _talk(known.settings)
        _wait_for_tasks(known.settings, names, patience)
        supervisor.wait_for(
            lambda: all(leaving.is_waiting(known.settings, name) for name in set(names) - set(talk.stopped(names))),
            _STOP_SECONDS,
            f"{', '.join(names)} did not begin anew",
        )
        _remove(known, queue, numbers)
    finally:
        for name in names:
            leaving.unmark(known.settings, name)


def _wait_for_tasks(settings: Settings, names: Sequence[str], patience: float) -> None:
    """Asks workers to end, and waits until they have."""
    talk = _talk(settings)
    at_work: dict[str, Identity] = {}
    for name in names:
        start = record.read(settings, name)
        if start is not None:
            at_work[name] = start.process
            talk.signal(name, "TERM")
    deadline = time.monotonic() + patience
    while at_work := {name: process for name, process in at_work.items() if processes.alive(process)}:
        if time.monotonic() > deadline:
            raise StackError(
                f"{', '.join(at_work)} did not end within {patience:g} s: each ends its task first, if it has one, and "
                "begins anew then; try again, or with a longer --timeout"
            )
        time.sleep(0.05)


def _remove(known: System, queue: str, numbers: Sequence[int]) -> None:
    names = [worker_name(queue, number) for number in numbers]
    with _alone(known.settings):  # a worker that is stopped and still counted would be missing for good
        talk = _talk(known.settings)
        talk.stop(names)
        supervisor.wait_for(lambda: not talk.running(names), _STOP_SECONDS, f"{', '.join(names)} did not end")
        _write_down(known.settings, queue, numbers[0] - 1)
        talk.remove(names)
        for name in names:
            record.forget(known.settings, name)


@contextlib.contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Keeps starts and stops away, and signals waiting, for the seconds that this takes. Raises StackError if a start
    or stop is under way, after some patience, or if the system does not run any more."""
    alone = _take(settings, "lock", "a start or stop is under way here: wait for it", seconds=_LOCK_SECONDS)
    came: list[int] = []
    # Blocked also for the programs that are run here, which inherit that. But it holds for this thread only, and the
    # one that shows the progress still takes the signal: so it is noted too.
    handlers = {each: signal.signal(each, lambda number, _: came.append(number)) for each in _SIGNALS}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        running(settings)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for each, handler in handlers.items():
            signal.signal(each, handler)
        alone.release()
        for number in came:
            signal.raise_signal(number)


def _write_down(settings: Settings, queue: str, count: int) -> None:
    """Writes down the system with so many workers, for later commands and for the supervisor."""
    now = _with(running(settings).settings, queue, count)
    parts = plan.parts(now)
    supervisor.write_configuration(now, parts)
    system.write(now, parts, ready=True)


def _with(settings: Settings, queue: str, count: int) -> Settings:
    if queue == "persist":
        return replace(settings, persist_workers=count)
    return replace(settings, embed_workers=count)


def _talk(settings: Settings) -> Supervisor:
    talk = supervisor.talk(settings)
    if talk is None:
        raise StackError("the system was stopped meanwhile")
    return talk


def _take(settings: Settings, name: str, complaint: str, *, seconds: float = 0.0) -> lock.Lock:
    deadline = time.monotonic() + seconds
    while True:
        try:
            return lock.take(places.data(settings) / name, complaint)
        except StackError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.05)

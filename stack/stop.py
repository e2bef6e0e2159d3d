"""`stop`: ends every process of a system in order, and with `--volumes` removes its data.

Works on whatever is there: a system that runs, half a start, or processes whose supervisor was killed.
"""

import contextlib
import signal
import time
from pathlib import Path

from settings import Settings
from stack import folders, places, postgres_place, processes, record, supervisor, system
from stack.errors import StackError
from stack.part import PIPELINE
from stack.processes import Identity, identity
from stack.supervisor import Supervisor

# All that DATA_DIR holds of a system; anything else in there is not ours.
_FOLDERS = ["kafka", "kafka-zookeeper", "zookeeper", "valkey", "flower", "kafka-ui", "logs", "run"]
_STOP_SECONDS = 10.0


def stop_all(settings: Settings) -> bool:
    """Ends every process of the system; says whether there was any."""
    found = False
    talk = supervisor.talk(settings)
    if talk is not None:
        found = True
        _note_half(settings)
        with contextlib.suppress(StackError):  # what is left then are orphans
            _stop_parts(settings, talk)
    found = _end_supervisor(settings, talk) or found
    found = end_orphans(settings) or found
    _forget(settings)
    _remove_socket(settings)
    return found


def forget_copied(settings: Settings) -> None:
    """Forgets what came with a copy of a checkout whose system runs: its processes are not ours to end."""
    if record.is_copied(settings):
        _forget(settings)


def _forget(settings: Settings) -> None:
    system.forget(settings)
    record.clear(settings)
    supervisor.forget_process(settings)


def _note_half(settings: Settings) -> None:
    """Notes that a stop has begun: if it is killed, the next start ends what is left and does not take it for whole."""
    known = system.read(settings)
    if known is not None:
        with contextlib.suppress(OSError):  # a full disk keeps nobody from stopping
            system.write(known.settings, known.parts, ready=False)


def _stop_parts(settings: Settings, talk: Supervisor) -> None:
    """Stops layer after layer, the parts of a layer together. The supervisor kills what does not end in time."""
    known = system.read(settings)
    layers = {part.name: part.layer for part in known.parts} if known else {}
    names = list(talk.states())
    for layer in sorted({layers.get(name, PIPELINE) for name in names}, reverse=True):
        these = [name for name in names if layers.get(name, PIPELINE) == layer]
        talk.stop(these)
        deadline = time.monotonic() + _STOP_SECONDS
        while talk.running(these) and time.monotonic() < deadline:
            time.sleep(0.05)


def _end_supervisor(settings: Settings, talk: Supervisor | None) -> bool:
    process = supervisor.process(settings)
    if process is None:
        return False
    try:
        asked = talk is not None and talk.shutdown()
    except StackError:
        asked = False
    if not asked:
        # It stops its parts itself, one after the other.
        processes.send(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + 3 * _STOP_SECONDS
    while processes.alive(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    processes.end({process: signal.SIGKILL}, 2.0)
    return True


def end_orphans(settings: Settings) -> bool:
    """Ends processes of this system that no supervisor looks after; says whether there were any.

    They are known by what a start wrote down, pid and time of beginning, or by DATA_DIR as a mark in their environment.
    """
    orphans: dict[Identity, int] = {}
    for pid in processes.marked(settings):
        process = identity(pid)
        if process is not None:
            orphans[process] = signal.SIGTERM
    for known in record.all_records(settings).values():
        if processes.alive(known.process):
            orphans[known.process] = known.stop_signal
    processes.end(orphans, _STOP_SECONDS)
    return bool(orphans)


def remove_data(settings: Settings) -> None:
    """Removes what the system stored. Raises OSError for what this user may not remove."""
    postgres_place.remove_data(settings)
    for name in _FOLDERS:
        folders.remove(places.data(settings) / name)
    _remove_if_empty(places.data(settings))


def _remove_socket(settings: Settings) -> None:
    control = places.socket(settings)
    control.unlink(missing_ok=True)
    if control.parent != places.run(settings):
        _remove_if_empty(control.parent)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        pass  # it holds something that is not ours, or it was never made

"""`start`: prepares the services, starts every part under the supervisor, and waits until each is well.

A start that fails or is interrupted stops what it started. What a start that was killed left behind is ended first.
"""

import concurrent.futures
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from settings import MOST_WORKERS, ROOT, InvalidSetting, Settings
from stack import log_lines, places, plan, ports, record, shell, stop, supervisor, system
from stack.errors import StackError, Unhealthy
from stack.java import check_java
from stack.part import SERVICE, Part, environment
from stack.progress import Progress, bold, say
from stack.supervisor import Supervisor
from task_names import QUEUES

# Enough for a cold disk and two busy cores; a warm start of everything takes some ten seconds.
HEALTHY_SECONDS = 90.0
_SHOWN_LINES = 15  # of the end of a log


def start(settings: Settings) -> None:
    """Starts the system. Raises StackError or InvalidSetting with what to do; then no part of it runs."""
    check_workers(settings)
    parts = plan.parts(settings)
    if any(part.name == "kafka" for part in parts):
        check_java()
    ports.check_free(parts)
    for folder in (places.run(settings), places.logs(settings)):
        folder.mkdir(parents=True, exist_ok=True)
    record.note_folder(settings)
    try:
        with Progress() as progress:
            _start(settings, parts, progress)
    except BaseException as reason:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # cleaning up takes seconds, and half of it leaves processes behind
        if isinstance(reason, KeyboardInterrupt):
            say("Stopping what was started")
        stop.stop_all(settings)
        raise


def check_workers(settings: Settings) -> None:
    """Raises InvalidSetting for more workers of a queue than `./scale.sh` takes. A pod's settings may name more."""
    for queue in QUEUES:
        if settings.workers(queue) > MOST_WORKERS:
            name = f"{queue.upper()}_WORKERS={settings.workers(queue)}"
            raise InvalidSetting(f"{name}: 1 to {MOST_WORKERS} can be run here; more of them, on other machines")


def _start(settings: Settings, parts: list[Part], progress: Progress) -> None:
    say(bold("Starting"))
    for server in plan.existing(settings):
        with progress.step(f"{server.title} at {server.address}, as {server.variable} says"):
            server.check()
    record.clear(settings)
    system.write(settings, parts, ready=False)
    services = [part for part in parts if part.layer <= SERVICE]
    others = [part for part in parts if part.layer > SERVICE]
    _in_parallel([part.prepare for part in parts])
    supervisor.launch(settings, parts)
    # Topics and tables exist before anything that reads them starts.
    groups = {
        "kafka": _command(settings, progress, "Topics", "bridge.topics"),
        "postgres": _command(settings, progress, "Migrations", "db", "upgrade"),
    }
    local = {part.name for part in services}
    now = [groups[name] for name in groups if name not in local]
    waits = [_healthy_then(settings, progress, part, groups.get(part.name)) for part in services]
    _in_parallel([*now, *waits])
    talk = supervisor.talk(settings)
    if talk is None:
        raise StackError(f"the supervisor died: see {places.logs(settings) / 'supervisord.log'}")
    talk.start(part.name for part in others)
    _in_parallel([_healthy_then(settings, progress, part, None) for part in others])
    _still_running(settings, parts, talk)
    system.write(settings, parts, ready=True)


def _healthy_then(
    settings: Settings, progress: Progress, part: Part, work: Callable[[], None] | None
) -> Callable[[], None]:
    """Waits for a part, then does the work that needs it."""

    def wait() -> None:
        with progress.step(part.name):
            try:
                part.wait_until_healthy(HEALTHY_SECONDS, lambda: _hopeless(settings, part.name))
            except Unhealthy as error:
                log = places.log(settings, part.name)
                raise Unhealthy(f"{error}; the end of {log}:", last_lines(log)) from None
        if work is not None:
            work()

    return wait


def _hopeless(settings: Settings, name: str) -> str | None:
    """Why there is no point in waiting for a part: the start was given up, or the part dies again and again."""
    if _given_up.is_set():
        return "the start was given up"
    return record.hopeless(settings, name)


def _still_running(settings: Settings, parts: Iterable[Part], talk: Supervisor) -> None:
    """Raises Unhealthy for a part that does not run, or had to be started twice: for some parts there is no other sign
    of health."""
    running = talk.running([part.name for part in parts])
    for part in parts:
        known = record.read(settings, part.name)
        if part.name not in running or (known is not None and known.early_deaths):
            log = places.log(settings, part.name)
            raise Unhealthy(f"{part.name} died while the system started; the end of {log}:", last_lines(log))


def _command(settings: Settings, progress: Progress, label: str, *module: str) -> Callable[[], None]:
    """A step that runs one of the project's own commands to its end."""

    def run() -> None:
        with progress.step(label):
            log = places.log(settings, label.lower())
            code, said = _logged(settings, label.lower(), module, log)
        if code != 0:
            raise StackError(f"python -m {' '.join(module)} failed; the end of {log}:", said[-_SHOWN_LINES:])

    return run


def _logged(settings: Settings, name: str, module: Sequence[str], log: Path) -> tuple[int, list[str]]:
    """Runs a command with its lines going into the log, in the form of the settings. Returns its code and the lines."""
    said = []
    words = [str(places.VENV_PYTHON), "-m", *module]
    with (
        shell.reading(words, environment=environment(settings), folder=ROOT) as command,
        log.open("w", encoding="utf-8") as output,
    ):
        assert command.stdout is not None
        for line in command.stdout:
            said.append(line.rstrip("\n"))
            told = log_lines.told(settings, said[-1], process=name, logger=module[0], pid=command.pid)
            print(told, file=output, flush=True)
    return command.returncode, said


_given_up = threading.Event()


def _in_parallel(works: list[Callable[[], None]]) -> None:
    """Does all works at the same time; the first failure is raised, and the others stop waiting."""
    _given_up.clear()
    with concurrent.futures.ThreadPoolExecutor(max(1, len(works))) as pool:
        futures = [pool.submit(work) for work in works]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            _given_up.set()
            shell.end_all()
            raise


def last_lines(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
    except FileNotFoundError:
        return ["(it wrote nothing)"]

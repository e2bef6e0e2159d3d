"""The command line of the stack: `python -m stack install|start|stop|status|scale`. The scripts at the top call it.

Any Python from 3.11 on will do: `start` installs what is missing and goes on in `.venv`.
"""

import argparse
import contextlib
import json
import logging
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType

from settings import InvalidSetting, Settings, load
from stack import lock, places
from stack.errors import StackError
from stack.pipeline import QUEUES
from stack.progress import Progress, dim, red, say


def main() -> int:
    arguments = _parse(sys.argv[1:])
    # Client libraries warn of a server that is not up yet; what matters of it is said by the commands.
    logging.getLogger().addHandler(logging.NullHandler())
    if arguments.call is not _run:  # which is ended like the part that it becomes
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _as_interrupt)
    try:
        return int(arguments.call(load(), arguments))
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    except InvalidSetting as error:
        return _fail(str(error))
    except StackError as error:
        return _fail(str(error), error.detail)
    except PermissionError as error:
        return _fail(_explain_permission(error))


def _parse(given: list[str]) -> argparse.Namespace:
    """Each command reads its own words, so that it is named as it was typed, and options may stand anywhere."""
    parser = argparse.ArgumentParser(
        prog="python -m stack", description="The pipeline on this machine, without containers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_commands(commands)
    own = commands.choices.get(given[0]) if given else None
    return parser.parse_args(given) if own is None else own.parse_intermixed_args(given[1:])


def _add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:

    install = commands.add_parser("install", help="install what is missing into the checkout")
    install.add_argument("--dev", action="store_true", help="and what the tests need")
    install.add_argument("--no-ui", action="store_true", help="without the Kafka UI")
    install.set_defaults(call=_install)

    start = commands.add_parser("start", prog="./start.sh", help="start everything and wait until it is well")
    start.add_argument("--no-demo", action="store_true", help="send no message at the end")
    start.add_argument("--docker", action="store_true", help="through docker compose")
    start.add_argument("--status", action="store_true", help="only show the state of the parts")
    start.set_defaults(call=_start)

    stop = commands.add_parser("stop", prog="./stop.sh", help="stop everything; data stays")
    stop.add_argument("--volumes", action="store_true", help="remove the data too")
    stop.add_argument("--yes", action="store_true", help="without asking")
    stop.add_argument("--docker", action="store_true", help="the containers, whoever started them")
    stop.set_defaults(call=_stop)

    status = commands.add_parser("status", prog="./status.sh", help="show the state of the parts")
    status.add_argument("--docker", action="store_true", help="of the containers, whoever started them")
    status.set_defaults(call=_status)

    scale = commands.add_parser(
        "scale",
        prog="./scale.sh",
        help="start or end workers of a queue while it runs",
        description="Starts or ends worker processes of a queue while the system runs; without a queue it shows how "
        "many there are. A worker that goes ends its task first. The next ./start.sh goes by PERSIST_WORKERS and "
        "EMBED_WORKERS again.",
        epilog="examples:\n  ./scale.sh\n  ./scale.sh embed 4\n  ./scale.sh persist 2 --json\n\n"
        "exit codes: 0 done, 1 not done, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    scale.add_argument("queue", nargs="?", metavar="QUEUE", help="persist or embed")
    scale.add_argument("workers", nargs="?", metavar="N", help="how many worker processes it is to have")
    scale.add_argument("--timeout", type=_seconds, metavar="S", help="how long to wait for tasks in hand (300)")
    scale.add_argument("--json", action="store_true", help="print JSON, for machines")
    scale.set_defaults(call=_scale)

    run = commands.add_parser("run", help="become one part (what the supervisor calls)")
    run.add_argument("name")
    run.set_defaults(call=_run)


def _seconds(given: str) -> float:
    number = float(given)
    if not 0 <= number < float("inf") or not given.isascii():
        raise argparse.ArgumentTypeError("must be 0 or more seconds")
    return number


def _install(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack.install import install

    install(settings, dev=arguments.dev, ui=not arguments.no_ui)
    return 0


def _start(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.status:
        return _status(settings, arguments)
    from stack import docker, stop, supervisor, system
    from stack.install import install

    hold = lock.take(
        _lock_file(settings), "another start or stop is under way here: wait for it, or end it with Ctrl-C"
    )
    if arguments.docker:
        if supervisor.talk(settings) is not None:
            raise StackError("it runs here without containers: ./stop.sh first")
        install(settings, local=False)
        _go_on_in_venv(hold)
        return _start_docker(settings, demo=not arguments.no_demo)
    if docker.is_up(settings):
        raise StackError("it runs in containers: ./stop.sh first, or ./start.sh --docker")
    known = system.read(settings)
    if supervisor.talk(settings) is not None:
        if known is not None and known.ready:
            return _already_running(known.settings)
        say("An earlier start did not come to its end: stopping what it left")
    elif stop.end_orphans(settings):
        say("Ended parts that an earlier supervisor had left behind")
    stop.stop_all(settings)
    install(settings)
    _go_on_in_venv(hold)
    return _start_local(settings, demo=not arguments.no_demo)


def _already_running(settings: Settings) -> int:
    from stack import report, status

    down = [line.name for line in status.lines(settings) if not line.runs]
    say("It is running." if not down else f"It is running, but not all of it: {', '.join(down)}. See ./status.sh")
    report.show(settings)
    return 0


def _go_on_in_venv(hold: lock.Lock) -> None:
    """The same command in the Python that has the packages; returns when this is it."""
    if Path(sys.prefix) == places.VENV:
        return
    hold.hand_on()
    os.execv(places.VENV_PYTHON, [str(places.VENV_PYTHON), "-m", "stack", *sys.argv[1:]])


def _start_local(settings: Settings, *, demo: bool) -> int:
    from stack import probes, report
    from stack.demo import demo as show_demo
    from stack.start import start

    start(settings)
    if demo and probes.intake_paused(settings):
        say("The intake is paused, so no message is sent: `python kafka_cli.py resume` takes it up again")
    elif demo:
        show_demo(settings)
    report.show(settings)
    return 0


def _start_docker(settings: Settings, *, demo: bool) -> int:
    from stack import docker, report
    from stack.demo import demo as show_demo

    docker.up(settings)
    here = docker.seen_from_here(settings)
    if demo:
        show_demo(here)
    report.show(here, docker=True)
    return 0


def _stop(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack import docker, stop

    containers = arguments.docker or docker.is_up(settings)
    if arguments.volumes and not arguments.yes and not _confirmed(settings, containers):
        return 2
    if containers:
        docker.down(settings, volumes=arguments.volumes)
        return 0
    hold = lock.take(
        _lock_file(settings), "another start or stop is under way here: wait for it, or end it with Ctrl-C"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # half a stop helps nobody, and a stop has an end
    say("Stopped." if stop.stop_all(settings) else "Nothing was running.")
    if arguments.volumes:
        stop.remove_data(settings)
        say("The data is removed.")
    hold.release()
    return 0


def _confirmed(settings: Settings, docker: bool) -> bool:
    where = "the compose volumes" if docker else places.data(settings)
    if not sys.stdin.isatty():
        _fail("--volumes removes all data: without a terminal to ask on, it wants --yes too")
        return False
    try:
        answer = input(f"Remove all data in {where}? [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() in ("y", "yes"):
        return True
    say("Nothing was done.")
    return False


def _status(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack import docker
    from stack.status import status

    return docker.status(settings) if arguments.docker or docker.is_up(settings) else status(settings)


def _scale(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack import docker, scale

    queue, workers = arguments.queue, arguments.workers
    if queue is not None and queue not in QUEUES:
        return _fail(f"there is no queue {queue!r}: there are {' and '.join(QUEUES)}", code=2)
    if queue is not None and (workers is None or not re.fullmatch(r"[0-9]{1,6}", workers)):
        return _fail(f"how many workers for {queue}? A whole number, such as ./scale.sh {queue} 4", code=2)
    try:
        if queue is not None:
            scale.check(queue, int(workers))
    except scale.WrongNumber as error:
        return _fail(str(error), code=2)
    if docker.is_up(settings):
        service = f"{queue or 'embed'}-worker={workers or 4}"
        raise StackError(f"it runs in containers: docker compose up -d --no-recreate --scale {service}")
    before = scale.counts(scale.running(settings))
    if queue is None:
        return _show_workers(settings, before, as_json=arguments.json)
    known = scale.running(settings).settings
    if bounds := known.autoscale(queue):
        raise StackError(
            f"{queue} has {before[queue]} workers, between {bounds[0]} and {bounds[1]} by its backlog, as "
            f"{queue.upper()}_AUTOSCALE says: for a number of your own, unset that and start again"
        )
    patience = scale.PATIENCE_SECONDS if arguments.timeout is None else arguments.timeout
    with contextlib.ExitStack() as shown:
        if not arguments.json:
            shown.enter_context(shown.enter_context(Progress()).step(f"{queue}: {before[queue]} → {workers} workers"))
        scale.scale(settings, queue, int(workers), patience=patience)
    return _show_workers(settings, scale.counts(scale.running(settings)), as_json=arguments.json)


def _show_workers(settings: Settings, counts: dict[str, int], *, as_json: bool) -> int:
    from stack import system

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


def _run(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack.run import run

    run(settings, arguments.name)
    return 1


def _lock_file(settings: Settings) -> Path:
    """Beside `run`, which `--volumes` removes."""
    return places.data(settings) / "lock"


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, detail: tuple[str, ...] = (), code: int = 1) -> int:
    """One line on standard error, and below it what helps to understand it."""
    print(red(message), file=sys.stderr)
    for line in detail:
        print(f"    {line}", file=sys.stderr)
    return code


def _explain_permission(error: PermissionError) -> str:
    path = Path(error.filename or places.LOCAL)
    return f"{path} belongs to {_owner(path)}: do this as {_owner(path)}, or set DATA_DIR to a folder of your own"


def _owner(path: Path) -> str:
    """Who owns a path, or the nearest folder above it that this user may look at."""
    for each in (path, *path.parents):
        try:
            return each.owner()
        except (KeyError, OSError):
            continue
    return "another user"


if __name__ == "__main__":
    sys.exit(main())

"""The command line of the stack: `python -m stack install|start|stop|status`. The scripts at the top call it.

Any Python from 3.11 on will do: `start` installs what is missing and goes on in `.venv`.
"""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from settings import InvalidSetting, Settings, load
from stack import lock, places
from stack.errors import StackError
from stack.progress import red, say


def main() -> int:
    arguments = _parser().parse_args()
    # Client libraries warn of a server that is not up yet; what matters of it is said by the commands.
    logging.getLogger().addHandler(logging.NullHandler())
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack", description="The pipeline on this machine, without containers.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

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

    run = commands.add_parser("run", help="become one part (what the supervisor calls)")
    run.add_argument("name")
    run.set_defaults(call=_run)
    return parser


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
    from stack import report
    from stack.demo import demo as show_demo
    from stack.start import start

    start(settings)
    if demo:
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


def _run(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack.run import run

    run(settings, arguments.name)
    return 1


def _lock_file(settings: Settings) -> Path:
    """Beside `run`, which `--volumes` removes."""
    return places.data(settings) / "lock"


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, detail: tuple[str, ...] = ()) -> int:
    """One line on standard error, and below it what helps to understand it."""
    print(red(message), file=sys.stderr)
    for line in detail:
        print(f"    {line}", file=sys.stderr)
    return 1


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

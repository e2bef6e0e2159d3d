"""What each command of the stack does, and how it ends: an error is one line, and an exit code says its kind."""

import argparse
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType

import streams
from settings import ROOT, InvalidSetting, Settings, load, load_data_dir, misspelt, read_env_file
from stack import arguments as command_line
from stack import lock, places, progress
from stack.errors import StackError, WrongUsage
from stack.progress import red, say

SHOWING = ("status", "scale")  # useless if their output cannot be written


def main(given: list[str], *, interruptible: bool = True) -> int:
    """Runs a command and returns its exit code. A reader that has enough (`| head`) is no error."""
    try:
        if interruptible:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        streams.prepare()
        shows, code = _carry_out(given)
        progress.flush()
    except KeyboardInterrupt:
        return streams.INTERRUPTED
    lost = progress.lost()
    if lost is None:
        return code
    _fail(f"standard output cannot be written: {lost}")
    return (code or streams.FAILED) if shows else code


def _carry_out(given: list[str]) -> tuple[bool, int]:
    """Whether the command's purpose is what it shows, and its exit code."""
    try:
        arguments = command_line.read(given)
    except SystemExit as ended:  # after --help or wrong usage
        return True, streams.exit_code(ended)
    shows = arguments.command in SHOWING or (arguments.command == "start" and arguments.status)
    # Client libraries warn of a server that is not up yet; the commands say what matters of that.
    logging.getLogger().addHandler(logging.NullHandler())
    if arguments.command != "run":  # run is ended like the part that it becomes
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup has one ignored
                signal.signal(number, _as_interrupt)
    try:
        return shows, COMMANDS[arguments.command](_settings(arguments), arguments)
    except KeyboardInterrupt:
        if not shows:
            say("Interrupted.")
        return shows, streams.INTERRUPTED
    except InvalidSetting as error:
        return shows, _fail(str(error), code=streams.WRONG_USAGE)
    except WrongUsage as error:
        return shows, _fail(str(error), error.detail, code=streams.WRONG_USAGE)
    except StackError as error:
        return shows, _fail(str(error), error.detail)
    except PermissionError as error:
        return shows, _fail(_explain_permission(error))
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        return shows, _fail(f"{where}{error.strerror or error}")


def _settings(arguments: argparse.Namespace) -> Settings:
    """The settings. If they are wrong, stop and status get those that find the system. Raises InvalidSetting."""
    try:
        return load()
    except InvalidSetting as error:
        if not (arguments.command in ("stop", "status") or (arguments.command == "start" and arguments.status)):
            raise
        _fail(str(error))
        return load_data_dir()


def _install(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack.install import install

    install(settings, dev=arguments.dev, ui=not arguments.no_ui)
    return 0


def _start(settings: Settings, arguments: argparse.Namespace) -> int:
    if arguments.status:
        return _status(settings, arguments)
    from stack import docker, stop, supervisor, system
    from stack.install import install

    hold = _hold(settings)
    if arguments.docker:
        if supervisor.talk(settings) is not None:
            raise StackError("it runs here without containers: ./stop.sh first")
        install(settings, local=False)
        _go_on_in_venv(hold)
        return _start_docker(settings, demo=not arguments.no_demo)
    if docker.is_up(settings):
        raise StackError("it runs in containers: ./stop.sh first, or ./start.sh --docker")
    stop.forget_copied(settings)
    known = system.read(settings)
    if supervisor.talk(settings) is not None:
        if known is not None and known.ready:
            return _already_running(known.settings)
        say("An earlier start or stop did not come to its end: stopping what it left")
    elif stop.end_orphans(settings):
        say("Ended parts that an earlier supervisor had left behind")
    stop.stop_all(settings)
    install(settings)
    _go_on_in_venv(hold)
    return _start_local(settings, demo=not arguments.no_demo)


def tell_misspelt() -> None:
    """Names the lines of `.env` that set nothing but look as if they should."""
    for name, setting in misspelt(read_env_file(ROOT / ".env")).items():
        say(f".env: {name} is no setting, and changes nothing; {setting} is one")


def _already_running(settings: Settings) -> int:
    from stack import report, status

    down = [line.name for line in status.lines(settings) if not line.runs]
    say("It is running." if not down else f"It is running, but not all of it: {', '.join(down)}. See ./status.sh")
    report.show(settings)
    return 0


def _go_on_in_venv(hold: lock.Lock) -> None:
    """Goes on in the Python that has the packages; returns if this one has them."""
    if Path(sys.prefix) == places.VENV:
        return
    hold.hand_on()
    os.execv(places.VENV_PYTHON, [str(places.VENV_PYTHON), "-m", "stack", *sys.argv[1:]])


def _start_local(settings: Settings, *, demo: bool) -> int:
    from stack import report
    from stack.start import start

    tell_misspelt()
    start(settings)
    if demo:
        _show_demo(settings)
    report.show(settings)
    return 0


def _start_docker(settings: Settings, *, demo: bool) -> int:
    from stack import docker, report

    tell_misspelt()
    docker.up(settings)
    here = docker.seen_from_here(settings)
    if demo:
        _show_demo(here)
    report.show(here, docker=True)
    return 0


def _show_demo(settings: Settings) -> None:
    """Sends a message and finds it; not while the intake is paused, when nothing would come of it."""
    from stack import demo, pipeline_state

    if pipeline_state.intake_paused(settings):
        say("The intake is paused, so no message is sent: `python kafka_cli.py resume` takes it up again")
    else:
        demo.demo(settings)


def _stop(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack import docker, stop

    containers = arguments.docker or docker.is_up(settings)
    if arguments.volumes and not arguments.yes:
        _confirm(settings, containers)
    if containers:
        docker.down(settings, volumes=arguments.volumes)
        return 0
    hold = _hold(settings)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # half a stop helps nobody, and a stop ends soon
    stop.forget_copied(settings)
    say("Stopped." if stop.stop_all(settings) else "Nothing was running.")
    if arguments.volumes:
        stop.remove_data(settings)
        say("The data is removed.")
    hold.release()
    return 0


def _confirm(settings: Settings, docker: bool) -> None:
    """Asks whether the data may be removed. Raises StackError for a no, and WrongUsage if nobody can be asked."""
    answer = streams.confirmed(f"Remove all data in {'the compose volumes' if docker else places.data(settings)}?")
    if answer is None:
        raise WrongUsage("--volumes removes all data: without a terminal to ask on, it wants --yes too")
    if not answer:
        raise StackError("nothing was done")


def _status(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack import docker, stop
    from stack.status import status

    if arguments.docker or docker.is_up(settings):
        return docker.status(settings)
    stop.forget_copied(settings)
    return status(settings)


def _scale(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack import scale_command

    return scale_command.run(settings, arguments)


def _run(settings: Settings, arguments: argparse.Namespace) -> int:
    from stack.run import run

    run(settings, arguments.name)
    return streams.FAILED


def _hold(settings: Settings) -> lock.Lock:
    """The lock of starts and stops; its file lies beside `run`, which `--volumes` removes. Raises StackError."""
    complaint = "another start or stop is under way here: wait for it, or end it with Ctrl-C"
    return lock.take(places.data(settings) / "lock", complaint)


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, detail: tuple[str, ...] = (), code: int = streams.FAILED) -> int:
    """One line on standard error, and below it what helps to understand it."""
    with contextlib.suppress(OSError):  # if that cannot be written either, the exit code has to suffice
        print(red(message), file=sys.stderr)
        for line in detail:
            print(f"    {line}", file=sys.stderr)
        sys.stderr.flush()
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


COMMANDS = {
    "install": _install,
    "start": _start,
    "stop": _stop,
    "status": _status,
    "scale": _scale,
    "run": _run,
}

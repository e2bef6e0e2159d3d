"""The supervisor of one system: its configuration, its start, and the conversation with it over its socket.

supervisord comes from PyPI. Only the standard library is needed to talk to it, so that stopping works with any Python.
"""

import http.client
import json
import os
import socket
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from settings import ROOT, Settings
from stack import places
from stack.errors import StackError
from stack.part import SERVICE, Part, environment
from stack.processes import Identity, alive, identity

_STOPPED = {"STOPPED", "EXITED", "FATAL"}
# Of supervisor.xmlrpc.Faults:
_SHUTDOWN_STATE, _BAD_NAME, _FAILED, _ALREADY_STARTED, _NOT_RUNNING, _ALREADY_ADDED = 6, 10, 30, 60, 70, 90
# Why a part may get no signal. It is then ended as an orphan, when the supervisor is gone.
_NOT_SIGNALLED = (_BAD_NAME, _FAILED, _NOT_RUNNING)


def configuration(settings: Settings, parts: Iterable[Part]) -> str:
    """supervisord.conf. Paths are relative to its working folder, DATA_DIR/run, and Python is found by PATH.

    So no path of the user stands in here: supervisord gives `%`, ` #`, ` ;` and quotes a meaning, which differs from
    line to line.

    `startsecs=0` leaves counting and pausing to `stack.run`; the supervisor alone would at last give up on a part, or
    pause longer and longer without a bound.
    """
    control = places.socket(settings)
    beside = control.parent == places.run(settings)
    lines = [
        "[unix_http_server]",
        f"file={control.name if beside else control}",
        "[supervisord]",
        "nodaemon=true",
        "silent=true",
        *(["user=root"] if os.geteuid() == 0 else []),
        "logfile=../logs/supervisord.log",
        "logfile_maxbytes=5MB",
        "logfile_backups=2",
        "pidfile=supervisord.pid",
        "minprocs=1",
        "[rpcinterface:supervisor]",
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
        "[supervisorctl]",
        f"serverurl=unix://{'%(here)s/' + control.name if beside else control}",
    ]
    for part in parts:
        lines += [
            f"[program:{part.name}]",
            f"command=python -m stack run {part.name}",
            f"autostart={'true' if part.layer <= SERVICE else 'false'}",
            f"priority={part.layer}",
            "autorestart=true",
            "startsecs=0",
            "startretries=1000000",
            f"stopsignal={part.stop_signal}",
            f"stopwaitsecs={part.stop_seconds}",
            f"stopasgroup={'true' if part.stop_as_group else 'false'}",
            "killasgroup=true",
            "redirect_stderr=true",
            f"stdout_logfile=../logs/{part.name}.log",
            "stdout_logfile_maxbytes=10MB",
            "stdout_logfile_backups=3",
        ]
    return "\n".join(lines) + "\n"


def write_configuration(settings: Settings, parts: Iterable[Part]) -> None:
    file = places.run(settings) / "supervisord.conf"
    half = file.with_suffix(".half")
    half.write_text(configuration(settings, parts))
    half.replace(file)


def launch(settings: Settings, parts: Iterable[Part]) -> None:
    """Starts supervisord in the background, in a session of its own and without any of this process's descriptors.
    Raises StackError."""
    run, control = places.run(settings), places.socket(settings)
    if control.parent != run:
        _make_private(control.parent)
    write_configuration(settings, parts)
    complaints = places.logs(settings) / "supervisord.err"
    with complaints.open("w") as errors:
        path = f"{places.VENV_PYTHON.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        process = subprocess.Popen(
            [str(places.VENV_PYTHON), "-m", "stack.supervisord", "-c", "supervisord.conf"],
            cwd=run,
            env=environment(settings, PATH=path, PYTHONPATH=str(ROOT)),
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            start_new_session=True,
        )
    itself = identity(process.pid)
    if itself is not None:
        (run / "supervisord.json").write_text(json.dumps(asdict(itself)))
    wait_for(
        lambda: talk(settings) is not None or process.poll() is not None,
        10,
        f"the supervisor did not start: see {complaints}",
    )
    if process.poll() is not None:
        raise StackError("the supervisor did not start", complaints.read_text(errors="replace").splitlines()[-10:])


def _make_private(folder: Path) -> None:
    """Makes a folder below /tmp that is ours alone: anybody could have made one of that name."""
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if folder.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise StackError(f"{folder} belongs to somebody else: remove it, or set DATA_DIR to a shorter path")


def process(settings: Settings) -> Identity | None:
    """The supervisor's process, if it is alive."""
    try:
        known = Identity(**json.loads((places.run(settings) / "supervisord.json").read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return known if alive(known) else None


def forget_process(settings: Settings) -> None:
    (places.run(settings) / "supervisord.json").unlink(missing_ok=True)


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


class Gone(StackError):
    """The supervisor does not answer any more, or is ending."""


class Supervisor:
    """The conversation with a supervisor. Calls raise Gone if it has died, or is ending."""

    def __init__(self, settings: Settings) -> None:
        transport = _Transport(places.socket(settings))
        self._server: Any = xmlrpc.client.ServerProxy("http://supervisor", transport=transport).supervisor

    def _call(self, name: str, *arguments: object, ignoring: Collection[int] = ()) -> Any:
        """The supervisor's answer; None if it refuses for one of the reasons in `ignoring`."""
        try:
            return getattr(self._server, name)(*arguments)
        except PermissionError:
            raise
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == _SHUTDOWN_STATE:
                raise Gone("the system is being stopped") from fault
            if fault.faultCode not in ignoring:
                raise StackError(f"the supervisor refuses {name}{arguments}: {fault.faultString}") from fault
            return None
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise Gone(f"the supervisor does not answer ({error}): ./status.sh shows what runs") from error

    def states(self) -> dict[str, tuple[str, int]]:
        """State and pid (0: none) of every part, by its name."""
        return {info["name"]: (info["statename"], info["pid"]) for info in self._call("getAllProcessInfo")}

    def start(self, names: Iterable[str]) -> None:
        for name in names:
            self._call("startProcess", name, False, ignoring=[_ALREADY_STARTED])

    def stop(self, names: Iterable[str]) -> None:
        """Asks parts to stop, all at once; `states` says when they have."""
        for name in names:
            self._call("stopProcess", name, False, ignoring=_NOT_SIGNALLED)

    def signal(self, name: str, signal: str) -> None:
        """Sends a signal to a part. One that ends because of it is started again, as after any death."""
        self._call("signalProcess", name, signal, ignoring=_NOT_SIGNALLED)

    def add(self, names: Iterable[str]) -> None:
        """Takes up parts that are new in the configuration, without starting them."""
        self._call("reloadConfig")
        for name in names:  # a killed command may have added one, and not started it
            self._call("addProcessGroup", name, ignoring=[_ALREADY_ADDED])

    def remove(self, names: Iterable[str]) -> None:
        """Forgets parts that are stopped and no longer in the configuration."""
        self._call("reloadConfig")
        for name in names:
            self._call("removeProcessGroup", name, ignoring=[_BAD_NAME])

    def running(self, names: Iterable[str]) -> list[str]:
        states = self.states()
        return [name for name in names if states.get(name, ("STOPPED", 0))[0] not in _STOPPED]

    def stopped(self, names: Iterable[str]) -> list[str]:
        """The parts that do not begin anew by themselves: somebody has stopped them, or they were never added."""
        states = self.states()
        return [name for name in names if states.get(name, ("STOPPED", 0))[0] in ("STOPPED", "FATAL")]

    def shutdown(self) -> bool:
        """Asks the supervisor to end with all its parts; returns whether it will."""
        return bool(self._call("shutdown"))


def talk(settings: Settings) -> Supervisor | None:
    """A supervisor that answers, or None. Raises PermissionError when it is somebody else's."""
    supervisor = Supervisor(settings)
    try:
        supervisor.states()
    except StackError:
        return None
    return supervisor


def wait_for(condition: Callable[[], bool], seconds: float, complaint: str) -> None:
    """Waits for a condition; raises StackError with the complaint when its time is over."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            raise StackError(complaint)
        time.sleep(0.05)

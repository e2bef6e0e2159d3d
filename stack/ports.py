"""Whether the ports that a system wants are free, and who has them when they are not."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from stack.errors import StackError
from stack.part import Part, Port
from stack.processes import command_line


def check_free(parts: Iterable[Part]) -> None:
    """Raises StackError for the first port that cannot be had: which one, for what, who has it, what moves it."""
    wanted: dict[int, Port] = {}
    for part in parts:
        for port in part.ports:
            if port.number in wanted:
                other = wanted[port.number].variable
                raise StackError(f"{other} and {port.variable} are both {port.number}: give one of them another port")
            wanted[port.number] = port
            error = _try(port)
            if error is not None:
                raise StackError(explain(part.title, port, error, _holder(port.number)))


def explain(title: str, port: Port, error: int, holder: str) -> str:
    """One line for a port that could not be bound."""
    if error == errno.EADDRINUSE:
        what = f"port {port.number} ({title}) is taken by {holder or 'another program'}: stop that"
    elif error == errno.EACCES:
        what = f"port {port.number} ({title}) is for root only: choose one above 1023"
    else:
        what = f"{port.host}:{port.number} ({title}) cannot be used ({os.strerror(error)}): check BIND_HOST"
    return f"{what}, or set {port.variable} to another port"


def _try(port: Port) -> int | None:
    """The error number of binding to the port, or None."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(port.host, port.number, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    with socket.socket(family, kind, protocol) as trial:
        # As servers do, so that connections of the last run that are still closing do not matter.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(address)
        except OSError as error:
            return error.errno
    return None


def _holder(number: int) -> str:
    """The program that listens on a port and its pid, as far as this user may know."""
    inodes = _listening_inodes(number)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if inodes & set(_open_files(Path("/proc") / pid / "fd")):
            return f"{command_line(int(pid))[:60] or 'a process'} (pid {pid})"
    return ""


def _open_files(folder: Path) -> Iterator[str]:
    """The files behind a process's descriptors; none for somebody else's process."""
    try:
        descriptors = os.listdir(folder)
    except OSError:
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):  # closed meanwhile
            yield os.readlink(folder / descriptor)


def _listening_inodes(number: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            listens = fields[3] == "0A"
            if listens and int(fields[1].rpartition(":")[2], 16) == number:
                found.add(f"socket:[{fields[9]}]")
    return found

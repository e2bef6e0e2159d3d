"""Hosts for a test: network namespaces of its own, wired to one bridge, between which the only way is the network."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import pytest

from stack import Part
from tests.parts import missing


@dataclass(frozen=True)
class Host:
    """A network namespace. `address` is its own on the test's network; `name` is that of its end of the cable too."""

    name: str
    address: str

    def run(self, part: Part) -> Part:
        """The part as a process of this host."""
        return replace(part, command=["ip", "netns", "exec", self.name, *part.command])

    def unplug(self) -> None:
        """Pulls the cable: nothing that is sent arrives, and nobody is told."""
        ip("link", "set", self.name, "down")

    def plug_in(self) -> None:
        ip("link", "set", self.name, "up")


@contextmanager
def hosts(*names: str) -> Iterator[list[Host]]:
    """So many hosts and this machine on one network; all of it goes at the end.

    Skips the test where namespaces may not be made: that takes root.
    """
    if shutil.which("ip") is None:
        missing("there is no `ip`: the Debian package is iproute2")
    number = os.getpid() % 250
    bridge, network = f"tp{number}", f"10.213.{number}"
    made = [Host(f"{bridge}{name}", f"{network}.{place}") for place, name in enumerate(names, start=2)]
    try:
        try:
            ip("link", "add", bridge, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network of its own for this test: {error.stderr.strip()}")
        ip("address", "add", f"{network}.1/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for host in made:
            ip("netns", "add", host.name)
            ip("link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", host.name)
            ip("link", "set", host.name, "master", bridge, "up")
            for command in (
                ["address", "add", f"{host.address}/24", "dev", "eth0"],
                ["link", "set", "eth0", "up"],
                ["link", "set", "lo", "up"],
            ):
                ip("-n", host.name, *command)
        yield made
    finally:
        for host in made:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", host.name)
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "del", bridge)


def ip(*arguments: str) -> Sequence[str]:
    """Raises CalledProcessError, with what `ip` said in its `stderr`."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout.splitlines()

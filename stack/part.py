"""One part of the system as a value: how it is prepared, run, stopped and asked whether it is well.

What the parts are stands in the modules named after them and in `plan`; who runs them does not matter here: the
supervisor, a test, or a hand.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from settings import Settings
from stack import places
from stack.errors import Unhealthy
from stack.processes import MARK

# The order of starting; stopping is the reverse, so that nothing loses its database or broker before it has ended.
COORDINATION, SERVICE, PIPELINE = 0, 1, 2


class Lasting(str):
    """A problem that waiting does not mend."""


@dataclass(frozen=True)
class Port:
    """An address that a part listens on, and the variable that moves it."""

    variable: str
    host: str
    number: int

    @property
    def reachable_host(self) -> str:
        """Where a client on this machine finds it: nobody can connect to an address that means "all"."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)


def _nothing_to_prepare() -> None:
    pass


def _nothing_to_probe() -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part, ready to be run with `command`, `environment` (all of it) and `directory` (its working folder).

    `prepare` creates folders, configuration files and, once, the data; it may be called again and again, but not while
    the part runs. `problem` asks the running part one quick question and returns None when it is well, otherwise why
    not. `stop_signal` is the name of the signal that ends the part cleanly, within `stop_seconds`.
    """

    name: str
    title: str
    command: list[str]
    environment: dict[str, str]
    directory: Path
    layer: int
    ports: tuple[Port, ...] = ()
    prepare: Callable[[], None] = _nothing_to_prepare
    problem: Callable[[], str | None] = _nothing_to_probe
    stop_signal: str = "TERM"
    stop_seconds: int = 9
    stop_as_group: bool = False

    def wait_until_healthy(self, timeout: float, gave_up: Callable[[], str | None] = _nothing_to_probe) -> None:
        """Waits until the part is well. Raises Unhealthy with the last reason after `timeout` seconds.

        A problem that is Lasting ends the waiting, and so may `gave_up`, by returning why there is no point in it.
        """
        deadline = time.monotonic() + timeout
        while (reason := self.problem()) is not None:
            if isinstance(reason, Lasting):
                raise Unhealthy(f"{self.name} cannot be used: {reason}")
            if (end := gave_up()) is not None:
                raise Unhealthy(f"{self.name} did not become healthy: {end}")
            if time.monotonic() >= deadline:
                raise Unhealthy(f"{self.name} did not become healthy within {timeout:g} s: {reason}")
            time.sleep(0.1)


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The environment of a part: this process's, with every setting written out, and `more` over it.

    All parts of a system see the settings that it was started with, even if `.env` changes meanwhile. PYTHONPATH and
    PYTHONHOME are left out: they would mix another Python's packages into ours. With PYTHONSAFEPATH ours would not be
    found in the working folder, and with PYTHONOPTIMIZE kafka-python cannot read.
    """
    apart = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "PYTHONOPTIMIZE")
    inherited = {name: value for name, value in os.environ.items() if name not in apart}
    chosen = {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}
    own = {MARK: str(places.data(settings)), "PYTHONUNBUFFERED": "1"}
    return {**inherited, **chosen, **own, **more}


def without_empty(variables: Mapping[str, str], prefix: str) -> dict[str, str]:
    """The variables without the empty ones of that prefix, for programs that take an empty value for a value."""
    return {name: value for name, value in variables.items() if value or not name.startswith(prefix)}

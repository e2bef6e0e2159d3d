"""`status`: one line a part, from the supervisor and from what each start wrote down. Needs no installed package."""

import time
from dataclasses import dataclass

from settings import Settings
from stack import pipeline_state, plan, probes, processes, record, supervisor, system
from stack.part import Port
from stack.pipeline import worker_of
from stack.progress import bold, dim, green, red, say
from task_names import QUEUES


@dataclass(frozen=True)
class Line:
    """What is known of one part now. `state` is "running", or what is wrong in a few words."""

    name: str
    state: str
    pid: int
    restarts: int
    ports: tuple[Port, ...] = ()

    @property
    def runs(self) -> bool:
        return self.state in ("running", "in use")


def lines(settings: Settings) -> list[Line]:
    """The parts of the system in this DATA_DIR, or none when it does not run."""
    known = system.read(settings)
    talk = supervisor.talk(settings)
    if known is None or talk is None:
        return []
    states = talk.states()
    found = []
    for part in known.parts:
        state, pid = states.get(part.name, ("STOPPED", 0))
        start = record.read(settings, part.name)
        restarts = start.restarts if start else 0
        found.append(Line(part.name, _in_words(state, pid, start, part.ports), pid, restarts, part.ports))
    servers = plan.existing(known.settings)
    return found + [
        Line(server.name, _of_existing(server), 0, 0, (Port(server.variable, server.address, 0),)) for server in servers
    ]


def _of_existing(server: plan.Existing) -> str:
    answers = any(probes.tcp(host, port) is None for host, port in server.reached_at)
    return "in use" if answers else "does not answer"


def _in_words(state: str, pid: int, start: record.Record | None, ports: tuple[Port, ...]) -> str:
    if state != "RUNNING":
        return state.lower()
    if start is None or start.process.pid != pid:  # it has not come to writing its own record yet
        return "starting"
    wait = start.waits_until - time.monotonic()
    if wait > 0:
        return f"died, starts again in {wait:.0f} s"
    if any(probes.tcp(port.reachable_host, port.number) is not None for port in ports):
        return "no answer on its port"
    return "running"


def status(settings: Settings) -> int:
    """Prints the lines; returns 0 when all parts run, else 1."""
    found = lines(settings)
    if not found:
        left = sum(processes.alive(known.process) for known in record.all_records(settings).values())
        if left:
            say(red(f"The supervisor is gone, and {left} parts run on without it: ./start.sh or ./stop.sh mends that"))
        else:
            say("Not running. ./start.sh starts it.")
        return 1
    code = show(found)
    show_flow(settings)
    return code


def show_flow(settings: Settings) -> None:
    """What no line of a part says: the workers of each queue, an intake that somebody has paused, and what PostgreSQL
    refuses a worker."""
    known = system.read(settings)
    if known is None:
        return
    names = [of[0] for part in known.parts if (of := worker_of(part.name)) is not None]
    workers = []
    for queue in QUEUES:
        bounds = known.settings.autoscale(queue)
        count = names.count(queue)
        workers.append(f"{queue} {count}" + (f" ({bounds[0]} to {bounds[1]} by its backlog)" if bounds else ""))
    say()
    say(f"workers: {', '.join(workers)}  {dim('./scale.sh changes that')}")
    show_pause(known.settings)
    if (refused := pipeline_state.refused(known.settings)) is not None:
        say(red(f"PostgreSQL refuses what a worker stores: {refused}"))


def show_pause(settings: Settings) -> None:
    if pipeline_state.intake_paused(settings):
        say(red("intake: paused by command; `python kafka_cli.py resume` takes it up again"))


def show(found: list[Line]) -> int:
    """Prints lines; returns 0 when all of them run, else 1."""
    width = max(len(line.state) for line in found)
    names = max(16, *(len(line.name) for line in found))
    say(bold(f"{'part':<{names}} {'state':<{width}} {'pid':>8} {'restarts':>8}  port"))
    for line in found:
        colour = green if line.runs else red
        address = ", ".join(_address(port) for port in line.ports)
        pid = str(line.pid) if line.pid else "-"
        state = colour(f"{line.state:<{width}}")
        say(f"{line.name:<{names}} {state} {pid:>8} {line.restarts:>8}  {address or dim('-')}")
    return 0 if all(line.runs for line in found) else 1


def _address(port: Port) -> str:
    return str(port.number) if port.number else f"{port.host} ({port.variable})"

"""The parts that are this project's own: bridge, Celery workers, beat, Flower and the two APIs.

Here is how many of each run, which queue they take and where they listen; what they do stands in their own packages.
"""

import re
from dataclasses import replace

from settings import ROOT, Settings
from stack import pipeline_state, places, probes, record
from stack.part import PIPELINE, Part, Port, environment, without_empty
from task_names import QUEUES

_CELERY = ("-m", "tasks.celery", "-A", "tasks.app")
_WORKER = re.compile(rf"({'|'.join(QUEUES)})-worker(?:-([2-9]|[1-9][0-9]+))?")


def pipeline(settings: Settings) -> list[Part]:
    return [
        *bridges(settings),
        *(worker(settings, queue, number) for queue in QUEUES for number in range(1, settings.workers(queue) + 1)),
        beat(settings),
        *([autoscale(settings)] if any(settings.autoscale(queue) for queue in QUEUES) else []),
        api(settings, "text-api", "Text API", Port("TEXT_API_PORT", settings.bind_host, settings.text_api_port)),
        api(
            settings, "search-api", "Search API", Port("SEARCH_API_PORT", settings.bind_host, settings.search_api_port)
        ),
        flower(settings),
    ]


def bridges(settings: Settings) -> list[Part]:
    """The members of the consumer group, each with an id of its own that it keeps for life."""
    return [
        Part(
            name="bridge" if settings.bridges == 1 else f"bridge-{number}",
            title="Bridge",
            layer=PIPELINE,
            command=[*_python(), "-m", "bridge"],
            environment=environment(settings, BRIDGE_ID=str(number)),
            directory=ROOT,
            problem=lambda: pipeline_state.bridge_members(settings),
        )
        for number in range(settings.bridges)
    ]


def worker(settings: Settings, queue: str, number: int = 1) -> Part:
    """One of a queue's Celery workers, as the node `QUEUE@host`, and those after the first as `QUEUE@host.NUMBER`.

    Each is a process that does its tasks itself: handing each task through a pipe to a child cost an eighth of the
    pipeline's time, and 50 MB. Separate workers come and go one by one, and none ends with another.
    """
    node = f"{queue}@%h" if number == 1 else f"{queue}@%h.{number}"
    options = ["worker", "-Q", queue, "-n", node, "--pool", "solo"]
    # Workers need not know each other; to find each other would cost a second at every start.
    alone = ["--without-mingle", "--without-gossip"]
    return Part(
        name=worker_name(queue, number),
        title=f"Worker of queue {queue}",
        layer=PIPELINE,
        command=[*_python(), *_CELERY, *options, *alone, "-l", settings.log_level],
        environment=environment(settings),
        directory=ROOT,
        problem=lambda: _worker_problem(settings, queue, number),
    )


def worker_name(queue: str, number: int) -> str:
    return f"{queue}-worker" if number == 1 else f"{queue}-worker-{number}"


def worker_of(name: str) -> tuple[str, int] | None:
    """The queue and the number of a worker by its name; None for another part."""
    found = _WORKER.fullmatch(name)
    return (found[1], int(found[2] or 1)) if found else None


def _worker_problem(settings: Settings, queue: str, number: int) -> str | None:
    """A worker with a task in hand answers no ping, but its thread that delivers numbers shows that it is there."""
    problem = pipeline_state.celery_node(settings, queue, "" if number == 1 else f".{number}")
    if problem is None:
        return None
    start = record.read(settings, worker_name(queue, number))
    return None if start and pipeline_state.heard_of(settings, f"{queue}-worker", start.process.pid) else problem


def all_workers(settings: Settings, queue: str) -> Part:
    """All worker processes of a queue as one part, for those who run it without the supervisor."""
    single, processes = worker(settings, queue), settings.workers(queue)
    if processes == 1:
        return single
    place = single.command.index("--pool")
    return replace(single, command=[*single.command[:place], "-c", str(processes), *single.command[place + 2 :]])


def autoscale(settings: Settings) -> Part:
    """Looks at the queues, and starts and ends workers as `./scale.sh` does."""
    return Part(
        name="autoscale",
        title="Autoscaling",
        layer=PIPELINE,
        command=[*_python(), "-m", "stack.autoscale"],
        environment=environment(settings),
        directory=ROOT,
    )


def beat(settings: Settings) -> Part:
    return Part(
        name="beat",
        title="Beat",
        layer=PIPELINE,
        command=[*_python(), *_CELERY, "beat", "--pidfile=", "-l", settings.log_level],
        environment=environment(settings),
        directory=ROOT,
    )


def api(settings: Settings, name: str, title: str, port: Port) -> Part:
    """One of the two APIs under gunicorn, which reads the rest of its settings from gunicorn.conf.py."""
    address = f"[{port.host}]:{port.number}" if ":" in port.host else f"{port.host}:{port.number}"
    options = ["--bind", address, "--workers", str(settings.api_workers), "--log-level", settings.log_level]
    application = f"api.wsgi:{name.replace('-', '_')}"
    return Part(
        name=name,
        title=title,
        layer=PIPELINE,
        command=[*_python(), "-m", "gunicorn", *options, application],
        environment=environment(settings),
        directory=ROOT,
        ports=(port,),
        problem=lambda: probes.http_ok(port.reachable_host, port.number, "/health"),
    )


def flower(settings: Settings) -> Part:
    folder = places.data(settings) / "flower"
    port = Port("FLOWER_PORT", settings.bind_host, settings.flower_port)
    # Saved every minute, because Flower saves nothing at a hard stop.
    saved = [f"--db={folder / 'flower.db'}", "--persistent=True", "--state_save_interval=60000"]
    listens = [f"--address={port.host}", f"--port={port.number}"]
    return Part(
        name="flower",
        title="Flower",
        layer=PIPELINE,
        command=[*_python(), "-m", "celery", "-A", "tasks.app", "flower", *listens, *saved],
        # Flower reads FLOWER_BASIC_AUTH itself, which keeps the password out of the list of processes.
        environment=without_empty(environment(settings), "FLOWER_"),
        directory=ROOT,
        ports=(port,),
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        problem=lambda: probes.http_ok(port.reachable_host, port.number, "/healthcheck"),
    )


def _python() -> list[str]:
    return [str(places.VENV_PYTHON)]

"""The parts that are this project's own: bridge, Celery workers, beat, Flower and the two APIs.

How many of each, which queue they take and where they listen; what they do stands in their own packages.
"""

from settings import ROOT, Settings
from stack import places, probes
from stack.part import PIPELINE, Part, Port, environment, without_empty


def pipeline(settings: Settings) -> list[Part]:
    return [
        *bridges(settings),
        worker(settings, "persist", settings.persist_workers),
        worker(settings, "embed", settings.embed_workers),
        beat(settings),
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
            problem=lambda: probes.bridge_members(settings),
        )
        for number in range(settings.bridges)
    ]


def worker(settings: Settings, queue: str, processes: int) -> Part:
    """The Celery worker of one queue, as the node `QUEUE@host`.

    A single process works itself: handing each task through a pipe to a child cost an eighth of the pipeline's time,
    and 50 MB. Several are children of one that listens.
    """
    pool = ["--pool", "solo"] if processes == 1 else ["-c", str(processes)]
    options = ["worker", "-Q", queue, "-n", f"{queue}@%h", *pool]
    # Workers need not know of each other; finding each other would cost a second at every start.
    alone = ["--without-mingle", "--without-gossip"]
    return Part(
        name=f"{queue}-worker",
        title=f"Worker of queue {queue}",
        layer=PIPELINE,
        command=[*_celery(), *options, *alone, "-l", settings.log_level],
        environment=environment(settings),
        directory=ROOT,
        problem=lambda: probes.celery_node(settings, queue),
    )


def beat(settings: Settings) -> Part:
    return Part(
        name="beat",
        title="Beat",
        layer=PIPELINE,
        command=[*_celery(), "beat", "--pidfile=", "-l", settings.log_level],
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
    options = [f"--address={port.host}", f"--port={port.number}", f"--db={folder / 'flower.db'}"]
    return Part(
        name="flower",
        title="Flower",
        layer=PIPELINE,
        # Saved every minute, because at a hard stop it does not save at all.
        command=[*_celery(), "flower", *options, "--persistent=True", "--state_save_interval=60000"],
        # Flower reads FLOWER_BASIC_AUTH itself, which keeps the password out of the list of processes.
        environment=without_empty(environment(settings), "FLOWER_"),
        directory=ROOT,
        ports=(port,),
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        problem=lambda: probes.http_ok(port.reachable_host, port.number, "/healthcheck"),
    )


def _celery() -> list[str]:
    return [*_python(), "-m", "celery", "-A", "tasks.app"]


def _python() -> list[str]:
    return [str(places.VENV_PYTHON)]

"""Who is measured: this pipeline in its two forms, Pathway, and the short script; how each is set up and started.

All read the same topic, use the same embedder's code, write to the same PostgreSQL, and keep a vector as halfvec.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from benchmarks import environments
from benchmarks.processes import Running
from benchmarks.servers import Servers, free_ports
from db import schema
from settings import ROOT, Settings
from stack import Part, local_part
from stack.part import environment as part_environment
from stack.plan import supervised_part
from task_names import QUEUES

PEERS = Path(__file__).resolve().parent / "peers"


@dataclass(frozen=True)
class Layout:
    """Where a contestant keeps texts and vectors: tables and columns."""

    texts: str
    text_id: str
    text_column: str
    vectors: str
    vector_id: str


OURS = Layout("text_messages", "id", "message", "message_embeddings", "message_id")
DOCUMENTS = Layout("documents", "key", "message", "documents", "key")

DOCUMENTS_TABLE = """
    CREATE EXTENSION IF NOT EXISTS vector;
    CREATE TABLE documents (key {id_type} PRIMARY KEY, message TEXT NOT NULL, embedding HALFVEC({dimensions}) NOT NULL)
"""
HNSW = "CREATE INDEX ON documents USING hnsw (embedding halfvec_cosine_ops)"


@dataclass(frozen=True)
class Round:
    """One run of one contestant: its settings hold a database, a broker's database and a consumer group of its own."""

    servers: Servers
    settings: Settings
    folder: Path
    dimensions: int
    indexed: bool


@dataclass(frozen=True)
class Contestant:
    name: str
    layout: Layout
    create_tables: Callable[[Round], None]
    parts: tuple[str, ...]
    start: Callable[[Round, str], Running]
    about: Mapping[str, object] = field(default_factory=dict)
    peer: str = ""  # the environment whose packages it needs


# --- This pipeline ---

CORE = ("bridge", "persist-worker", "embed-worker", "beat")
EVERYTHING = (*CORE, "text-api", "search-api", "flower")

# These switch off what Pathway does not do either, as far as the product knows them.
LEAN_SETTINGS: dict[str, object] = {"keyword_index": "off", "metadata_index": "off", "vector_index": "off"}


def known(changes: Mapping[str, object]) -> dict[str, object]:
    """The changes whose setting the product has."""
    names = {each.name for each in fields(Settings)}
    return {name: value for name, value in changes.items() if name in names}


def ours(name: str, parts: tuple[str, ...], changes: Mapping[str, object] | None = None) -> Contestant:
    """If `changes` say how many workers a queue has, each is a part of its own, as with `./start.sh`; if the settings
    of a round do, they are the processes of one part."""
    changes = dict(changes or {})
    applied = known(changes)
    apart = {f"{queue}-worker": int(str(applied.get(f"{queue}_workers", 1))) for queue in QUEUES}
    parts = tuple(
        part if number == 1 else f"{part}-{number}" for part in parts for number in range(1, apart.get(part, 1) + 1)
    )
    find = supervised_part if max(apart.values()) > 1 else local_part

    def start(this: Round, part: str) -> Running:
        settings = replace(this.settings, **applied)  # type: ignore[arg-type]
        return start_part(find(settings, part), this.folder)

    def create(this: Round) -> None:
        schema.upgrade(replace(this.settings, **applied))  # type: ignore[arg-type]
        if "keyword_index" in changes and "keyword_index" not in applied:
            with contextlib.closing(this.servers.connect(this.settings.database_name)) as connection:
                connection.cursor().execute("DROP INDEX IF EXISTS text_messages_words")

    about: dict[str, object] = {"parts": list(parts), "settings": applied}
    missing = sorted(set(changes) - set(applied))
    if missing:
        about["not settings of the product, so done by hand or left as they are"] = missing
    return Contestant(name, OURS, create, parts, start, about)


def start_part(part: Part, folder: Path) -> Running:
    part.prepare()
    # What a killed part leaves behind is removed with the round's own folder.
    environment = {**part.environment, "TMPDIR": str(folder)}
    log = folder / f"{part.name}.log"
    return Running(part.name, part.command, environment=environment, folder=part.directory, log=log)


def as_shipped(**changes: object) -> Contestant:
    return ours("as shipped", EVERYTHING, changes)


def lean(**changes: object) -> Contestant:
    """Text and vector, exactly-once effect, edits: what Pathway does."""
    return ours("like Pathway", CORE, {**LEAN_SETTINGS, **changes})


# --- Others ---

AUTOCOMMIT_MS = 10  # Pathway's


def pathway(*, threads: int = 1, backlog: int = 0, name: str = "Pathway") -> Contestant:
    """`backlog` bounds how many records it takes in at once, and so its commits; 0 leaves that to Pathway."""

    def create(this: Round) -> None:
        create_documents(this, "TEXT")  # Pathway knows no UUIDs

    def start(this: Round, part: str) -> Running:
        more = {
            "BENCH_STATE": str(this.folder / "pathway-state"),
            "BENCH_AUTOCOMMIT_MS": str(AUTOCOMMIT_MS),
            "BENCH_BACKLOG": str(backlog),
            "PATHWAY_THREADS": str(threads),
        }
        return start_peer(this, part, more)

    about = {
        "autocommit_duration_ms": AUTOCOMMIT_MS,
        "threads": threads,
        "max_backlog_size": backlog or None,
        "persistence": "filesystem",
    }
    return Contestant(name, DOCUMENTS, create, ("pathway",), start, about, "pathway")


def script(*, threads: int = 1) -> Contestant:
    """`threads` are the model's; the script itself has one."""

    def create(this: Round) -> None:
        create_documents(this, "UUID")

    def start(this: Round, part: str) -> Running:
        return start_peer(replace(this, settings=replace(this.settings, embedding_threads=threads)), part, {})

    about = {"threads of the model": threads}
    return Contestant("30-line script", DOCUMENTS, create, ("script",), start, about, "script")


def create_documents(this: Round, id_type: str) -> None:
    with contextlib.closing(this.servers.connect(this.settings.database_name)) as connection:
        cursor = connection.cursor()
        cursor.execute(DOCUMENTS_TABLE.format(id_type=id_type, dimensions=this.dimensions))
        if this.indexed:
            cursor.execute(HNSW)


def start_peer(this: Round, name: str, more: Mapping[str, str]) -> Running:
    """A peer gets what it needs through its environment, and the embedder's code through PYTHONPATH."""
    environment = peer_environment(this.settings, this.folder, more)
    command = [str(environments.python(name)), str(PEERS / f"{name}_peer.py")]
    return Running(name, command, environment=environment, folder=this.folder, log=this.folder / f"{name}.log")


def peer_environment(settings: Settings, folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """With every setting written out, as for our own parts: nothing of this checkout's `.env` reaches a peer."""
    whole = part_environment(
        settings,
        PYTHONPATH=str(ROOT),
        TMPDIR=str(folder),
        BENCH_KAFKA=",".join(settings.kafka_servers),
        BENCH_TOPIC=settings.kafka_topic,
        BENCH_GROUP=settings.kafka_group_id,
        BENCH_DATABASE_HOST=settings.database_address,
        BENCH_DATABASE_PORT=str(settings.database_port),
        BENCH_DATABASE_NAME=settings.database_name,
        BENCH_DATABASE_USER=settings.database_user,
        BENCH_DATABASE_PASSWORD=settings.database_password,
    )
    return {**whole, **more}


def settings_for(servers: Servers, number: int, topic: str, **changes: object) -> Settings:
    """Settings of one round: the shared servers, and everything else its own."""
    text_api, search_api, flower = free_ports(3)
    return replace(
        servers.settings,
        data_dir=str(servers.folder / f"round-{number}"),
        database_name=f"bench_{number}",
        kafka_topic=topic,
        kafka_group_id=f"bench-{number}",
        redis_url=servers.empty_broker(number % 16),
        text_api_port=text_api,
        search_api_port=search_api,
        flower_port=flower,
        **changes,  # type: ignore[arg-type]
    )

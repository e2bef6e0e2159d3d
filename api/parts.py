"""What the views of one application share: the database's read-only side, Kafka, the model, the checks. All lazy."""

import re
import threading
from dataclasses import dataclass
from functools import partial
from typing import Literal

import psycopg2
import redis
from psycopg2.extras import register_default_jsonb
from simplejson import RawJSON
from sqlalchemy import Engine, event, text

from api.kafka_log import KafkaLog
from api.kafka_watch import KafkaWatch
from api.metrics import Metrics
from api.model import Model
from api.probes import Probe
from api.sizes import Sizes
from db import providers, queries, session
from db.providers import StoredModel
from records import INT_DIGITS
from redis_keys import HEALTH, HEALTH_SECONDS
from settings import Settings

Role = Literal["text", "search"]

POOL_SIZE = 8
STATEMENT_MS = 5_000
CHECK_SECONDS = 3.0
LAG_KEEP_SECONDS = 1.0
# How many POSTs may go on waiting for their record while nothing is stored: the other threads answer reads.
LONG_WAITS = 6


class NotReady(Exception):
    """A part is not ready; the message is the reason that /health gives."""


@dataclass(frozen=True)
class Parts:
    """What each view of an application is given. `pulse` is a connection for health alone, `lag` the records that the
    bridge has yet to commit."""

    role: Role
    settings: Settings
    reader: Engine
    pulse: Engine
    log: KafkaLog
    model: Model
    metrics: Metrics
    lag: Probe[int]
    sizes: Sizes
    checks: dict[str, Probe[None]]
    long_waits: threading.Semaphore

    def begin(self) -> None:
        """Prepares in the background what the first request would have to wait for. Called when a worker starts."""
        if self.role == "search":
            self.model.load()
        else:
            threading.Thread(target=self.log.try_to_open, name="open the log", daemon=True).start()

    def close(self) -> None:
        """Lets go of Kafka and of the database, where a process goes on without this application: an API's ends."""
        self.log.close()
        self.reader.dispose()
        self.pulse.dispose()


STRING_OR_NUMBER = re.compile(r'"(?:[^"\\]+|\\.)*"|(\d+)(\.\d+)?')


def keep_metadata_as_text(engine: Engine) -> None:
    """JSONB comes as the text that PostgreSQL prints, and goes out unchanged, with every digit, however deep it is."""

    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg2.extensions.connection, _record: object) -> None:
        register_default_jsonb(connection, loads=lambda printed: RawJSON(readable(printed)))


def readable(printed: str) -> str:
    """The JSON that PostgreSQL prints, with very long integers written with an exponent: PostgreSQL has made 100,001
    digits of 1e100000, over which a Python client would lose the whole page of messages."""

    def shorter(found: re.Match[str]) -> str:
        digits, fraction = found.groups()
        if digits is None or fraction or len(digits) <= INT_DIGITS:
            return found[0]
        significant = digits[1:].rstrip("0")
        return f"{digits[0]}{'.' if significant else ''}{significant}E+{len(digits) - 1}"

    return STRING_OR_NUMBER.sub(shorter, printed) if len(printed) > INT_DIGITS else printed


def assemble(role: Role, settings: Settings) -> Parts:
    log, watch = KafkaLog(settings), KafkaWatch(settings)
    # Reads are single statements, which need no transaction around them.
    url = settings.database_url(reader=True)
    reader = session.connect_engine(url, f"{role}-api", pool_size=POOL_SIZE, timeout_ms=STATEMENT_MS, autocommit=True)
    keep_metadata_as_text(reader)
    # A connection of its own, so that a busy pool is no ill health.
    pulse = session.connect_engine(url, f"{role}-api health", timeout_ms=int(CHECK_SECONDS * 1000), autocommit=True)

    def stored(name: str | None) -> StoredModel | None:
        with reader.connect() as connection:
            return providers.active(connection) if name is None else providers.named(connection, name)

    model = Model(settings, stored)

    def database() -> None:
        with pulse.connect() as connection:
            connection.execute(text("SELECT FROM text_messages LIMIT 1"))

    def kafka() -> None:
        if log.away:
            raise NotReady(log.away)
        watch.check()

    def broker() -> None:
        client = redis.Redis.from_url(
            settings.redis_address, socket_timeout=CHECK_SECONDS, socket_connect_timeout=CHECK_SECONDS
        )
        try:
            client.set(HEALTH, 1, ex=HEALTH_SECONDS)
        finally:
            client.close()

    def the_model() -> None:
        problem = model.problem()
        if problem is not None:
            raise NotReady(problem)
        with pulse.connect() as connection:
            active = queries.active_model(connection)
        model.follow(active)

    asked = {"database": database, "kafka": kafka, "broker": broker}
    if role == "search":
        asked["model"] = the_model
    return Parts(
        role=role,
        settings=settings,
        reader=reader,
        pulse=pulse,
        log=log,
        model=model,
        metrics=Metrics(),
        lag=Probe(watch.lag, wait_seconds=CHECK_SECONDS, keep_seconds=LAG_KEEP_SECONDS),
        sizes=Sizes(partial(queries.sizes, settings=settings)),
        checks={name: Probe(ask, wait_seconds=CHECK_SECONDS) for name, ask in asked.items()},
        long_waits=threading.Semaphore(LONG_WAITS),
    )

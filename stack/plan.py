"""All parts of a system in the order of their start, and the services that are used instead of local ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from settings import Settings, kafka_address
from stack import kafka, probes
from stack.errors import StackError
from stack.kafka_ui import kafka_ui
from stack.part import Part
from stack.pipeline import all_workers, pipeline, worker, worker_of
from stack.postgres import postgres
from stack.valkey import valkey

REDIS_PORT = 6379  # where an address names none


@dataclass(frozen=True)
class Existing:
    """A server that is used as it is, because `variable` names it; `reached_at` is its host and port, or those of its
    brokers or standbys."""

    name: str
    title: str
    variable: str
    address: str
    reached_at: Sequence[tuple[str, int]]
    problem: Callable[[], str | None]

    def check(self) -> None:
        """Raises StackError when it cannot be used."""
        reason = self.problem()
        if reason is not None:
            raise StackError(
                f"{self.variable} is set, but {reason}; mend that, or unset it to start a local {self.title}"
            )


def services(settings: Settings) -> list[Part]:
    """The local Kafka, PostgreSQL and Valkey, as far as no variable names an existing one."""
    parts = []
    if not settings.kafka_bootstrap_servers:
        if settings.kafka_coordination == "zookeeper":
            parts.append(kafka.zookeeper(settings))
        parts.append(kafka.kafka(settings))
    if not settings.database_host:
        parts.append(postgres(settings))
    if not settings.redis_url:
        parts.append(valkey(settings))
    return parts


def existing(settings: Settings) -> list[Existing]:
    """The servers that variables name. Nothing of this project is started for them."""
    found = []
    if settings.kafka_bootstrap_servers:
        address = ",".join(settings.kafka_servers)
        variable = "KAFKA_BOOTSTRAP_SERVERS"
        brokers = [kafka_address(server) for server in settings.kafka_servers]
        found.append(Existing("kafka", "Kafka", variable, address, brokers, lambda: probes.kafka(settings)))
    if settings.database_host:
        address = f"{settings.database_host}:{settings.database_port}"
        hosts = [(host.strip("[]"), settings.database_port) for host in settings.database_host.split(",")]
        problem = partial(probes.database, settings, create=True)
        found.append(Existing("postgres", "PostgreSQL", "DATABASE_HOST", address, hosts, problem))
    if settings.redis_url:
        address = probes.without_password(settings.redis_url)
        at = urlsplit(settings.redis_url)
        reached_at = [(at.hostname or "localhost", at.port or REDIS_PORT)]
        found.append(Existing("valkey", "Redis", "REDIS_URL", address, reached_at, lambda: probes.redis(settings)))
    return found


def parts(settings: Settings) -> list[Part]:
    """Every part that the supervisor runs, services first."""
    return [*services(settings), *pipeline(settings), kafka_ui(settings)]


def local_part(settings: Settings, name: str) -> Part:
    """One part by its name, such as "postgres" or "embed-worker", which is all of that queue's processes then.

    It can be run without the supervisor: `prepare()`, then `command` with `environment` in `directory`, then
    `wait_until_healthy(timeout)`, and at the end its `stop_signal`. Raises KeyError for a name that no part has.
    """
    single: dict[str, Callable[[Settings], Part]] = {
        "zookeeper": kafka.zookeeper,
        "kafka": kafka.kafka,
        "postgres": postgres,
        "valkey": valkey,
        "kafka-ui": kafka_ui,
    }
    if name in single:
        return single[name](settings)
    if (known := worker_of(name)) is not None and known[1] == 1:
        return all_workers(settings, known[0])
    return {part.name: part for part in pipeline(settings)}[name]


def supervised_part(settings: Settings, name: str) -> Part:
    """One part as the supervisor runs it, a worker by itself. Raises KeyError for a name that no part has."""
    known = worker_of(name)
    return local_part(settings, name) if known is None else worker(settings, *known)

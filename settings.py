"""The only reader of the environment: every setting of the product, with its default.

A setting is an environment variable or a line of `.env` in the checkout; the environment wins, and an empty value
counts as not set. `.env.example` lists them all, and a test keeps the two lists equal. Everything else gets values
from here. Only the standard library is used, because the installation reads settings before anything is installed.
"""

import contextlib
import dataclasses
import os
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

ROOT = Path(__file__).resolve().parent

# Providers whose model computes in the worker: a core embeds about a hundred texts a second.
LOCAL_PROVIDERS = ("minilm", "fastembed")
LOCAL_TASK_MESSAGES = 100
LOCAL_TASK_BYTES = 64 * 1024  # one to two seconds of the default model on one core
# Providers whose model answers over the network: a task is some ten requests, and several workers share a burst.
REMOTE_PROVIDERS = ("openai",)
REMOTE_TASK_MESSAGES = 1_000
TASK_BYTES = 512 * 1024

# kafka_retention_ms: -1 is for ever. hashing_microseconds: 0 adds no time.
MAY_BE_ZERO_OR_LESS = frozenset({"kafka_retention_ms", "hashing_microseconds"})

# The largest values: of numbers what 32 bits hold, of durations a day, and of these what takes them: PostgreSQL's
# maintenance_work_mem is kilobytes, Kafka's replication factor has 16 bits and its retention 64.
MOST_NUMBER = 2**31 - 1
MOST_SECONDS = 86_400
MOST = {
    "embed_lease_seconds": 600,
    "index_memory_mb": 2**21 - 1,
    "kafka_replication_factor": 2**15 - 1,
    "kafka_retention_ms": 2**63 - 1,
}

PROVIDERS = ("minilm", "hashing", "openai", "fastembed")

# What takes one of a few values.
CHOICES = {
    "kafka_coordination": ("kraft", "zookeeper"),
    "embedding_provider": PROVIDERS,
    "vector_index": ("on", "off"),
    "keyword_index": ("on", "off"),
    "metadata_index": ("on", "off"),
    "log_format": ("text", "json"),
}

# A value of a `.env` file, and what may follow it, as Docker Compose reads them.
QUOTED = re.compile(r"""\s*(["'])(.*?)\1\s*(?:\s#.*)?""")
COMMENT = re.compile(r"\s#.*")

# Kafka takes 249 characters, and the name of the dead letters' topic has 13 more than this; it refuses "." and "..".
TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,236}")

# PostgreSQL's limit: https://www.postgresql.org/docs/18/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS
NAME_BYTES = 63

REDIS_TLS_FIELDS = {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
URL = re.compile(r"https?://[^/\s]", re.IGNORECASE)

KAFKA_SERVER_PORT = 9092  # if an address names none

# Worker processes of a queue on one machine. The local PostgreSQL takes 100 connections: two for each worker, and up to
# some dozens for everything else.
MOST_WORKERS = 16

SECURITY_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
# Those of kafka-python that want a name and a password and nothing else.
SASL_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class InvalidSetting(ValueError):
    """A setting has a value that cannot be used; the message names the variable and says what it takes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One value for each variable of `.env.example`, in lower case. Durations are in seconds and sizes in bytes, unless
    the name says another unit."""

    # Addresses and ports of the local parts
    bind_host: str = "127.0.0.1"
    text_api_port: int = 5002
    search_api_port: int = 5003
    flower_port: int = 5555
    flower_basic_auth: str = ""
    kafka_ui_port: int = 8080
    data_dir: str = ".local/data"
    heartbeat_file: str = ""

    # PostgreSQL
    database_host: str = ""
    database_port: int = 5434
    database_name: str = "text_messages_db"
    database_user: str = "postgres"
    database_password: str = "postgres"
    database_reader_user: str = "text_reader"
    database_reader_password: str = "text_reader"

    # Kafka
    kafka_bootstrap_servers: str = ""
    kafka_port: int = 9092
    kafka_controller_port: int = 9093
    kafka_coordination: str = "kraft"
    zookeeper_port: int = 42181
    kafka_topic: str = "text-messages"
    kafka_group_id: str = "text-bridge"
    kafka_topic_partitions: int = 4
    kafka_replication_factor: int = 1
    kafka_retention_ms: int = -1
    kafka_security_protocol: str = "PLAINTEXT"
    kafka_sasl_mechanism: str = ""
    kafka_sasl_username: str = ""
    kafka_sasl_password: str = ""
    kafka_ssl_cafile: str = ""

    # Redis protocol: Celery's broker and result backend
    redis_port: int = 6379
    redis_url: str = ""

    # Scale
    bridges: int = 1
    persist_workers: int = 1
    embed_workers: int = 1
    api_workers: int = 1
    persist_autoscale: str = ""
    embed_autoscale: str = ""

    # Bridge
    bridge_id: str = ""
    bridge_batch_max: int = 2_000
    bridge_batch_bytes: int = 524_288
    bridge_window: int = 16
    bridge_lease_seconds: float = 10.0
    max_text_chars: int = 100_000

    # Embedding
    embedding_provider: str = "minilm"
    embedding_threads: int = 1
    embed_batch_max: int = 2_000
    embed_lease_seconds: float = 20.0
    embed_queue_max: int = 32
    embed_attempts_max: int = 5
    openai_base_url: str = "https://api.openai.com/v1"
    openai_api_key: str = dataclasses.field(default="", repr=False)
    openai_model: str = "text-embedding-3-small"
    openai_dimensions: str = ""
    openai_batch_max: int = 128
    openai_passage_chars: int = 2_000
    openai_timeout_seconds: float = 30.0
    hashing_microseconds: float = 0.0
    fastembed_model: str = "BAAI/bge-small-en-v1.5"
    fastembed_folder: str = ""

    # Search
    vector_index: str = "on"
    index_seal_rows: int = 10_000
    index_memory_mb: int = 512
    index_workers: int = 1
    index_ef_search: int = 200
    keyword_language: str = "english"
    keyword_index: str = "on"
    metadata_index: str = "on"

    # APIs
    api_keys: str = ""
    max_body_bytes: int = 4_194_304
    post_wait_seconds: float = 5.0
    log_level: str = "INFO"
    log_format: str = "text"
    otel_exporter_otlp_endpoint: str = ""

    @property
    def database_address(self) -> str:
        return self.database_host or "127.0.0.1"

    @property
    def kafka_servers(self) -> list[str]:
        servers = self.kafka_bootstrap_servers or f"127.0.0.1:{self.kafka_port}"
        return [server.strip() for server in servers.split(",") if server.strip()]

    @property
    def kafka_cafile(self) -> str:
        """The path of the file: a relative one counts from the checkout, wherever a command is run."""
        return str(ROOT / self.kafka_ssl_cafile) if self.kafka_ssl_cafile else ""

    @property
    def redis_address(self) -> str:
        """As redis-py, kombu and Celery read it alike: these two take no TLS address that does not say whether the
        server's certificate is verified."""
        if self.redis_url.startswith("rediss://") and "ssl_cert_reqs" not in parse_qs(urlsplit(self.redis_url).query):
            return f"{self.redis_url}{'&' if '?' in self.redis_url else '?'}ssl_cert_reqs=required"
        return self.redis_url or f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def embed_task_messages(self) -> int:
        """The most messages of one embed_text task: EMBED_BATCH_MAX, but fewer for a real model, so that a task takes
        about a second."""
        if self.embedding_provider in LOCAL_PROVIDERS:
            return min(self.embed_batch_max, LOCAL_TASK_MESSAGES)
        if self.embedding_provider in REMOTE_PROVIDERS:
            return min(self.embed_batch_max, REMOTE_TASK_MESSAGES)
        return self.embed_batch_max

    @property
    def embed_task_bytes(self) -> int:
        """How many bytes of texts one embed_text task reads, beside a first text of any length: with long texts a task
        takes about as much time and memory as with many short ones."""
        return LOCAL_TASK_BYTES if self.embedding_provider in LOCAL_PROVIDERS else TASK_BYTES

    def autoscale(self, queue: str) -> tuple[int, int] | None:
        """The fewest and the most worker processes of a queue, if they are to follow its backlog."""
        text = {"persist": self.persist_autoscale, "embed": self.embed_autoscale}[queue]
        if not text:
            return None
        fewest, most = (int(number) for number in text.split(","))
        return fewest, most

    def workers(self, queue: str) -> int:
        """How many worker processes a queue is to have, within the bounds of its autoscaling if it has any."""
        wanted = {"persist": self.persist_workers, "embed": self.embed_workers}[queue]
        fewest, most = self.autoscale(queue) or (wanted, wanted)
        return min(max(wanted, fewest), most)

    @property
    def dead_letter_topic(self) -> str:
        return f"{self.kafka_topic}.dead-letters"

    @property
    def api_key_list(self) -> list[str]:
        return [key.strip() for key in self.api_keys.split(",") if key.strip()]

    @property
    def api_key_set(self) -> frozenset[str]:
        return frozenset(self.api_key_list)

    @property
    def own_api_key(self) -> str | None:
        """The first of API_KEYS, which a client on the same machine may use."""
        return next(iter(self.api_key_list), None)

    @property
    def at_primary(self) -> dict[str, str]:
        """What tells libpq to take the primary of several hosts, as whoever writes has to: it takes the first one that
        answers, though a primary that was replaced has come back as a standby."""
        return {"target_session_attrs": "primary"} if "," in self.database_host else {}

    def database_url(self, *, reader: bool = False, at_primary: bool = False) -> str:
        """SQLAlchemy URL of the database: as the owner, or as the read-only role that the APIs use. Where several hosts
        are named, the owner gets the primary; the reader gets any, unless it is to see what was just written."""
        user = self.database_reader_user if reader else self.database_user
        password = self.database_reader_password if reader else self.database_password
        host = f"[{self.database_address}]" if ":" in self.database_address else self.database_address
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        name = quote(self.database_name, safe="")
        wanted = urlencode(self.at_primary) if (not reader or at_primary) else ""
        return f"postgresql+psycopg2://{login}@{host}:{self.database_port}/{name}{'?' if wanted else ''}{wanted}"

    def kafka_client(self) -> dict[str, object]:
        """The arguments that every kafka-python client of the product has in common: addresses and security."""
        common: dict[str, object] = {
            "bootstrap_servers": self.kafka_servers,
            "security_protocol": self.kafka_security_protocol,
        }
        if self.kafka_sasl_mechanism:
            common |= {
                "sasl_mechanism": self.kafka_sasl_mechanism,
                "sasl_plain_username": self.kafka_sasl_username,
                "sasl_plain_password": self.kafka_sasl_password,
            }
        if self.kafka_cafile:
            common["ssl_cafile"] = self.kafka_cafile
        return common


def kafka_address(server: str) -> tuple[str, int]:
    """Host and port of one of Kafka's servers, as kafka-python reads it. Raises ValueError."""
    address = server.rpartition("://")[2]
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]") or is_ipv6(address):
        host, port = address, str(KAFKA_SERVER_PORT)
    if not re.fullmatch(r"\[[^\[\]]+\]|[^\[\]]*", host) or not 1 <= int(port) <= 65535:
        raise ValueError(server)
    return resolvable(host.strip("[]")), int(port)


def resolvable(host: str) -> str:
    """The host as it is. Raises ValueError for one that Python refuses to look up: with an empty label, or one of more
    than 63 characters."""
    host.encode("idna")
    return host


def is_ipv6(address: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, address)
    except OSError:
        return False
    return True


def is_redis_url(url: str) -> bool:
    """Whether redis-py, kombu and Celery can all read it, and read the same: they differ about sockets, a database
    that is no number, and most of what may stand behind a question mark."""
    try:
        parts = urlsplit(url)
        resolvable(unquote(parts.hostname or ""))
        port = parts.port  # or ValueError, for what is no port
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return False
    fields = dict(given)
    known = REDIS_TLS_FIELDS if parts.scheme == "rediss" else set()
    return (
        url.startswith(("redis://", "rediss://"))
        and re.fullmatch(r"/?|/[0-9]{1,9}", parts.path) is not None
        and not parts.fragment
        and port != 0
        and len(fields) == len(given)
        and fields.keys() <= known
        and fields.get("ssl_cert_reqs", "required") in ("required", "optional", "none")
    )


def is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        resolvable(parts.hostname or "")
        parts.port  # noqa: B018 - it raises ValueError for what is no port
    except ValueError:
        return False
    return URL.match(url) is not None and parts.path.isascii() and not parts.query and parts.username is None


def wrong_choice(name: str, value: str) -> InvalidSetting:
    """What is said of a value that is none of CHOICES."""
    *others, last = CHOICES[name]
    return InvalidSetting(f"{name.upper()}={value!r}: takes {', '.join(others)} or {last}")


def read_env_file(path: Path, *, skip_wrong: bool = False) -> dict[str, str]:
    """The KEY=VALUE lines of a `.env` file; `#` starts a comment, at the beginning of a line or behind a space; quotes
    around a value are taken off.

    A missing file is an empty one. Raises InvalidSetting for a line of another form, unless such are to be skipped,
    for another encoding, and for a file that this user may not read.
    """
    values: dict[str, str] = {}
    try:
        if not path.is_file():
            return values
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise InvalidSetting(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InvalidSetting(f"{path}: not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals and skip_wrong:
            continue
        if not equals:
            raise InvalidSetting(f"{path}, line {number}: expected NAME=VALUE, found {line!r}")
        quoted = QUOTED.fullmatch(value)
        values[name.strip()] = quoted[2] if quoted else COMMENT.sub("", value).strip()
    return values


def misspelt(names: Iterable[str]) -> dict[str, str]:
    """The names that are no setting but look like one, each with the setting that it resembles most."""
    from difflib import get_close_matches  # the parts that run have no use for it

    known = [field.name.upper() for field in fields(Settings)]
    alike = {name: get_close_matches(name.upper(), known, n=1, cutoff=0.75) for name in names if name not in known}
    return {name: found[0] for name, found in alike.items() if found}


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from a mapping of variables; raises InvalidSetting with the variable's name and what it takes."""
    chosen: dict[str, object] = {}
    for field in fields(Settings):
        name = field.name.upper()
        text = environment.get(name, "")
        if text.strip() == "":
            continue
        kind = field.type if isinstance(field.type, type) else {"int": int, "float": float, "str": str}[field.type]
        try:
            chosen[field.name] = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise InvalidSetting(f"{name}={text!r}: {name} takes {what}") from None
    settings = Settings(**chosen)  # type: ignore[arg-type]
    settings = dataclasses.replace(settings, log_level=settings.log_level.upper())
    check(settings)
    return settings


def check(settings: Settings) -> None:
    """Raises InvalidSetting for a value that cannot be used."""
    check_numbers(settings)
    check_addresses(settings)
    check_kafka_security(settings)
    check_names(settings)
    check_autoscale(settings)
    if settings.embedding_provider == "openai":
        check_openai(settings)
    for name, choices in CHOICES.items():
        if getattr(settings, name) not in choices:
            raise wrong_choice(name, getattr(settings, name))
    if settings.log_level not in LOG_LEVELS:
        raise InvalidSetting(f"LOG_LEVEL={settings.log_level!r}: takes {', '.join(LOG_LEVELS)}")


def check_numbers(settings: Settings) -> None:
    for field in fields(settings):
        value = getattr(settings, field.name)
        name = field.name.upper()
        if field.name.endswith("_port") and not 1 <= value <= 65535:
            raise InvalidSetting(f"{name}={value}: a port is between 1 and 65535")
        if isinstance(value, int | float) and field.name not in MAY_BE_ZERO_OR_LESS and not value > 0:  # nor is NaN
            raise InvalidSetting(f"{name}={value}: {name} must be above zero")
        most = MOST.get(field.name, MOST_SECONDS if field.name.endswith("_seconds") else MOST_NUMBER)
        if isinstance(value, int | float) and value > most:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise InvalidSetting(f"{name}={shown}: takes {most} at most")
    if not 0 <= settings.hashing_microseconds <= 1_000_000:
        raise InvalidSetting(f"HASHING_MICROSECONDS={settings.hashing_microseconds}: takes 0 to a million")
    if settings.kafka_retention_ms == 0:
        raise InvalidSetting("KAFKA_RETENTION_MS=0: Kafka would drop what was not read yet; -1 keeps it for ever")
    if not 10 <= settings.index_ef_search <= 1000:
        raise InvalidSetting(f"INDEX_EF_SEARCH={settings.index_ef_search}: takes 10 to 1000")


def check_openai(settings: Settings) -> None:
    """Raises InvalidSetting for what the provider openai cannot use. The address may hold a password: not shown."""
    if not is_http_url(settings.openai_base_url):
        raise InvalidSetting("OPENAI_BASE_URL: takes http(s)://HOST[:PORT]/PATH, often with /v1 at its end")
    if not settings.openai_api_key.isascii() or not settings.openai_api_key.isprintable():
        raise InvalidSetting("OPENAI_API_KEY: holds characters that a header cannot carry")
    dimensions = settings.openai_dimensions
    if dimensions and (not dimensions.isdecimal() or int(dimensions) == 0):
        raise InvalidSetting(f"OPENAI_DIMENSIONS={dimensions!r}: takes a whole number above zero, or nothing")


def check_addresses(settings: Settings) -> None:
    try:
        resolvable(settings.bind_host)
    except ValueError:
        raise InvalidSetting(f"BIND_HOST={settings.bind_host!r}: takes a name or an address of this machine") from None
    for server in settings.kafka_servers:
        try:
            kafka_address(server)
        except ValueError:
            raise InvalidSetting(
                f"KAFKA_BOOTSTRAP_SERVERS={settings.kafka_bootstrap_servers!r}: takes HOST:PORT, several with commas "
                f"between, an IPv6 address in brackets; {server!r} is none"
            ) from None
    # In the address of a connection that would stand for something else, and leave out the host and the port.
    if re.search("[/?#]", settings.database_host):  # not shown: an address may hold a password
        raise InvalidSetting(
            "DATABASE_HOST: takes a name or an address, several with commas between, and neither a URL nor the folder "
            "of a socket"
        )
    if settings.redis_url and not is_redis_url(settings.redis_url):  # not shown: it may hold a password
        raise InvalidSetting(
            "REDIS_URL: takes redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS, then with "
            "?ssl_ca_certs=FILE, ssl_certfile, ssl_keyfile and ssl_cert_reqs=required, optional or none, if wanted"
        )


def check_names(settings: Settings) -> None:
    """Names and keys, as far as whoever takes them is particular about characters."""
    for name in ("database_name", "database_user", "database_reader_user"):
        if len(getattr(settings, name).encode()) > NAME_BYTES:
            raise InvalidSetting(f"{name.upper()}: PostgreSQL's names have {NAME_BYTES} bytes at most")
    if not TOPIC.fullmatch(settings.kafka_topic):
        raise InvalidSetting(f"KAFKA_TOPIC={settings.kafka_topic!r}: takes 1 to 236 of a-z A-Z 0-9 . _ -")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", settings.keyword_language):
        raise InvalidSetting(f"KEYWORD_LANGUAGE={settings.keyword_language!r}: takes a name that \\dF in psql lists")
    if settings.api_keys.strip() and not settings.api_key_set:
        raise InvalidSetting(f"API_KEYS={settings.api_keys!r}: holds no key, and would let everybody in")
    if not all(key.isascii() and key.isprintable() for key in settings.api_key_set):
        raise InvalidSetting("API_KEYS: a key has characters that no HTTP header can carry: take printable ASCII")
    logins = [login for login in settings.flower_basic_auth.split(",") if login]
    if not all(":" in login and login.isascii() for login in logins):  # not shown
        raise InvalidSetting(
            "FLOWER_BASIC_AUTH: takes USER:PASSWORD in ASCII, several with commas between, so none within a password"
        )


def check_autoscale(settings: Settings) -> None:
    """How far worker processes may follow their queue's backlog."""
    for name in ("persist_autoscale", "embed_autoscale"):
        bounds = getattr(settings, name)
        found = re.fullmatch(r"\s*(\d{1,4})\s*,\s*(\d{1,4})\s*", bounds)
        if bounds and not (found and 1 <= int(found[1]) <= int(found[2]) <= MOST_WORKERS):
            takes = f"takes the fewest and the most processes, such as 1,4, up to {MOST_WORKERS}"
            raise InvalidSetting(f"{name.upper()}={bounds!r}: {takes}")


def check_kafka_security(settings: Settings) -> None:
    """kafka-python would take a protocol that it does not know for PLAINTEXT, and try again for ever with a mechanism
    or a file of certificates that it cannot use."""
    protocol, mechanism = settings.kafka_security_protocol, settings.kafka_sasl_mechanism
    if protocol not in SECURITY_PROTOCOLS:
        raise InvalidSetting(f"KAFKA_SECURITY_PROTOCOL={protocol!r}: takes {', '.join(SECURITY_PROTOCOLS)}")
    if protocol.startswith("SASL_") and mechanism not in SASL_MECHANISMS:
        takes = ", ".join(SASL_MECHANISMS)
        raise InvalidSetting(f"KAFKA_SASL_MECHANISM={mechanism!r}: takes {takes} where the protocol is {protocol}")
    if protocol.endswith("SSL") and settings.kafka_cafile:
        import ssl  # it costs a start ten milliseconds, and most systems do without

        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(settings.kafka_cafile)
        except OSError as error:
            reason = "not PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidSetting(
                f"KAFKA_SSL_CAFILE={settings.kafka_ssl_cafile!r}: takes a file of certificates ({reason})"
            ) from None


def load_data_dir() -> Settings:
    """Settings of which only DATA_DIR is as chosen and nothing is checked: for commands that have to find a running
    system, whatever has been written into `.env` since."""
    data_dir = os.environ.get("DATA_DIR", "")
    if not data_dir.strip():
        with contextlib.suppress(InvalidSetting):
            data_dir = read_env_file(ROOT / ".env", skip_wrong=True).get("DATA_DIR", "")
    return Settings(data_dir=data_dir) if data_dir.strip() else Settings()


@cache
def load() -> Settings:
    """The settings of this process: the environment over `.env` in the checkout. Read once."""
    return from_environment({**read_env_file(ROOT / ".env"), **os.environ})

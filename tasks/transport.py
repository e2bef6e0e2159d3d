"""What kombu's Redis transport does differently here.

A task's arguments lie in Redis as the text that they are, where kombu would make base64 of it: a third less goes
through Redis, and neither side packs or unpacks it (`body_encoding` in celeryconfig.py). Every Celery can read that;
only for writing kombu 5.7 has no codec, and would put bytes into JSON.

JSON is written and read by orjson, five times as fast, because a text passes through it eight times on its way. What
orjson does not know is left to kombu's own, which marks a date by its type. orjson differs from kombu in three cases
(UUIDs become strings, NaN becomes null, integers of more than 64 bits are read as floats). None of these is ever sent.

A channel keeps its client; kombu would make a new one for each message. If Redis is away, kombu would write what a
channel has in hand and cannot give back, somebody's texts, to a temporary file that nobody reads or removes. Here the
leases bring it back.

An item of a queue that is no message (tasks/task_messages.py), because another program uses the list, is dropped and
logged.

A full Redis takes no bindings, and a worker that starts then would end because of it, although it is the one that makes
room. It goes on without a binding: only whoever waits for an answer of `celery inspect` needs one.
"""

import logging
from collections.abc import Sequence
from typing import Any

import orjson
from kombu import serialization
from kombu.transport import redis, virtual
from kombu.transport.virtual import base
from kombu.utils import json
from redis.exceptions import OutOfMemoryError

from tasks.task_messages import Message, NoMessage

log = logging.getLogger(__name__)

UTF_8 = "utf-8"


def encode_body(channel: Any, body: str | bytes, encoding: str | None = None) -> tuple[Any, str | None]:
    """As kombu's own (transport/virtual/base.py): the body, as it goes into JSON, and the name of its encoding."""
    if encoding == UTF_8:
        return body if isinstance(body, str) else body.decode(), encoding
    encoded: tuple[Any, str | None] = virtual.Channel.encode_body(channel, body, encoding)
    return encoded


AS_THEY_ARE = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS
TYPED = '"__type__"'


def dumps(value: Any) -> str:
    """The JSON of what a message or a result holds."""
    try:
        return orjson.dumps(value, option=AS_THEY_ARE).decode()
    except TypeError:
        written: str = json.dumps(value)
        return written


def loads(text: str | bytes | bytearray | memoryview) -> Any:
    """What `dumps`, or kombu's own, has written. Raises ValueError."""
    given = text if isinstance(text, str) else bytes(text).decode()
    if TYPED not in given:
        try:
            return orjson.loads(given)
        except orjson.JSONDecodeError:  # half of a surrogate pair, or a number that is none: kombu's own takes more
            pass
    return json.loads(given)


def loads_item(text: str) -> Any:
    """What an item of a queue holds; None if it is no JSON."""
    try:
        return loads(text)
    except (ValueError, RecursionError):
        return None


def deliver(transport: Any, message: Any, queue: str) -> None:
    """As kombu's own (transport/virtual/base.py), for what is a message."""
    try:
        deliver_message(transport, message, queue)
    except NoMessage as error:
        log.error("an item of the queue %s is no message, and is dropped: %s", queue, error)


deliver_message = redis.Transport._deliver


def bind(channel: Any, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
    """As kombu's own (transport/redis.py), where Redis takes it."""
    try:
        bind_queue(channel, exchange, routing_key, pattern, queue)
    except OutOfMemoryError as error:
        log.warning("Redis is full, and %s is not bound to its exchange: %s", queue, error)


bind_queue = redis.Channel._queue_bind


def create_client(channel: Any, asynchronous: bool = False) -> Any:
    """As kombu's own (transport/redis.py), but the client that sends is always the same, as long as its pool lives."""
    if asynchronous:
        return make_client(channel, asynchronous)
    client = channel.__dict__.get("kept_client")
    if client is None or client.connection_pool is not channel.pool:
        client = channel.kept_client = make_client(channel)
    return client


make_client = redis.Channel._create_client


def leave_to_leases(messages: Sequence[Any], **_: object) -> None:
    """What takes the place of kombu's dump (utils/div.py)."""
    log.warning("Redis is away, and %d tasks could not be given back: their leases bring them back", len(messages))


def install() -> None:
    """Makes every Redis connection of this process work like this."""
    redis.Channel.encode_body = encode_body
    redis.dumps, redis.loads = dumps, loads_item
    redis.Transport._deliver = deliver
    redis.Channel.Message = Message
    serialization.register("json", dumps, loads, content_type="application/json", content_encoding="utf-8")
    redis.Channel._queue_bind = bind
    redis.Channel._create_client = create_client
    base.emergency_dump_state = leave_to_leases

"""What kombu's Redis transport is made to do otherwise.

A task's arguments lie in Redis as the text that they are, where kombu would make base64 of it: a third less goes
through Redis, and neither side packs or unpacks it (`body_encoding` in celeryconfig.py). Every Celery reads it so; only
for writing it has kombu 5.7 no codec, and would put bytes into JSON.

And a channel keeps its client, of which kombu would make a new one for each message.
"""

from typing import Any

from kombu.transport import redis, virtual

UTF_8 = "utf-8"


def encode_body(channel: Any, body: str | bytes, encoding: str | None = None) -> tuple[Any, str | None]:
    """As kombu's own (transport/virtual/base.py): the body, as it goes into JSON, and the name of its encoding."""
    if encoding == UTF_8 and isinstance(body, bytes):
        return body.decode(), encoding
    encoded: tuple[Any, str | None] = virtual.Channel.encode_body(channel, body, encoding)
    return encoded


def create_client(channel: Any, asynchronous: bool = False) -> Any:
    """As kombu's own (transport/redis.py), but for what is sent always the same one, as long as its pool lives."""
    if asynchronous:
        return make_client(channel, asynchronous)
    client = channel.__dict__.get("kept_client")
    if client is None or client.connection_pool is not channel.pool:
        client = channel.kept_client = make_client(channel)
    return client


make_client = redis.Channel._create_client


def install() -> None:
    """Makes every Redis connection of this process do so."""
    redis.Channel.encode_body = encode_body
    redis.Channel._create_client = create_client

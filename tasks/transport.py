"""How a task's arguments lie in Redis: as the text that they are, where kombu would make base64 of it.

A third less goes through Redis, and neither side packs or unpacks it (`body_encoding` in celeryconfig.py). Every
Celery reads it so; only for writing it has kombu 5.7 no codec, and would put bytes into JSON.
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


def install() -> None:
    """Makes every Redis connection of this process able to write so."""
    redis.Channel.encode_body = encode_body

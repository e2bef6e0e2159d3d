"""What is taken for the message of a task: it has the form of Celery's protocol, version 2.

Celery reads a message in many places without a look at its form. If it cannot, the worker ends, and so would the next
one that takes the message. Anybody may write to a list of Redis, so the form is checked before anything else is done.
https://docs.celeryq.dev/en/stable/internals/protocol.html
"""

from collections.abc import Iterator
from typing import Any

from kombu.exceptions import KombuError
from kombu.transport import virtual

NONE = type(None)

# What Celery takes for granted. A date that is none and a task that is not known it reports itself.
PROPERTIES = {"delivery_tag": str, "delivery_info": dict | NONE}
HEADERS = {
    "task": str,
    "id": str,
    "shadow": str | NONE,
    "retries": int | NONE,
    "timelimit": list | NONE,
    "stamped_headers": list | NONE,
    "stamps": dict | NONE,
}
OPTIONS = {"callbacks": list | NONE, "errbacks": list | NONE, "chain": list | NONE, "chord": dict | NONE}
JSON = "application/json"


class NoMessage(ValueError):
    """An item of a queue is no message. Says what is wrong with it, and nothing of what it holds."""


class Message(virtual.Message):  # type: ignore[misc]
    """A message as kombu's channels make it (transport/virtual/base.py) of an item. Raises NoMessage.

    A message without the header `task` has another use, such as Celery's own control, and is not checked further."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        try:
            super().__init__(payload, channel=channel, **options)
            wrong = next(self.faults(), None)
        except (TypeError, LookupError, ValueError, AttributeError) as error:
            raise NoMessage(repr(error)) from error
        if wrong:
            raise NoMessage(wrong)

    def faults(self) -> Iterator[str]:
        yield from wrong_types("property", self.properties, PROPERTIES)
        if "task" not in self.headers:
            return
        yield from wrong_types("header", self.headers, HEADERS)
        if not self.headers["id"]:
            yield "its header id is empty"
        limits = self.headers.get("timelimit")
        if limits and not (len(limits) == 2 and all(isinstance(each, int | float | NONE) for each in limits)):
            yield "its header timelimit holds no two numbers"
        if self.content_type != JSON or not isinstance(self.content_encoding, str | NONE):
            yield "its content is not said to be JSON"
        yield from self.faults_of_body()

    def faults_of_body(self) -> Iterator[str]:
        if self.errors or not self.body:
            yield "it has no body that can be unpacked"
        try:
            body = self.decode()  # kept for Celery, which asks for the same
        except KombuError:
            yield "its body is no JSON"
            return
        if not (isinstance(body, list) and len(body) == 3):
            yield "its body is no list of three"
        args, kwargs, options = body
        if not (isinstance(args, list) and isinstance(kwargs, dict) and isinstance(options, dict | NONE)):
            yield "its body is no list of arguments, keyword arguments and options"
        yield from wrong_types("option", options or {}, OPTIONS)
        for name in ("callbacks", "errbacks", "chain"):
            if not all(isinstance(each, dict) for each in (options or {}).get(name) or ()):
                yield f"its option {name} holds what is no task"


def wrong_types(kind: str, found: dict[str, Any], types: dict[str, Any]) -> Iterator[str]:
    for name, wanted in types.items():
        if not isinstance(found.get(name), wanted):
            yield f"its {kind} {name} is of the type {type(found.get(name)).__name__}"

"""What counts as the message of a task."""

import json
from typing import Any

import pytest
from kombu.transport import virtual

from tasks import transport
from tasks.task_messages import Message, NoMessage
from tests.queue_items import NO_MESSAGES, NO_TASKS, SECRET, an_item, another


class Channel:
    """As far as a message asks it for anything."""

    codecs = virtual.Channel.codecs
    decode_body = virtual.Channel.decode_body


def made(item: str) -> Any:
    transport.install()
    return Message(transport.loads_item(item), channel=Channel())


@pytest.mark.parametrize(("item", "said"), NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_it_says_what_is_wrong_and_nothing_of_what_it_holds(item: str, said: str) -> None:
    with pytest.raises(NoMessage, match=said) as refused:
        made(item)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("item", ["5", "null", "[]", '"text"', "{}", "no JSON", "[" * 100_000])
def test_what_is_no_object_is_none_either(item: str) -> None:
    with pytest.raises(NoMessage):
        made(item)


@pytest.mark.parametrize(
    "item",
    [
        an_item([["a record"]]),
        an_item(options={"callbacks": None, "errbacks": None, "chain": None, "chord": None}),
        an_item(headers={"shadow": "a name", "retries": 3, "timelimit": [None, 0.5], "eta": "2026-01-01T00:00:00"}),
        an_item(properties={"delivery_info": None}),
        *NO_TASKS.values(),
    ],
)
def test_all_else_is_left_to_celery(item: str) -> None:
    made(item)


def test_its_body_is_read_once_for_celery_too(monkeypatch: pytest.MonkeyPatch) -> None:
    message = made(an_item(["a record"]))
    monkeypatch.setattr(virtual.Message, "decode", None)
    assert message.payload == [[["a record"]], {}, None]


def test_what_has_no_task_is_of_other_use() -> None:
    body = json.dumps({"method": "ping"})
    assert made(another(headers={}, body=body)).payload == {"method": "ping"}

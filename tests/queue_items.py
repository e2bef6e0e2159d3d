"""Items of a queue in Redis: the message of a task as Celery writes it, and what somebody else may write."""

import json
import uuid
from typing import Any

SECRET = "somebody's text"


def an_item(
    *args: Any,
    task: object = "tasks.persist_text",
    options: object = None,
    headers: dict[str, object] | None = None,
    properties: dict[str, object] | None = None,
) -> str:
    known = {
        "body_encoding": "utf-8",
        "delivery_info": {"exchange": "", "routing_key": "persist"},
        "delivery_tag": str(uuid.uuid4()),
    }
    return json.dumps(
        {
            "body": json.dumps([args, {}, options]),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": task, "id": str(uuid.uuid4()), "timelimit": [None, None], **(headers or {})},
            "properties": {**known, **(properties or {})},
        }
    )


def another(**parts: object) -> str:
    """With other parts; without those that are given as dots."""
    changed = {**json.loads(an_item()), **{name.replace("_", "-"): part for name, part in parts.items()}}
    return json.dumps({name: part for name, part in changed.items() if part is not ...})


BODY = "its body is no list of arguments, keyword arguments and options"

# What is no message of a task, each for a reason of its own, and what is said of it.
NO_MESSAGES = {
    "task: a list": (an_item(task=[SECRET]), "its header task is of the type list"),
    "task: a dict": (an_item(task={SECRET: 1}), "its header task is of the type dict"),
    "id: none": (an_item(headers={"id": None}), "its header id is of the type NoneType"),
    "id: a number": (an_item(headers={"id": 5}), "its header id is of the type int"),
    "id: a list": (an_item(headers={"id": [SECRET]}), "its header id is of the type list"),
    "id: empty": (an_item(headers={"id": ""}), "its header id is empty"),
    "shadow: a list": (an_item(headers={"shadow": [SECRET]}), "its header shadow is of the type list"),
    "retries: a text": (an_item(headers={"retries": SECRET}), "its header retries is of the type str"),
    "timelimit: a number": (an_item(headers={"timelimit": 5}), "its header timelimit is of the type int"),
    "timelimit: a text": (an_item(headers={"timelimit": SECRET}), "its header timelimit is of the type str"),
    "timelimit: one": (an_item(headers={"timelimit": [1]}), "its header timelimit holds no two numbers"),
    "timelimit: texts": (an_item(headers={"timelimit": [SECRET] * 2}), "its header timelimit holds no two numbers"),
    "stamped: a number": (an_item(headers={"stamped_headers": 5}), "its header stamped_headers is of the type int"),
    "stamps: a list": (an_item(headers={"stamps": [SECRET]}), "its header stamps is of the type list"),
    "compression: unknown": (an_item(headers={"compression": SECRET}), "it has no body that can be unpacked"),
    "headers: a list": (another(headers=[SECRET]), "AttributeError"),
    "delivery tag: a list": (
        an_item(properties={"delivery_tag": [1]}),
        "its property delivery_tag is of the type list",
    ),
    "delivery info: a text": (
        an_item(properties={"delivery_info": SECRET}),
        "its property delivery_info is of the type str",
    ),
    "body encoding: unknown": (an_item(properties={"body_encoding": "rot13"}), "AttributeError"),
    "properties: a list": (another(properties=[SECRET]), "AttributeError"),
    "properties: none": (another(properties=...), "KeyError"),
    "content type: none": (another(content_type=None), "its content is not said to be JSON"),
    "content type: a list": (another(content_type=[SECRET]), "its content is not said to be JSON"),
    "content type: a pickle": (another(content_type="application/x-python-serialize"), "its content is not said to be"),
    "content encoding: a list": (another(content_encoding=[SECRET]), "its content is not said to be JSON"),
    "body: none": (another(body=...), "it has no body that can be unpacked"),
    "body: no JSON": (another(body=SECRET), "its body is no JSON"),
    "body: nested": (another(body="[" * 5_000), "its body is no JSON"),
    "body: 5": (another(body="5"), "its body is no list of three"),
    "body: null": (another(body="null"), "its body is no list of three"),
    "body: one": (another(body="[1]"), "its body is no list of three"),
    "body: four": (another(body="[[],{},{},{}]"), "its body is no list of three"),
    "args: a text": (another(body=json.dumps([SECRET, {}, {}])), BODY),
    "kwargs: a list": (another(body=json.dumps([[], [SECRET], {}])), BODY),
    "options: a list": (another(body=json.dumps([[], {}, [SECRET]])), BODY),
    "callbacks: a text": (an_item(options={"callbacks": SECRET}), "its option callbacks is of the type str"),
    "errbacks: a number": (an_item(options={"errbacks": 5}), "its option errbacks is of the type int"),
    "chain: texts": (an_item(options={"chain": [SECRET]}), "its option chain holds what is no task"),
    "chord: a list": (an_item(options={"chord": [SECRET]}), "its option chord is of the type list"),
}

# What has the form of one, and Celery stumbles over it.
NO_TASKS = {
    "an id that is no text": an_item([], headers={"id": "\ud800"}),
    "errbacks: without a task": an_item(5, options={"errbacks": [{SECRET: 1}]}),
    "errbacks: of an unknown task": an_item(5, options={"errbacks": [{"task": "none"}]}),
    "chain: without a task": an_item([], options={"chain": [{SECRET: 1}]}),
    "options: of a request": an_item([], options={"called_directly": 5, "headers": 5, "_children": 5}),
    "protocol 1, task: a list": another(headers=..., body=json.dumps({"task": [SECRET], "id": "1"})),
    "protocol 1, id: a list": another(headers=..., body=json.dumps({"task": "tasks.sweep", "id": [SECRET]})),
}

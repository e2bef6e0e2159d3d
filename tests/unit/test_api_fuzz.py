"""Fuzzing of the APIs' bodies: a POST refuses exactly what would be a dead letter, with the same reason; nothing is a
500."""

import json
import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from bridge.message import BadRecord, decode
from letter_headers import Coordinates
from settings import Settings
from tests.unit.test_message_fuzz import POISON, damaged

# Nothing listens at these ports: a body that is good ends in 503.
NOWHERE = Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing", max_text_chars=60)
AT = Coordinates("t", 0, 0, 0)


class Api(NamedTuple):
    client: FlaskClient
    path: str


@pytest.fixture(scope="module", params=["text", "search"])
def api(request: pytest.FixtureRequest) -> Iterator[Api]:
    app = create_app(request.param, NOWHERE)
    yield Api(app.test_client(), "/messages" if request.param == "text" else "/embeddings/search")
    app.extensions["parts"].close()


def post(api: Api, body: bytes, content_type: str = "application/json") -> TestResponse:
    answer = api.client.post(api.path, data=body, content_type=content_type)
    assert answer.status_code in (400, 413, 415, 503), (answer.status_code, body)
    assert answer.content_type == "application/problem+json"
    return answer


def reason(value: bytes) -> str | None:
    try:
        decode(AT, None, value, [], NOWHERE.max_text_chars)
    except BadRecord as error:
        return error.reason
    return None


@pytest.mark.parametrize("seed", range(2))
def test_damaged_bodies_have_the_reason_that_the_bridge_would_give(api: Api, seed: int) -> None:
    rng = random.Random(seed)
    good = 0
    for _ in range(400):
        record = damaged(rng)
        if api.path == "/messages":
            body = record.replace(b"message", b"MESSAGE").replace(b'"text"', b'"message"')
            answer = post(api, body)
            expected = reason(body.replace(b'"message"', b'"text"'))
            assert (answer.json or {}).get("reason") == expected, body
            assert answer.status_code == {None: 503, "text-too-long": 413}.get(expected, 400), body
        else:
            answer = post(api, record.replace(b'"text"', b'"query"').replace(b'"metadata"', b'"filter"'))
        good += answer.status_code == 503
    assert good > 10


def test_a_poison_in_every_member(api: Api) -> None:
    for poison in POISON:
        for member in ("message", "id", "metadata", "query", "mode", "limit", "filter", "min_score", "since", "other"):
            body = f'{{"message": "x", "query": "x", "{member}": '.encode() + poison + b"}"
            post(api, body)
            post(api, body.replace(poison, b'"' + poison + b'"'))


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-16",
        "application/json; charset=\xff",
        "application/json;" * 400,
        "*/*",
        "a",
        "/",
        ";",
    ],
)
def test_odd_content_types(api: Api, content_type: str) -> None:
    post(api, json.dumps({"message": "x", "query": "x"}).encode(), content_type)

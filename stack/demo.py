"""The proof at the end of a start: one record goes into Kafka, and a search in other words finds it.

It is always the same message, with the time in its text: each start edits it, and no start adds another.
"""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from settings import Settings
from stack.errors import StackError
from stack.part import Port
from stack.progress import bold, dim, say

MESSAGE_ID = "hello-from-start"
TEXT = "A short nap after lunch lowers blood pressure, doctors found (told at {time})"
QUERY = "health benefits of sleeping during the day"
_SECONDS = 30.0
_KAFKA_SECONDS = 10.0  # for Kafka to take the record: a producer that gets no id never gives it up
_KAFKA_LIMITS = {
    "bootstrap_timeout_ms": 10_000,
    "max_block_ms": 10_000,
    "request_timeout_ms": 5_000,
    "delivery_timeout_ms": 10_000,
}


@dataclass(frozen=True)
class Hit:
    """The message as the search returned it, and how long after its publication."""

    message: str
    score: float
    milliseconds: float


def demo(settings: Settings) -> None:
    """Sends the record, searches until it is found, and shows the hit. Raises StackError if it is not found."""
    text = TEXT.format(time=time.strftime("%H:%M:%S"))
    # The hashing embedder knows words, not meanings.
    query = QUERY if settings.embedding_provider != "hashing" else text
    _search(settings, query)  # what the first search loads does not count in the time that is shown
    hit = _publish_and_find(settings, text, query)
    say()
    say(bold("One message through Kafka"))
    say(f"  sent to {settings.kafka_topic}:  {text}")
    say(f"  searched for:           {query}")
    say(f"  found:                  {hit.message}  {dim(f'score {hit.score:.2f}')}")
    say(f"  published to found:     {hit.milliseconds:.0f} ms")


def _publish_and_find(settings: Settings, text: str, query: str) -> Hit:
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    import kafka_clients

    value = json.dumps({"id": MESSAGE_ID, "text": text}).encode()
    try:
        producer = kafka_clients.connect(KafkaProducer, settings, **_KAFKA_LIMITS)
        try:
            producer.partitions_for(settings.kafka_topic)
            sent = time.monotonic()
            producer.send(settings.kafka_topic, key=MESSAGE_ID.encode(), value=value).get(timeout=_KAFKA_SECONDS)
        finally:
            kafka_clients.close(producer, seconds=1)
    except KafkaError as error:
        raise StackError(f"Kafka did not take the demo message: {error}") from None
    while time.monotonic() - sent < _SECONDS:
        for result in _search(settings, query):
            if result["source_id"] == MESSAGE_ID and result["message"] == text:
                return Hit(result["message"], result["score"], (time.monotonic() - sent) * 1000)
        time.sleep(0.01)
    raise StackError(
        f"the demo message was sent to Kafka, but no search found it within {_SECONDS:g} s: "
        "see ./status.sh and the logs of bridge, persist-worker and embed-worker"
    )


def _search(settings: Settings, query: str) -> list[dict[str, Any]]:
    port = Port("SEARCH_API_PORT", settings.bind_host, settings.search_api_port)
    connection = http.client.HTTPConnection(port.reachable_host, port.number, timeout=_SECONDS)
    headers = {"Content-Type": "application/json"}
    if settings.own_api_key is not None:
        headers["Authorization"] = f"Bearer {settings.own_api_key}"
    try:
        connection.request("POST", "/embeddings/search", json.dumps({"query": query, "limit": 100}), headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise StackError(f"the search API does not answer: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise StackError(f"the search API answers {response.status}: {body[:300].decode(errors='replace')}")
    results: list[dict[str, Any]] = json.loads(body)["results"]
    return results

"""Records that the broker finds too large, where nobody could know before: each is refused, and no other with it."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

import kafka_clients
from api.kafka_log import KafkaLog, RecordTooLarge
from replay.letters import Letter, Original
from settings import Settings
from tasks import second_try
from tests.kafka_cli import Cli
from tests.parts import Running, eventually

LIMIT = 50_000
LARGE = b"x" * 90_000

HTTP = requests.Session()
HTTP.trust_env = False


def change(settings: Settings, **changes: int) -> None:
    """Returns when Kafka goes by them."""
    wanted = {name.replace("_", "."): str(value) for name, value in changes.items()}
    admin = KafkaAdminClient(**settings.kafka_client())
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.kafka_topic, wanted)])
    asked = ConfigResource(ConfigResourceType.TOPIC, settings.kafka_topic, dict.fromkeys(wanted))

    def known() -> bool:
        found = admin.describe_configs([asked], config_filter="all")["topic"][settings.kafka_topic]
        return {name: found[name]["value"] for name in wanted} == wanted

    eventually(known)
    admin.close()


@pytest.fixture
def small_topic(settings: Settings, topic: str) -> str:
    change(settings, max_message_bytes=LIMIT)
    return topic


@pytest.fixture
def log(settings: Settings, small_topic: str) -> Iterator[KafkaLog]:
    log = KafkaLog(settings)
    yield log
    log.close()


def values(settings: Settings, partition: int) -> list[bytes]:
    place = TopicPartition(settings.kafka_topic, partition)
    with kafka_clients.connect(KafkaConsumer, settings, consumer_timeout_ms=10_000) as consumer:
        consumer.assign([place])
        consumer.seek_to_beginning()
        end = consumer.end_offsets([place])[place]
        found = []
        while consumer.position(place) < end:
            found += [record.value for record in consumer.poll(500).get(place, [])]
    return found


def test_a_producer_that_ends_while_a_batch_is_cut_in_two_sends_it_and_leaves_no_thread(
    settings: Settings, small_topic: str
) -> None:
    producer = kafka_clients.connect(KafkaProducer, settings, acks="all", linger_ms=500, batch_size=2 * LIMIT)
    sent = [producer.send(small_topic, b"x" * (LIMIT // 3), partition=0) for _ in range(4)]
    kafka_clients.close(producer, seconds=20)
    assert all(each.succeeded() for each in sent)
    producer._sender.join(10)
    assert not producer._sender.is_alive()


def test_a_post_that_is_too_large_for_the_topic_is_413_and_the_next_one_is_taken(
    settings: Settings, small_topic: str, start: Callable[..., Running]
) -> None:
    start("text-api", post_wait_seconds=0.1)
    api = f"http://127.0.0.1:{settings.text_api_port}"

    def post(text: str) -> int:
        return HTTP.post(f"{api}/messages", json={"message": text}, timeout=20).status_code

    for _ in range(3):
        assert (post("a"), post("x" * 90_000), post("b")) == (202, 413, 202)
    both = {"messages": [{"message": "a"}, {"message": "x" * 90_000}]}
    assert HTTP.post(f"{api}/messages/batch", json=both, timeout=20).status_code == 413
    assert HTTP.get(f"{api}/health", timeout=20).json()["checks"]["kafka"] == "ok"


def test_what_is_in_flight_beside_a_record_that_is_too_large_is_taken_in_its_order(
    settings: Settings, log: KafkaLog
) -> None:
    """All of one key, and so of one partition; each caller's edits one after the other, three in a call."""

    def append_many(caller: int) -> int:
        refused = 0
        for number in range(0, 30, 3):
            try:
                if caller % 3 == 0:
                    log.append([("k", b"before"), ("k", LARGE)])
                edits = [("k", b"%d %d" % (caller, number + more)) for more in range(3)]
                assert len({(each.partition, each.offset) for each in log.append(edits)}) == 3
            except RecordTooLarge:
                refused += 1
                assert caller % 3 == 0
        return refused

    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(append_many, range(12))) == [10, 0, 0] * 4
    assert log.away is None
    (place,) = {each.partition for each in log.append([("k", b"end")])}
    last: dict[int, int] = {}
    for value in values(settings, place):
        if value not in (b"before", b"end"):
            caller, number = map(int, value.split())
            last[caller] = number
    assert last == {caller: 29 for caller in range(12) if caller % 3}


def test_a_line_that_only_the_broker_finds_too_large_keeps_no_other_from_being_sent(
    settings: Settings, cli: Cli
) -> None:
    change(settings, max_message_bytes=2_000_000, segment_bytes=1_048_576)
    lines = [b'{"id":"%d","text":"%s"}' % (number, b"x" * 500) for number in range(3000)]
    lines[1500] = b'{"id":"large","text":"' + b"x" * 1_500_000 + b'"}'
    told = json.loads(cli("produce", cli.topic, "-", "--json", given=b"\n".join(lines), code=1))
    assert (told["sent"], told["failed"]) == (2999, 1)
    assert "line 1501: " in cli.said


def test_a_dead_letter_that_is_too_large_for_the_topic_keeps_no_other_from_a_second_try(
    settings: Settings, small_topic: str
) -> None:
    found = [
        (Letter(small_topic, 0, offset, 0), Original(b"k", value, ()))
        for offset, value in enumerate((b"{}", LARGE, b"{}"))
    ]
    sent, problems, missing = second_try.send_all(settings, [letter for letter, _ in found], found)
    assert (sent, len(problems), missing) == (2, 1, [])

"""The bridge with real Kafka, Valkey and PostgreSQL: what it commits, what it buries, and what it does after a
crash."""

import base64
import contextlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.serializer import Serializer
from sqlalchemy import Engine

from bridge.message import message_id
from settings import Settings
from tests.parts import Running, eventually
from tests.samples import ask, run, send_texts

Start = Callable[..., Running]


def committed(settings: Settings) -> dict[int, int]:
    """The group's committed offset of each partition."""
    admin = KafkaAdminClient(**settings.kafka_client())
    try:
        offsets = admin.list_group_offsets([settings.kafka_group_id])[settings.kafka_group_id]
    finally:
        admin.close()
    return {part.partition: found.offset for part, found in offsets.items() if found.offset > 0}


def ends(settings: Settings, topic: str) -> dict[int, int]:
    consumer = KafkaConsumer(**settings.kafka_client(), isolation_level="read_uncommitted")
    parts = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    found = consumer.end_offsets(parts)
    consumer.close()
    return {part.partition: offset for part, offset in found.items() if offset}


def read_all(settings: Settings, topic: str, count: int) -> list[Any]:
    consumer = KafkaConsumer(**settings.kafka_client(), auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    consumer.subscribe([topic])
    found = []
    for record in consumer:
        found.append(record)
        if len(found) == count:
            break
    consumer.close()
    return found


def stored(database: Engine) -> dict[str, str]:
    return {row["id"]: row["message"] for row in ask(database, "SELECT id::text, message FROM text_messages")}


def letters(database: Engine) -> list[dict[str, Any]]:
    return ask(database, 'SELECT * FROM dead_letters ORDER BY topic, partition, "offset"')


def all_committed(settings: Settings) -> bool:
    return committed(settings) == ends(settings, settings.kafka_topic)


def test_records_are_stored_and_then_committed(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    start("bridge")
    for number in range(100):
        producer.send(settings.kafka_topic, json.dumps({"id": f"a-{number}", "text": f"text {number}"}).encode())
    producer.flush()
    eventually(lambda: len(stored(database)) == 100)
    assert stored(database)[message_id("a-7")[0]] == "text 7"
    eventually(lambda: all_committed(settings))


def test_nothing_is_committed_before_it_is_durable(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    start("bridge")
    producer.send(settings.kafka_topic, b'{"id": "a", "text": "x"}').get(10)
    eventually(lambda: broker.llen("persist") == 1)
    assert committed(settings) == {}
    start("persist-worker")
    eventually(lambda: all_committed(settings))
    assert len(stored(database)) == 1


def test_a_hand_over_that_redis_has_lost_is_handed_over_again(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    start("bridge", bridge_lease_seconds=1.0)
    producer.send(settings.kafka_topic, b'{"id": "a", "text": "x"}').get(10)
    eventually(lambda: broker.llen("persist") == 1)
    broker.flushdb()
    start("persist-worker")
    eventually(lambda: len(stored(database)) == 1)
    eventually(lambda: all_committed(settings))


def test_a_killed_bridge_reads_again_and_doubles_nothing(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    bridge = start("bridge", bridge_id="0")
    for number in range(50):
        producer.send(settings.kafka_topic, json.dumps({"text": f"without id {number}"}).encode())
    producer.flush()
    bridge.kill()
    start("persist-worker")
    start("bridge", bridge_id="0")
    eventually(lambda: all_committed(settings))
    assert sorted(stored(database).values()) == sorted(f"without id {number}" for number in range(50))


def test_a_second_group_reads_everything_and_changes_no_row(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    start("bridge")
    for number in range(40):
        producer.send(
            settings.kafka_topic, json.dumps({"id": f"a-{number % 20}", "text": f"text {number}"}).encode(), key=b"k"
        )
    producer.send(settings.kafka_topic, None, key=b"a-3")
    producer.flush()
    eventually(lambda: all_committed(settings))
    before = ask(database, "SELECT *, xmin::text FROM text_messages ORDER BY id")
    replay = start("bridge", kafka_group_id=f"{settings.kafka_group_id}-again", bridge_id="again")
    second = Settings(**{**vars(settings), "kafka_group_id": f"{settings.kafka_group_id}-again"})
    eventually(lambda: all_committed(second))
    assert replay.alive
    assert ask(database, "SELECT *, xmin::text FROM text_messages ORDER BY id") == before


def test_bad_records_are_buried_with_their_bytes_and_their_neighbours_are_stored(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    start("bridge")
    bad = [
        (b"not json \xff", "invalid-unicode"),
        (b"", "invalid-json"),
        (b"[]", "not-an-object"),
        (b"{}", "missing-text"),
    ]
    for number, (value, _) in enumerate(bad):
        producer.send(settings.kafka_topic, json.dumps({"id": f"a-{number}", "text": "good"}).encode(), partition=1)
        producer.send(settings.kafka_topic, value, key=b"\xfe", headers=[("h", b"\xff"), ("e", b"")], partition=1)
    producer.flush()
    eventually(lambda: all_committed(settings))
    assert set(stored(database)) == {message_id(f"a-{number}")[0] for number in range(4)}
    rows = letters(database)
    assert [(row["reason"], bytes(row["value"]), bytes(row["key"])) for row in rows] == [
        (reason, value, b"\xfe") for value, reason in bad
    ]
    assert rows[0]["headers"] == [["h", base64.b64encode(b"\xff").decode()], ["e", ""]]
    for record, (value, reason) in zip(read_all(settings, settings.dead_letter_topic, 4), bad, strict=True):
        headers = dict(record.headers)
        assert (record.value, record.key, headers["h"], headers["e"]) == (value, b"\xfe", b"\xff", b"")
        assert headers["dead-letter-reason"] == reason.encode()
        assert headers["dead-letter-topic"] == settings.kafka_topic.encode()
        assert headers["dead-letter-partition"] == b"1"
        assert int(headers["dead-letter-offset"]) % 2 == 1
        assert int(headers["dead-letter-timestamp"]) > 1_700_000_000_000


def test_what_only_the_database_can_refuse_is_found_by_halving(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    run(database, "ALTER TABLE text_messages ADD CONSTRAINT no_secrets CHECK (message NOT LIKE '%secret%')")
    start("persist-worker")
    start("bridge")
    for number in range(20):
        text = "a secret" if number in (0, 7) else "good"
        producer.send(settings.kafka_topic, json.dumps({"id": f"a-{number}", "text": text}).encode(), partition=0)
    producer.flush()
    eventually(lambda: all_committed(settings))
    assert len(stored(database)) == 18
    rejected = letters(database)
    assert [(row["reason"], row["offset"]) for row in rejected] == [("rejected", 0), ("rejected", 7)]
    assert "no_secrets" in rejected[0]["detail"]


def test_a_replayed_dead_letter_keeps_the_version_of_its_first_coming(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge", max_text_chars=5, bridge_id="0")
    for name in ("late", "lone"):
        producer.send(settings.kafka_topic, json.dumps({"id": name, "text": "too long"}).encode(), partition=0)
    producer.send(settings.kafka_topic, b'{"id": "late", "text": "newer"}', partition=0)
    producer.flush()
    eventually(lambda: len(letters(database)) == 2 and all_committed(settings))
    bridge.stop()
    start("bridge", bridge_id="0")
    for record in read_all(settings, settings.dead_letter_topic, 2):
        producer.send(settings.kafka_topic, record.value, key=record.key, headers=record.headers, partition=0)
    producer.flush()
    eventually(lambda: [row["state"] for row in letters(database)] == ["replayed", "replayed"])
    assert stored(database) == {message_id("late")[0]: "newer", message_id("lone")[0]: "too long"}
    eventually(lambda: all_committed(settings))


def test_aborted_transactions_do_not_count_and_leave_no_lag(
    settings: Settings, database: Engine, topic: str, start: Start
) -> None:
    start("persist-worker")
    start("bridge")
    transactional = KafkaProducer(**settings.kafka_client(), acks="all", transactional_id=str(uuid.uuid4()))
    transactional.init_transactions()
    for text, finish in (("aborted", transactional.abort_transaction), ("kept", transactional.commit_transaction)):
        transactional.begin_transaction()
        transactional.send(topic, json.dumps({"id": text, "text": text}).encode(), partition=2)
        finish()
    transactional.close(timeout=5)
    eventually(lambda: list(stored(database).values()) == ["kept"])
    eventually(lambda: all_committed(settings))


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_compressed_records(settings: Settings, database: Engine, topic: str, start: Start, codec: str) -> None:
    start("persist-worker")
    start("bridge")
    producer = KafkaProducer(**settings.kafka_client(), acks="all", compression_type=codec)
    producer.send(topic, json.dumps({"id": codec, "text": "x" * 1000}).encode()).get(10)
    producer.close(timeout=5)
    eventually(lambda: stored(database) == {message_id(codec)[0]: "x" * 1000})


def test_sigterm_finishes_what_is_under_way_and_repeats_nothing(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge", bridge_id="0")
    for number in range(2000):
        producer.send(settings.kafka_topic, json.dumps({"id": f"a-{number}", "text": "x"}).encode())
    producer.flush()
    eventually(lambda: len(stored(database)) > 0)
    bridge.stop()
    assert sum(committed(settings).values()) == len(stored(database))
    start("bridge", bridge_id="0")
    eventually(lambda: all_committed(settings))
    assert len(stored(database)) == 2000


def test_while_postgres_is_away_nothing_is_buried_and_nothing_is_lost(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, postgres: Running
) -> None:
    start("persist-worker")
    start("bridge")
    database.dispose()
    postgres.pause()
    try:
        producer.send(settings.kafka_topic, b'{"id": "a", "text": "x"}').get(10)
    finally:
        postgres.resume()
    eventually(lambda: len(stored(database)) == 1, timeout=40)
    assert letters(database) == []


def test_three_bridges_share_the_partitions_and_hand_them_on(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    bridges = [start("bridge", bridge_id=name) for name in ("", "1", "2")]  # the first one leaves when it stops

    def send(first: int, last: int) -> None:
        for number in range(first, last):
            producer.send(settings.kafka_topic, json.dumps({"id": f"a-{number}", "text": f"{number}"}).encode())
        producer.flush()

    def members() -> int:
        with contextlib.closing(KafkaAdminClient(**settings.kafka_client())) as admin:
            found = admin.describe_groups([settings.kafka_group_id])[settings.kafka_group_id]
        return len(found["members"]) if found["group_state"] == "Stable" else 0

    eventually(lambda: members() == 3, timeout=30)
    send(0, 1000)
    bridges[0].stop()
    send(1000, 2000)
    bridges[1].kill()
    start("bridge", bridge_id="1")
    send(2000, 3000)
    eventually(lambda: len(stored(database)) == 3000, timeout=60)
    eventually(lambda: all_committed(settings), timeout=60)


def test_records_that_only_other_clients_can_make(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    """A record with neither key nor value, and one whose header's name is not UTF-8."""

    class Name(str):
        def encode(self, *_: object) -> bytes:
            return b"\xff\xfe"

    start("persist-worker")
    bridge = start("bridge")
    producer.send(settings.kafka_topic, b'{"id": "a", "text": "x"}', headers=[(Name("n"), b"v")], partition=0)
    # The check "at least one of key and value" comes before the serializer.
    nothing = KafkaProducer(**settings.kafka_client(), value_serializer=Nothing())
    nothing.send(settings.kafka_topic, b"to be dropped", partition=0)
    nothing.close(timeout=5)
    producer.send(settings.kafka_topic, b'{"id": "b", "text": "x"}', partition=0)
    producer.flush()
    eventually(lambda: all_committed(settings))
    assert set(stored(database)) == {message_id("a")[0], message_id("b")[0]}
    assert [(row["reason"], row["offset"], row["value"]) for row in letters(database)] == [("invalid-id", 1, None)]
    (letter,) = read_all(settings, settings.dead_letter_topic, 1)
    assert (letter.key, letter.value, dict(letter.headers)["dead-letter-null-value"]) == (None, b"", b"1")
    assert bridge.alive


def test_of_two_records_of_one_id_in_one_batch_the_later_version_is_embedded(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    producer.send(settings.kafka_topic, b'{"id": "a", "text": "older"}', partition=1).get(10)
    producer.send(settings.kafka_topic, b'{"id": "a", "text": "newer"}', partition=0).get(10)
    start("persist-worker")
    start("embed-worker")
    start("bridge")
    vectors = """SELECT m.message FROM message_embeddings e
                 JOIN text_messages m ON m.id = e.message_id AND m.content_hash = e.content_hash"""
    eventually(lambda: ask(database, vectors) == [{"message": "newer"}])


class Nothing(Serializer):  # type: ignore[misc]
    def serialize(self, topic: str, headers: object, data: object) -> None:
        return None


RUBBISH = [
    b"rubbish",
    b"\xff\xfe",
    b"[]",
    b"[" * 100_000,
    b"{}",
    b'{"properties": {"delivery_tag": "t", "body_encoding": "rot13"}, "body": "x"}',
    b'{"properties": {"delivery_tag": "t", "delivery_info": {}}, "body": "x", "headers": {"task": "none"}}',
    b'{"properties": {"delivery_tag": "t", "delivery_info": {}}, "body": "x", "headers": null}',
]


def test_what_is_no_message_in_a_queue_stops_no_worker(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    worker = start("persist-worker")
    start("bridge")
    broker.lpush("persist", *RUBBISH)
    send_texts(producer, settings, 0, 5)
    eventually(lambda: len(stored(database)) == 5)
    assert worker.alive
    assert broker.llen("persist") == 0
    assert worker.log_tail(40).count("is no message, and is dropped") == len(RUBBISH) - 1, "of the last Celery says it"


def test_edits_of_rows_that_somebody_holds_keep_no_other_text_waiting(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    start("bridge")
    send_texts(producer, settings, 0, 20, partition=0)
    eventually(lambda: len(stored(database)) == 20)

    def found(beginning: str) -> int:
        return sum(message.startswith(beginning) for message in stored(database).values())

    with database.connect() as somebody:
        somebody.exec_driver_sql("SELECT FROM text_messages FOR UPDATE")
        for number in range(20):  # each in a hand-over of its own, more than the window has
            edit = json.dumps({"id": f"n-{number}", "text": f"edited {number}"}).encode()
            producer.send(settings.kafka_topic, edit, partition=0).get(10)
            time.sleep(0.1)
        send_texts(producer, settings, 200, 210, partition=1)
        eventually(lambda: found("text 20") == 10)
        assert found("edited") == 0
    eventually(lambda: found("edited") == 20)
    eventually(lambda: all_committed(settings))


def test_a_bridge_whose_id_another_one_takes_ends_though_it_has_nothing_to_commit(
    settings: Settings, start: Start
) -> None:
    """kafka-python would go on with a whole core, and without a heartbeat."""
    bridge = start("bridge", bridge_id="0")
    start("bridge", bridge_id="0", wait=False)
    eventually(lambda: not bridge.alive)
    assert f"another bridge runs in the group {settings.kafka_group_id} with BRIDGE_ID=0" in bridge.log_tail()

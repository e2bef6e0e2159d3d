"""The log's own trouble: records that retention has removed, a topic made again, and a database made anew from the
log."""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import redis
import requests
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError, NoOffsetForPartitionError, RequestTimedOutError
from kafka.structs import OffsetAndMetadata
from sqlalchemy import Engine

import kafka_clients
from bridge import dead_letters, topics
from bridge.consumer import Bridge, connect_consumer
from bridge.hand_over import HandOvers
from bridge.message import BadRecord
from bridge.positions import Positions
from kafka_clients import member_poll_ms
from redis_keys import PAUSED, REWIND, answer_field, steering_key
from replay import record_batches
from settings import ROOT, Settings
from tasks.app import app
from tests.integration.test_bridge import all_committed, committed, read_all, stored
from tests.kafka_cli import COMMAND, Cli
from tests.parts import Running, eventually
from tests.samples import ask, run, send_texts
from tests.tcp_proxy import TcpProxy

Start = Callable[..., Running]


@pytest.fixture
def admin(settings: Settings, topic: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(**settings.kafka_client())
    yield client
    client.close()


def numbers(database: Engine) -> set[int]:
    return {int(text.split()[1]) for text in stored(database).values()}


def make_again(admin: KafkaAdminClient, settings: Settings) -> None:
    admin.delete_topics([settings.kafka_topic])
    eventually(lambda: settings.kafka_topic not in admin.list_topics())

    def made() -> bool:
        with contextlib.suppress(KafkaError):  # the old one may still be on its way out
            topics.create(settings)
        return settings.kafka_topic in admin.list_topics()

    eventually(made)


def test_records_that_retention_removed_unread_are_named_and_the_rest_is_read(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    send_texts(producer, settings, 0, 10, partition=0)
    eventually(lambda: committed(settings) == {0: 10})
    bridge.stop()
    send_texts(producer, settings, 10, 30, partition=0)
    admin.delete_records({TopicPartition(settings.kafka_topic, 0): 25})
    bridge = start("bridge")
    eventually(lambda: numbers(database) == {*range(10), *range(25, 30)})
    assert "LOST 15 records, offsets 10 to 24" in bridge.log_tail()
    eventually(lambda: committed(settings) == {0: 30})


@pytest.mark.parametrize("more", [5, 40], ids=["shorter", "longer than before"])
def test_a_topic_made_again_while_the_bridge_is_away_is_read_from_its_beginning(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start, more: int
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    send_texts(producer, settings, 0, 20, partition=0)
    eventually(lambda: committed(settings) == {0: 20})
    bridge.stop()
    make_again(admin, settings)
    with KafkaProducer(**settings.kafka_client(), acks="all") as fresh:
        send_texts(fresh, settings, 100, 100 + more, partition=0)
    start("bridge")
    eventually(lambda: numbers(database) == {*range(20), *range(100, 100 + more)})
    eventually(lambda: committed(settings) == {0: more})


def test_a_bridge_that_starts_paused_compares_the_topic_with_that_of_its_offsets(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    """Offsets outlive their topic where they came from another cluster, or the broker lost its word of the deletion."""
    send_texts(producer, settings, 0, 20, partition=0)
    theirs = {TopicPartition(settings.kafka_topic, 0): OffsetAndMetadata(10, "the id of another topic", -1)}

    def noted() -> bool:
        with contextlib.suppress(KafkaError):  # the first group of a cluster waits for its coordinator
            admin.alter_group_offsets(settings.kafka_group_id, theirs)
            return committed(settings) == {0: 10}
        return False

    eventually(noted)
    cli("pause")
    start("persist-worker")
    bridge = start("bridge")
    eventually(lambda: "was committed for a topic of this name that is gone" in bridge.log_tail())
    cli("resume")
    eventually(lambda: numbers(database) == set(range(20)))


def test_a_topic_made_again_under_a_running_bridge_is_read_from_its_beginning(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    send_texts(producer, settings, 0, 20, partition=0)
    eventually(lambda: committed(settings) == {0: 20})
    make_again(admin, settings)
    with KafkaProducer(**settings.kafka_client(), acks="all") as fresh:
        send_texts(fresh, settings, 100, 130, partition=0)
    eventually(lambda: numbers(database) == {*range(20), *range(100, 130)}, timeout=60)
    assert bridge.alive
    assert "it is read from its beginning" in bridge.log_tail()
    eventually(lambda: all_committed(settings))


@pytest.mark.parametrize("is_parked", [True, False], ids=["parked by then", "not looked at yet"])
def test_what_was_fetched_of_a_topic_and_not_taken_is_not_read_as_the_new_ones(
    settings: Settings, producer: KafkaProducer, admin: KafkaAdminClient, is_parked: bool
) -> None:
    """As of partitions that wait, paused, while the window is full of the first one's records."""
    parts = [TopicPartition(settings.kafka_topic, number) for number in range(4)]
    for part in parts:
        send_texts(producer, settings, 0, 2, partition=part.partition)
    record_batches.install()
    consumer = connect_consumer(settings)
    try:
        positions = Positions(consumer, settings.kafka_topic, lambda _parts: None)
        consumer.partitions_for_topic(settings.kafka_topic)
        positions.look()
        consumer.subscribe([settings.kafka_topic])

        def poll(most: int) -> set[str]:
            with contextlib.suppress(NoOffsetForPartitionError):
                polled = consumer.poll(timeout_ms=member_poll_ms(consumer, 100), max_records=most)
                return {json.loads(record.value)["id"] for records in polled.values() for record in records}
            positions.begin(parts)
            return set()

        assert eventually(lambda: poll(1)) == {"n-0"}
        consumer.pause(*parts)
        if is_parked:
            poll(1)
        make_again(admin, settings)
        with KafkaProducer(**settings.kafka_client(), acks="all") as fresh:
            for number in range(4):
                send_texts(fresh, settings, 10 * number + 10, 10 * number + 13, partition=number)
        before = positions.topic_id

        def looked() -> bool:
            consumer._cluster.request_update()
            positions.look()
            return positions.topic_id != before

        eventually(looked)
        for _ in range(3):
            assert poll(100) == set()
        consumer.resume(*parts)
        found: set[str] = set()

        def all_came() -> bool:
            found.update(poll(100))
            return len(found) >= 12

        eventually(all_came)
        assert found == {f"n-{10 * number + each}" for number in range(4) for each in range(10, 13)}
    finally:
        consumer.close()


def test_nobody_creates_a_topic_that_was_deleted_in_passing(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start, cli: Cli
) -> None:
    """It would have the broker's defaults: another number of partitions, the producers' clocks, a week's retention."""
    for part in ("persist-worker", "bridge", "text-api"):
        start(part, post_wait_seconds=5.0)
    url = f"http://127.0.0.1:{settings.text_api_port}/messages"
    assert requests.post(url, json={"message": "a"}, timeout=20).status_code == 201
    admin.delete_topics([settings.kafka_topic])
    eventually(lambda: settings.kafka_topic not in admin.list_topics())
    assert requests.post(url, json={"message": "b"}, timeout=20).status_code == 503
    cli("produce", settings.kafka_topic, '{"text": "c"}', code=1)
    with pytest.raises(KafkaTimeoutError):
        kafka_clients.connect(KafkaProducer, settings, max_block_ms=2_000).partitions_for(settings.kafka_topic)
    assert topics.create(settings) == [settings.kafka_topic], "it was there"


@pytest.mark.parametrize("before", [0, 1], ids=["before it was used", "after"])
def test_a_dead_letter_topic_that_somebody_has_deleted_is_created_again(
    settings: Settings,
    database: Engine,
    producer: KafkaProducer,
    admin: KafkaAdminClient,
    start: Start,
    before: int,
) -> None:
    start("persist-worker")
    start("bridge")
    send_texts(producer, settings, 0, 1, partition=0)
    for _ in range(before):
        producer.send(settings.kafka_topic, b"lost with the topic", partition=0)
    eventually(lambda: committed(settings) == {0: 1 + before})
    admin.delete_topics([settings.dead_letter_topic])
    eventually(lambda: settings.dead_letter_topic not in admin.list_topics())
    producer.send(settings.kafka_topic, b"not JSON", partition=0)
    send_texts(producer, settings, 1, 2, partition=0)
    eventually(lambda: committed(settings) == {0: 3 + before}, timeout=100)
    assert [record.value for record in read_all(settings, settings.dead_letter_topic, 1)] == [b"not JSON"]
    assert numbers(database) == {0, 1}


def test_a_bad_record_that_its_dead_letter_topic_does_not_take_goes_there_cut(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    """The topic counts what the record is compressed; its letter is not, and has more headers."""
    most = 200_000
    for topic in (settings.kafka_topic, settings.dead_letter_topic):
        limit = {"max.message.bytes": str(most)}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, limit)])
    start("persist-worker")
    bridge = start("bridge")
    with KafkaProducer(**settings.kafka_client(), acks="all", compression_type="gzip") as packed:
        packed.send(settings.kafka_topic, b"{" * 600_000, key=b"k", headers=[("h", b"v")], partition=0).get(10)
    producer.send(settings.kafka_topic, b"[" * (most - 100), partition=1).get(10)
    for offset in range(1, 21):
        producer.send(settings.kafka_topic, b"no JSON" * 1_000, partition=0)
        send_texts(producer, settings, offset, offset + 1, partition=1)
    eventually(lambda: committed(settings) == {0: 21, 1: 21}, timeout=40)
    assert numbers(database) == set(range(1, 21))
    kept = 'SELECT partition, value_bytes AS bytes FROM dead_letters WHERE "offset" = 0 ORDER BY partition'
    assert ask(database, kept) == [{"partition": 0, "bytes": 600_000}, {"partition": 1, "bytes": most - 100}]
    letters = read_all(settings, settings.dead_letter_topic, 22)
    large = {dict(letter.headers)["dead-letter-partition"]: letter for letter in letters if letter.value[:1] in b"{["}
    assert sorted(large) == [b"0", b"1"]
    assert len(letters) == 22
    for letter in large.values():
        assert most // 3 < len(letter.value) < most
    assert dict(large[b"0"].headers)["dead-letter-cut"] == b"key 1 bytes, value 600000 bytes, 1 headers"
    assert (large[b"0"].key, dict(large[b"0"].headers)["h"]) == (b"k", b"v")
    assert f"too large for {settings.dead_letter_topic}" in bridge.log_tail()


def test_a_dead_letter_that_its_topic_refuses_is_taken_once_it_does_and_keeps_no_other_back(
    settings: Settings, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    """A topic that is compacted takes no record without a key, nor those that are in one batch with it."""

    def keep(how: str) -> None:
        policy = {"cleanup.policy": how}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.dead_letter_topic, policy)])

    keep("compact")
    producer.send(settings.kafka_topic, b"no JSON", partition=0).get(10)
    producer.send(settings.kafka_topic, b"no JSON", key=b"k1", partition=1).get(10)
    start("persist-worker")
    bridge = start("bridge")
    eventually(lambda: "dead letter not taken by Kafka, sent again" in bridge.log_tail())
    producer.send(settings.kafka_topic, b"no JSON", key=b"k2", partition=2)
    eventually(lambda: committed(settings) == {2: 1})
    assert {letter.key for letter in read_all(settings, settings.dead_letter_topic, 2)} == {b"k1", b"k2"}
    keep("delete")
    eventually(lambda: committed(settings) == {0: 1, 1: 1, 2: 1})
    assert bridge.alive


def test_dead_letters_go_on_where_kafka_was_silent_when_it_was_asked_for_the_producer_s_id(
    settings: Settings, topic: str, producer: KafkaProducer
) -> None:
    producer.send(topic, b"no JSON", partition=0).get(10)
    (record,) = read_all(settings, topic, 1)
    with contextlib.closing(dead_letters.connect_producer(settings)) as letters:
        letters._transaction_manager.transition_to_fatal_error(RequestTimedOutError())  # as it does then
        assert dead_letters.send(letters, settings.dead_letter_topic, record, BadRecord("invalid-json", "")).get(10)


def test_a_producer_goes_on_after_a_record_that_was_not_taken_in_time(settings: Settings, topic: str) -> None:
    """kafka-python gives up its id then, as the record may have arrived, and asks for no other one."""
    limits = {"acks": "all", "request_timeout_ms": 500, "delivery_timeout_ms": 1_000}
    with TcpProxy(settings.kafka_port, kafka=True) as proxy:
        producer = kafka_clients.connect(KafkaProducer, replace(settings, kafka_port=proxy.port), **limits)

        def is_taken() -> bool:
            with contextlib.suppress(KafkaTimeoutError):
                return bool(producer.send(topic, b"a record").get(5))
            return False

        try:
            assert is_taken()
            proxy.fall_silent(new_too=True)
            assert not is_taken()
            proxy.reset()
            proxy.take_new()
            eventually(is_taken)
        finally:
            kafka_clients.close(producer, seconds=1)


def test_good_records_pass_while_the_dead_letter_topic_takes_nothing(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    def limit(most: int) -> None:
        changes = {"max.message.bytes": str(most)}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.dead_letter_topic, changes)])

    limit(100)
    start("persist-worker")
    bridge = start("bridge")
    for partition in (0, 1, 2):  # as many hand-overs as there may be before records gather
        producer.send(settings.kafka_topic, b"no JSON", partition=partition)
        send_texts(producer, settings, partition, partition + 1, partition=3)
        eventually(lambda: numbers(database) == set(range(partition + 1)))  # noqa: B023 - called at once
    send_texts(producer, settings, 3, 13, partition=3)
    eventually(lambda: numbers(database) == set(range(13)))
    assert committed(settings).keys() <= {3}
    eventually(lambda: f"{settings.dead_letter_topic} takes no dead letter" in bridge.log_tail(1000))
    limit(1_048_588)
    eventually(lambda: committed(settings) == {0: 1, 1: 1, 2: 1, 3: 13})
    assert len(read_all(settings, settings.dead_letter_topic, 3)) == 3


def test_a_bad_record_of_a_topic_made_again_is_another_dead_letter(
    settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    start("persist-worker")
    start("bridge")
    producer.send(settings.kafka_topic, b"not json", partition=0).get(10)
    eventually(lambda: committed(settings) == {0: 1})
    run(database, "UPDATE dead_letters SET state = 'dropped'")
    make_again(admin, settings)
    with KafkaProducer(**settings.kafka_client(), acks="all") as fresh:
        fresh.send(settings.kafka_topic, b"[]", partition=0).get(10)
    kept = 'SELECT reason, state, "offset" FROM dead_letters'
    wanted = [{"reason": "not-an-object", "state": "open", "offset": 0}]
    eventually(lambda: ask(database, kept) == wanted, timeout=60)


def test_a_database_made_anew_is_filled_from_the_log_by_one_command(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    start("embed-worker")
    start("bridge")
    for partition in range(4):
        send_texts(producer, settings, 100 * partition, 100 * partition + 50, partition=partition)
    producer.send(settings.kafka_topic, key=b"n-7", partition=0)
    producer.send(settings.kafka_topic, b'{"id": "n-8", "text": "edited 8"}', partition=0)
    producer.send(settings.kafka_topic, b"{", partition=1)
    producer.flush()
    question = "SELECT id::text, message, created_at, version_offset FROM text_messages ORDER BY id"
    letters = 'SELECT partition, "offset", reason, state FROM dead_letters'
    eventually(lambda: all_committed(settings) and len(stored(database)) == 199)
    before = ask(database, question), ask(database, letters)
    run(database, "TRUNCATE text_messages, deleted_messages, dead_letters, embedding_jobs, message_embeddings")
    run(database, "DELETE FROM deleted_messages")
    assert "203 records" in cli("rewind", "--to-beginning", "--yes")
    eventually(lambda: (ask(database, question), ask(database, letters)) == before)
    embedded = """SELECT count(*) AS n FROM text_messages m
                  JOIN message_embeddings e ON e.message_id = m.id AND e.content_hash = m.content_hash"""
    eventually(lambda: ask(database, embedded) == [{"n": 199}])
    eventually(lambda: all_committed(settings))


def test_what_was_read_before_a_rewind_and_is_removed_before_it_is_read_again_is_not_called_lost(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, admin: KafkaAdminClient, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    send_texts(producer, settings, 0, 10, partition=0)
    eventually(lambda: committed(settings) == {0: 10})
    cli("pause")
    eventually(lambda: paused_in_log(settings))
    cli("rewind", "--to-beginning", "--yes")
    cli("rewind", "--to-offset", "0:5", "--yes")
    send_texts(producer, settings, 10, 15, partition=0)
    admin.delete_records({TopicPartition(settings.kafka_topic, 0): 12})
    cli("resume")
    eventually(lambda: committed(settings) == {0: 15})
    assert numbers(database) == {*range(10), *range(12, 15)}
    assert "removed 10 records, offsets 0 to 9, before they were read again" in bridge.log_tail()
    assert "LOST 2 records, offsets 10 to 11" in bridge.log_tail()


def test_rewinding_while_no_bridge_runs(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge", bridge_id="")  # no static member: it leaves its group when it stops
    send_texts(producer, settings, 0, 20, partition=0)
    eventually(lambda: committed(settings) == {0: 20})
    bridge.stop()
    told = json.loads(cli("rewind", "--to-offset", "0:5", "--json", "--yes"))
    assert told == {"records": 15, "offsets": {"0": 5}}
    assert committed(settings) == {0: 5}
    now = datetime.now(UTC).isoformat()
    told = json.loads(cli("rewind", "--to-time", now, "--json"))
    assert (told["offsets"]["0"], committed(settings)) == (5, {0: 5}), "what was not read yet is never skipped"


def test_rewinding_skips_nothing_that_is_not_durable_yet(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    bridge = start("bridge")
    send_texts(producer, settings, 0, 20, partition=0)
    eventually(lambda: broker.llen("persist") > 0)
    cli("rewind", "--to-offset", "0:15", "--yes")
    bridge.kill()
    broker.flushdb()
    start("persist-worker")
    start("bridge")
    eventually(lambda: numbers(database) == set(range(20)))
    eventually(lambda: committed(settings) == {0: 20})


def test_a_rewind_whose_command_died_is_carried_out_once(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    send_texts(producer, settings, 0, 10, partition=0)
    eventually(lambda: committed(settings) == {0: 10})
    wishes = steering_key(settings.kafka_group_id)
    broker.hset(wishes, REWIND, json.dumps({"id": "left", "offsets": {"0": 0}}))
    eventually(lambda: broker.hexists(wishes, answer_field("left", 0)))
    eventually(lambda: committed(settings) == {0: 10})
    bridge.kill()
    bridge = start("bridge")
    send_texts(producer, settings, 10, 20, partition=0)
    eventually(lambda: committed(settings) == {0: 20})
    # Two looks at the wishes later.
    broker.hset(wishes, PAUSED, "this")
    eventually(lambda: "intake paused" in bridge.log_tail())
    broker.hset(wishes, PAUSED, "")
    eventually(lambda: "intake goes on" in bridge.log_tail())
    assert "is read again" not in bridge.log_tail()


def test_an_interrupted_rewind_takes_its_wish_back(
    cli: Cli, settings: Settings, topic: str, broker: redis.Redis
) -> None:
    with KafkaConsumer(**settings.kafka_client(), group_id=settings.kafka_group_id) as somebody:
        somebody.subscribe([settings.kafka_topic])  # in the group, and answers no wish
        eventually(lambda: somebody.poll(timeout_ms=member_poll_ms(somebody, 200)) or somebody.assignment(), timeout=30)
        command = subprocess.Popen([*COMMAND, "rewind", "--to-beginning", "--yes"], env=cli.environment)
        wishes = steering_key(settings.kafka_group_id)
        eventually(lambda: broker.hexists(wishes, REWIND))
        command.send_signal(signal.SIGINT)
        assert command.wait(20) == 130
        assert not broker.hexists(wishes, REWIND)


def test_a_member_completes_a_rebalance_that_its_polls_are_too_short_for(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    """A plain poll would forget the second join for ever: its cause, other partitions than before, is gone with it."""
    with KafkaConsumer(**settings.kafka_client(), group_id=settings.kafka_group_id) as member:

        def partitions() -> int:
            member.poll(timeout_ms=member_poll_ms(member, 1))
            return len(member.assignment())

        member.subscribe([settings.kafka_topic])
        eventually(lambda: partitions() == 4)
        admin.create_partitions({settings.kafka_topic: 5})

        def has_the_new_one() -> bool:
            member._client.cluster.request_update()
            return partitions() == 5

        eventually(has_the_new_one, interval=0.2)


def test_a_late_answer_about_the_commits_is_no_place_to_read_on_from_after_a_rebalance(
    settings: Settings, producer: KafkaProducer, topic: str
) -> None:
    """kafka-python keeps it for the next who asks about the same partitions, whenever that is."""
    send_texts(producer, settings, 0, 20, partition=0)
    parts = [TopicPartition(topic, number) for number in range(4)]
    with contextlib.closing(connect_consumer(settings)) as consumer:
        bridge = Bridge(settings, consumer, HandOvers(settings, app, producer))
        consumer.subscribe([topic], listener=bridge.rebalances)

        def read() -> list[int]:
            return [record.offset for records in bridge.poll(200).values() for record in records]

        assert eventually(read)[0] == 0
        asked = consumer._coordinator  # as fetch_committed_offsets asks, and then does not wait long enough
        answer = asked._manager.call_soon(asked._send_offset_fetch_request, parts)
        asked._offset_fetch_futures[frozenset(parts)] = answer
        eventually(lambda: answer.is_done)
        consumer.commit({part: OffsetAndMetadata(15 if part == parts[0] else 0, "", -1) for part in parts})
        consumer._coordinator.maybe_leave_group()
        assert eventually(read)[0] == 15


def test_pause_and_resume(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: object
) -> None:
    start("persist-worker")
    start("bridge")
    cli("pause")
    eventually(lambda: paused_in_log(settings))
    send_texts(producer, settings, 0, 20, partition=0)
    assert cli("lag").strip()
    assert stored(database) == {}
    cli("resume")
    eventually(lambda: len(stored(database)) == 20)


def test_a_pause_outlives_a_redis_that_was_emptied(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    """Somebody may be in the middle of a restore."""
    start("persist-worker")
    bridge = start("bridge")
    cli("pause")
    eventually(lambda: paused_in_log(settings))
    broker.flushdb()
    send_texts(producer, settings, 0, 20, partition=0)
    eventually(lambda: json.loads(cli("lag", "--json"))["paused"])
    assert stored(database) == {}
    assert "intake goes on" not in bridge.log_tail()
    cli("resume")
    eventually(lambda: len(stored(database)) == 20)
    broker.flushdb()
    assert json.loads(cli("lag", "--json"))["paused"] is False


def paused_in_log(settings: Settings) -> bool:
    logs = (ROOT / settings.data_dir / "logs").glob("bridge-*.log")
    return any("intake paused by command" in log.read_text() for log in logs)


NO_WISHES = [
    '{"id": "x", "offsets": {"0": -1}}',
    '{"id": "y", "offsets": {"0": Infinity}}',
    "[" * 100_000,
    '["0"]',
]


def test_no_wish_in_redis_costs_a_record(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    sent = 0
    for wish in NO_WISHES:
        broker.hset(steering_key(settings.kafka_group_id), REWIND, wish)
        for _ in range(20):  # more than a second, which has two looks at the wishes
            send_texts(producer, settings, sent, sent + 50, partition=0)
            sent += 50
            time.sleep(0.05)
    eventually(lambda: committed(settings) == {0: sent}, timeout=40)
    assert numbers(database) == set(range(sent))
    assert bridge.alive

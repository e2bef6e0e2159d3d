"""The second try of dead letters that neither the table nor the log has whole: the dead-letter topic is searched in
turns.
"""

from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import Fetcher
from kafka.errors import KafkaError

from db.queries import Row
from replay.letters import GONE
from replay.record_batches import QuickPartitionRecords
from settings import Settings
from tasks import second_try
from tasks.outages import Outage
from tasks.second_try import Tried, send_again
from tests.parts import eventually

CUT = {"timestamp": 5, "state": "open", "key": None, "value": b"v", "value_bytes": 3, "headers": []}


def cut_rows(topic: str, *offsets: int) -> list[Row]:
    """Of dead letters of which the table has a part, and whose place in the log another record has by now, or none."""
    return [{"topic": topic, "partition": 0, "offset": offset, **CUT} for offset in offsets]


def bury(producer: KafkaProducer, settings: Settings, offset: int, partition: int = 0) -> None:
    """The copy of a dead letter in the dead-letter topic."""
    place = {"topic": settings.kafka_topic, "partition": 0, "offset": offset, "timestamp": CUT["timestamp"]}
    headers = [(f"dead-letter-{name}", str(value).encode()) for name, value in place.items()]
    producer.send(settings.dead_letter_topic, b"v%d" % offset, headers=headers, partition=partition).get(timeout=10)


def turns_of(settings: Settings, rows: list[Row]) -> list[Tried]:
    """Tries until there is nothing left to look for, each time what the time before has left."""
    tried = [send_again(settings, rows)]
    while tried[-1].sought:
        assert len(tried) < 100
        left = [row for row in rows if second_try.key_of(row) in tried[-1].sought]
        tried.append(send_again(settings, left, tried[-1].unread))
    return tried


def replayed(settings: Settings) -> list[Any]:
    consumer = KafkaConsumer(
        settings.kafka_topic, **settings.kafka_client(), auto_offset_reset="earliest", consumer_timeout_ms=2_000
    )
    found = sorted(
        record.value for record in consumer if any(name == "dead-letter-offset" for name, _ in record.headers)
    )
    consumer.close()
    return found


@pytest.mark.parametrize("seconds", [0.0, 60.0])
def test_a_search_of_many_turns_finds_what_one_of_one_turn_finds(
    settings: Settings, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """A turn without time reads one record: the worker has other things to do than to read a large topic."""
    monkeypatch.setattr(second_try, "SEARCH_SECONDS", seconds)
    admin = KafkaAdminClient(**settings.kafka_client())
    admin.create_partitions({settings.dead_letter_topic: 2})
    admin.close()
    eventually(lambda: 1 in producer.partitions_for(settings.dead_letter_topic))
    for offset in range(100, 112):
        bury(producer, settings, offset, offset % 2)
    tried = turns_of(settings, cut_rows(settings.kafka_topic, 103, 111, 500))
    assert sum(each.sent for each in tried) == 2
    assert [problem for each in tried for problem in each.problems] == [f"{settings.kafka_topic}:0:500: {GONE}"]
    assert len(tried) == (1 if seconds else 12)
    assert replayed(settings) == [b"v103", b"v111"]


def test_a_search_ends_where_the_topic_ended_when_it_began(
    settings: Settings, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would not end at all, where records come as fast as they are read."""
    monkeypatch.setattr(second_try, "SEARCH_SECONDS", 0.0)
    for offset in range(4):
        bury(producer, settings, 2 * offset)
    rows = cut_rows(settings.kafka_topic, 500)
    tried = send_again(settings, rows)
    turns = 1
    while tried.sought:
        assert turns < 20
        bury(producer, settings, 100 + 2 * turns)
        tried = send_again(settings, rows, tried.unread)
        turns += 1
    assert turns <= 5


@pytest.mark.parametrize("gone", [False, True])
def test_a_search_ends_too_where_its_topic_was_made_again_or_is_gone(
    settings: Settings, producer: KafkaProducer, gone: bool
) -> None:
    bury(producer, settings, 0)
    if gone:
        admin = KafkaAdminClient(**settings.kafka_client())
        admin.delete_topics([settings.dead_letter_topic])
        admin.close()
    tried = send_again(settings, cut_rows(settings.kafka_topic, 500), [(0, 7, 1000), (1, 0, 0)])
    assert (tried.sought, tried.unread) == ([], [])
    assert "nothing has it whole" in tried.problems[0]


def test_a_kafka_that_is_silent_when_it_is_asked_for_the_producers_id_is_away_and_refuses_nothing(
    settings: Settings, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = second_try.connect_producer

    def connect_producer(config: Settings) -> KafkaProducer:
        made = connect(config)
        made._transaction_manager.transition_to_fatal_error(KafkaError("unknown reasons"))  # as it does then
        return made

    monkeypatch.setattr(second_try, "connect_producer", connect_producer)
    bury(producer, settings, 7)
    with pytest.raises(Outage):
        send_again(settings, cut_rows(settings.kafka_topic, 7))


def test_a_header_name_of_any_bytes_stops_no_search(
    settings: Settings, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Name(str):
        def encode(self, *_: object) -> bytes:
            return b"\xff\xfe"

    monkeypatch.setattr(Fetcher, "PartitionRecords", QuickPartitionRecords.__base__)  # as a process has it that begins
    producer.send(settings.dead_letter_topic, b"odd", headers=[(Name("n"), b"v")], partition=0).get(timeout=10)
    bury(producer, settings, 500)
    assert [tried.sent for tried in turns_of(settings, cut_rows(settings.kafka_topic, 500))] == [1]
    assert replayed(settings) == [b"v500"]

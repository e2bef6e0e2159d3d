"""Reading a topic to its end, or at some places of it, from a stand-in for Kafka: what compaction, transactions, a
topic that was made again and a Kafka that falls silent leave."""

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import CommitFailedError, KafkaTimeoutError, RebalanceInProgressError

import kafka_clients
from replay import letters, reading
from replay.letters import Letter, Original
from replay.reading import FAR, Turn
from settings import Settings

PART = TopicPartition("t", 0)


class Log:
    """One partition: records at these offsets, and its end. Other offsets were compacted away, or are markers."""

    def __init__(self, offsets: Iterable[int], end: int, begin: int = 0) -> None:
        self.offsets = list(offsets)
        self.begin, self.end = begin, end
        self.at = 0
        self.silent_from = end  # nothing comes from here on
        self.sought: list[int] = []
        self.assigned = {PART}
        self.commits: list[int] = []
        self.refusal: Exception | None = None

    def assign(self, parts: list[TopicPartition]) -> None:
        assert parts == [PART]

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return {0}

    def beginning_offsets(self, parts: list[TopicPartition]) -> dict[TopicPartition, int]:
        assert set(parts) <= {PART}
        return dict.fromkeys(parts, self.begin)

    def end_offsets(self, parts: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(parts, self.end)

    def seek(self, _part: TopicPartition, offset: int) -> None:
        self.at = offset
        self.sought.append(offset)

    def position(self, _part: TopicPartition, timeout_ms: int) -> int:
        return self.at

    def poll(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        until = min(self.end, self.silent_from)
        found = [offset for offset in self.offsets if self.at <= offset < until][:max_records]
        if self.at < until:
            self.at = found[-1] + 1 if len(found) == max_records else until
        return {PART: [SimpleNamespace(topic="t", partition=0, offset=offset) for offset in found]} if found else {}

    def commit(self, timeout_ms: int) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.commits.append(self.at)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(reading, "member_poll_ms", lambda *_: 0)


def offsets(records: Iterator[Any]) -> list[int]:
    return [record.offset for record in records]


def at(log: Log, *wanted: int) -> Iterator[Any]:
    return reading.at_offsets(log, PART, wanted)


def to_the_end(log: Log, limit: int | None = None, *, commit: bool = False) -> Iterator[Any]:
    ends = log.end_offsets([PART])
    return reading.drain(log, ends, limit=limit, patience=0, commit=commit)


def test_records_at_some_places_come_though_others_are_gone() -> None:
    log = Log([*range(10), *range(20, 40)], begin=2, end=60)
    assert offsets(at(log, 1, 3, 15, 21, 39, 45, 59, 60, 99)) == [3, 21, 39]


def test_what_lies_far_away_is_reached_by_a_seek() -> None:
    far = reading.POLL_RECORDS + 2 * FAR
    log = Log(range(far + 1), end=far + 1)
    assert offsets(at(log, 0, far)) == [0, far]
    assert log.sought == [0, far]


def test_a_kafka_that_falls_silent_is_an_error_and_no_end() -> None:
    log = Log(range(10), end=10)
    log.silent_from = 5
    for records in (at(log, 3, 7), to_the_end(log)):
        log.at = 0
        seen = []
        with pytest.raises(KafkaTimeoutError):
            seen += [record.offset for record in records]
    log.at = 0
    assert offsets(to_the_end(log, limit=5)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("refusal", [None, CommitFailedError(), RebalanceInProgressError()])
def test_what_a_group_is_just_reassigning_is_not_committed_and_ends_nothing(refusal: Exception | None) -> None:
    log = Log(range(3), end=3)
    log.refusal = refusal
    assert offsets(to_the_end(log, commit=True)) == [0, 1, 2]
    assert log.commits == ([] if refusal else [3])


def test_a_partition_that_the_group_has_given_away_is_not_waited_for() -> None:
    log = Log(range(3), end=3)
    ends = {PART: 3, TopicPartition("t", 1): 9}
    log.assigned = {PART, TopicPartition("t", 1)}
    records = reading.drain(log, ends, limit=None, patience=0, commit=True)
    assert next(records).offset == 0
    log.assigned = {PART}
    assert offsets(records) == [1, 2]


def turn(log: Log, unread: list[reading.Unread] | None, seconds: float = 60) -> tuple[list[int], list[reading.Unread]]:
    now = Turn("t", unread, seconds)
    return offsets(now.records(log)), now.unread


def test_turns_read_each_record_once_and_come_to_an_end() -> None:
    log = Log([0, 1, 2, 5], end=8)  # the last ones are markers
    seen, unread = turn(log, None, seconds=0)
    log.end = 20  # what comes later is not read
    for _ in range(4):
        if unread:
            more, unread = turn(log, unread, seconds=0)
            seen += more
    assert (seen, unread) == ([0, 1, 2, 5], [])


def test_a_turn_that_kafka_ends_leaves_what_it_has_not_read() -> None:
    log = Log(range(10), end=10)
    log.silent_from = 4
    now = Turn("t", None, 60)
    with pytest.raises(KafkaTimeoutError):
        list(now.records(log))
    assert now.unread == [(0, 4, 10)]


def test_a_turn_reads_no_more_than_a_topic_that_was_made_again_has() -> None:
    assert turn(Log(range(5), end=5), [(0, 2, 100)]) == ([2, 3, 4], [])
    assert turn(Log(range(5), end=5), [(0, 50, 100), (7, 0, 10)]) == ([], [])


def test_a_letter_is_taken_from_the_first_source_that_has_it_alone() -> None:
    one, two = Letter("t", 0, 1, 5), Letter("t", 0, 2, 5)
    whole = Original(None, b"whole", [])
    asked = []

    def source(has: list[Letter]) -> Any:
        def find(wanted: list[Letter]) -> Iterator[tuple[Letter, Original]]:
            asked.append(wanted)
            return ((letter, whole) for letter in has if letter in wanted)

        return find

    found = [letter for letter, _ in letters.first_found([one, two], [source([one]), source([one, two]), source([])])]
    assert found == [one, two]
    assert asked == [[one, two], [two]]


def test_a_letter_of_a_partition_that_the_topic_has_no_more_is_not_looked_for() -> None:
    log = Log([], end=0)
    assert list(letters.from_log(log, "t", [Letter("t", 7, 1, 5)])) == []
    assert log.sought == []


def test_a_reader_sees_no_record_of_a_transaction_that_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_clients, "connect", lambda _client, _settings, **options: options)
    options: Any = reading.reader(Settings())
    assert (options["isolation_level"], options["enable_auto_commit"]) == ("read_committed", False)

"""What `kafka_cli.py rewind` makes of a wish: where it begins, and what happens where no bridge takes it up."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata, OffsetAndTimestamp

from clients import steering
from clients.terminal import CommandFailed
from redis_keys import REWIND, answer_field
from settings import Settings

PARTITIONS = [TopicPartition("text-messages", number) for number in range(3)]


class Log:
    """Three partitions that hold the offsets 10 to 99, the last of them nothing since the time that is asked for; and
    a group that has committed up to 50 in the first."""

    def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 10)

    def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 100)

    def offsets_for_times(self, times: dict[TopicPartition, int]) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        found = OffsetAndTimestamp(30, 0, -1)
        return {part: None if part.partition == 2 else found for part in times}


COMMITS = {0: OffsetAndMetadata(50, "the topic's id", 3), 2: OffsetAndMetadata(80, "", -1)}


@pytest.mark.parametrize(
    ("since", "offsets", "expected"),
    [
        (None, {}, {0: 10, 1: 10, 2: 10}),
        (None, {0: 20}, {0: 20}),
        (None, {0: 100, 2: 80}, {0: 50, 2: 80}),
        (None, {1: 60}, {1: 10}),
        (datetime.fromtimestamp(1, UTC), {}, {0: 30, 1: 10, 2: 80}),
    ],
    ids=["to the beginning", "to an offset", "behind the commit", "never committed", "to a time"],
)
def test_nothing_that_was_not_read_is_passed_over(
    since: datetime | None, offsets: dict[int, int], expected: dict[int, int]
) -> None:
    log: Any = Log()
    assert steering.earliest_of(log, PARTITIONS, COMMITS, since=since, offsets=offsets) == expected


@pytest.mark.parametrize("offsets", [{3: 20}, {0: 9}, {0: 101}])
def test_a_place_that_the_log_has_not_is_said(offsets: dict[int, int]) -> None:
    log: Any = Log()
    with pytest.raises(CommandFailed, match=r"there is no partition 3|partition 0 holds offsets 10 to 99, not"):
        steering.earliest_of(log, PARTITIONS, COMMITS, since=None, offsets=offsets)


def test_offsets_that_are_set_in_kafka_keep_the_id_of_their_topic() -> None:
    class Admin:
        def list_group_offsets(self, groups: dict[str, Any]) -> dict[str, Any]:
            return {group: {part: COMMITS[part.partition] for part in parts} for group, parts in groups.items()}

        def alter_group_offsets(self, _group: str, offsets: dict[TopicPartition, Any]) -> dict[TopicPartition, Any]:
            self.new = offsets
            return dict.fromkeys(offsets, NoError)

    admin: Any = Admin()
    steering.set_in_kafka(Settings(), admin, {0: 20})
    assert admin.new == {PARTITIONS[0]: OffsetAndMetadata(20, "the topic's id", -1)}


class NobodyAnswers:
    """A Redis in which no bridge takes up a wish."""

    def __init__(self) -> None:
        self.wishes: dict[str, str] = {}

    def hset(self, _key: str, name: str, value: str) -> None:
        self.wishes[name] = value

    def hgetall(self, _key: str) -> dict[str, str]:
        return dict(self.wishes)

    def hdel(self, _key: str, *names: str) -> None:
        for name in names:
            self.wishes.pop(name, None)

    def close(self) -> None:
        """Nothing to close."""


def test_the_offsets_are_set_in_kafka_once_the_session_of_a_stopped_bridge_has_run_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """That takes most of a minute, and is told."""
    listed = iter([True, True, True, False])
    broker, set_there = NobodyAnswers(), list[dict[int, int]]()
    monkeypatch.setattr(steering, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(steering, "connect", lambda _settings: broker)
    monkeypatch.setattr(steering, "is_running", lambda _settings, _admin: next(listed))
    monkeypatch.setattr(steering, "set_in_kafka", lambda _settings, _admin, offsets: set_there.append(offsets))
    steering.rewind(Settings(), None, {0: 5, 1: 7})
    assert set_there == [{0: 5, 1: 7}]
    assert broker.wishes == {}
    assert capsys.readouterr().err == f"{steering.WAITS}\n"


def test_a_wish_that_redis_has_lost_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Emptied(NobodyAnswers):
        """A Redis that is emptied once, and a bridge that then answers what it finds there."""

        looks = 0

        def hgetall(self, _key: str) -> dict[str, str]:
            self.looks += 1
            if self.looks == 1:
                self.wishes.clear()
            elif REWIND in self.wishes:
                wish = json.loads(self.wishes[REWIND])
                self.wishes |= {answer_field(wish["id"], int(part)): "" for part in wish["offsets"]}
            return dict(self.wishes)

    broker = Emptied()
    monkeypatch.setattr(steering, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(steering, "connect", lambda _settings: broker)
    monkeypatch.setattr(steering, "is_running", lambda _settings, _admin: True)
    steering.rewind(Settings(), None, {0: 5})
    assert (broker.looks, broker.wishes) == (2, {})

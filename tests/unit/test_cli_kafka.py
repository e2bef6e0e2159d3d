"""kafka_cli.py without a Kafka: what is sent for which input, to which partition, and how records are shown."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.errors import (
    IllegalStateError,
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from kafka.partitioner import murmur2 as library_murmur2

from clients import connect, consume, drain, kafka_commands, kafka_options, produce
from clients.partitioner import murmur2
from clients.produce import Line, NotJson, Sending, Unsent, key_in, records
from clients.terminal import CommandFailed, Unreachable, WrongUsage
from kafka_clients import REJOIN_POLL_MS
from redis_keys import PAUSED
from settings import Settings


@pytest.mark.parametrize(("command", "said"), [("pause", "intake pauses within"), ("resume", "intake goes on within")])
def test_what_bridges_see_within_a_second_is_not_told_as_done(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("clients.steering.pause", lambda settings, paused: "name")
    assert kafka_commands.pause(argparse.Namespace(command=command, json=False), Settings()) == 0
    assert capsys.readouterr().out.startswith(f"{said} a second")


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b'{"id":"test-123","text":"Hello from Kafka"}', b"test-123"),
        ('{"id":"größe"}'.encode(), "größe".encode()),
        (rb'{"id":"gr\u00f6\u00dfe"}', "größe".encode()),
        (b'{"id":""}', b""),
        (b'{"id":7}', None),
        (b'{"id":null}', None),
        (rb'{"id":"\ud800"}', None),
        (b'{"text":"x"}', None),
        (b'[{"id":"x"}]', None),
        (b'"x"', None),
        (b' {"n": 1e999999, "m": ' + b"9" * 5000 + b"} ", None),
    ],
)
def test_the_key_is_the_id_of_an_object_where_that_is_a_string(value: bytes, key: bytes | None) -> None:
    assert key_in(value) == key


@pytest.mark.parametrize(
    "value", [b"", b"not json", b"{", b'{"a":NaN}', b"\xff", b"[" * 100_000, b'\xef\xbb\xbf{"a":1}']
)
def test_what_is_no_json_is_not_sent(value: bytes) -> None:
    with pytest.raises(NotJson):
        key_in(value)


def test_a_line_is_a_record_and_a_wrong_one_keeps_its_number() -> None:
    lines = BytesIO(b'{"id":"a"}\n\noops\n{"id":"b"}\r\n{"id":"c"}')
    made = list(records(lines, raw=False, largest=100))
    assert [(line.number, line.key) for line in made] == [(1, b"a"), (3, None), (4, b"b"), (5, b"c")]
    assert made[1].wrong is not None
    assert made[2].value == b'{"id":"b"}\r'  # bytes unchanged


def test_raw_lines_go_as_they_are() -> None:
    made = list(records(BytesIO(b"\n\xff\nx"), raw=True, largest=100))
    assert made == [Line(1, b""), Line(2, b"\xff"), Line(3, b"x")]


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("raw", [True, False])
def test_of_a_line_that_is_too_large_no_more_is_held_than_a_record_has(raw: bool, end: bytes) -> None:
    for length in (11, 12, 21, 22, 23, 1000):
        lines = BytesIO(b'{"i":1234}\n' + b"7" * length + b"\n" + b"7" * 10 + end)
        made = list(records(lines, raw=raw, largest=10))
        assert [(line.number, line.wrong is None) for line in made] == [(1, True), (2, False), (3, True)]
        assert max(len(line.value) for line in made) == 11
        (last,) = records(BytesIO(b"7" * length + end), raw=raw, largest=10)
        assert last.wrong == made[1].wrong
        assert "larger than the topic takes, which is 10 bytes" in str(made[1].wrong)


@given(st.binary(max_size=300))
def test_a_key_goes_to_the_partition_of_every_other_client(key: bytes) -> None:
    assert murmur2(key) == library_murmur2(key) & 0xFFFFFFFF


class Future:
    """The future of a record: its offset once Kafka has it, or the error that came instead."""

    def __init__(self, outcome: object, *, done: bool) -> None:
        self.outcome = outcome
        self.is_done = done

    def get(self, timeout: float) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return SimpleNamespace(partition=0, offset=self.outcome)


class Producer:
    """Gives out the futures that it was made with, one a record; an error in their place is raised by `send`."""

    def __init__(self, *outcomes: object, done: bool = True) -> None:
        self.outcomes = list(outcomes)
        self.done = done
        self.config = {"max_request_size": 100}
        self._transaction_manager: object = None

    def send(self, topic: str, **record: object) -> Future:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, (MessageSizeTooLargeError, ValueError)):
            raise outcome
        return Future(outcome, done=self.done)


def test_acknowledged_and_refused_records_are_counted() -> None:
    sending = Sending(Producer(5, MessageSizeTooLargeError(), RecordListTooLargeError("no"), 9), "t")
    for number in range(1, 5):
        sending.send(number, b"k", b"v")
    sending.fail(7, "not JSON")
    sending.finish()
    assert (sending.acknowledged, sending.failed) == (2, 3)
    assert [unsent.number for unsent in sending.reasons] == [2, 3, 7]
    assert (sending.begins, sending.ends) == ({0: 5}, {0: 10})


def test_what_was_in_one_batch_with_a_refused_record_counts_as_not_sent() -> None:
    sending = Sending(Producer(InvalidRecordError("no key"), KafkaError("part of a batch with it"), 5), "t")
    for number in range(3):
        sending.send(number, None, b"v")
    sending.finish()
    assert (sending.acknowledged, [unsent.number for unsent in sending.reasons]) == (1, [0, 1])


def test_a_record_for_a_partition_that_is_there_no_more_keeps_no_other_from_being_sent() -> None:
    gone = ValueError("Unrecognized partition 7 for topic t")  # as kafka-python says it
    sending = Sending(Producer(5, gone, 6), "t")
    for number, partition in enumerate((0, 7, 0)):
        sending.send(number, b"k", b"v", partition=partition)
    sending.finish()
    assert (sending.acknowledged, sending.failed) == (2, 1)
    assert sending.reasons == [(1, str(gone))]


@pytest.mark.parametrize("error", [KafkaTimeoutError("gone"), IllegalStateError("the producer has ended")])
def test_an_outage_ends_the_sending(error: KafkaError) -> None:
    sending = Sending(Producer(1, error, done=False), "t")
    sending.send(1, None, b"v")
    sending.send(2, None, b"v")
    with pytest.raises(type(error)):
        sending.finish()
    assert sending.acknowledged == 1


def test_a_producer_that_has_failed_ends_the_sending() -> None:
    """Its records fail with the error of those beside a refused one."""
    producer = Producer(1, KafkaError("unknown reasons"), done=False)
    producer._transaction_manager = SimpleNamespace(has_fatal_error=lambda: True)
    sending = Sending(producer, "t")
    sending.send(1, None, b"v")
    sending.send(2, None, b"v")
    with pytest.raises(KafkaError):
        sending.finish()
    assert (sending.acknowledged, sending.failed) == (1, 0)


def test_ctrl_c_says_how_many_records_kafka_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def records(*_: object, **__: object) -> Iterator[Line]:
        yield Line(1, b"a")
        yield Line(2, b"b")
        sent[0].outcomes = [6]
        sent[0].done = False
        yield Line(3, b"c")
        raise KeyboardInterrupt

    @contextmanager
    def producer(*_: object, **__: object) -> Iterator[Producer]:
        yield sent[0]

    sent = [Producer(4, 5)]
    monkeypatch.setattr(produce, "records", records)
    monkeypatch.setattr(connect, "producer", producer)
    monkeypatch.setattr(kafka_commands, "length", lambda _: None)
    given = argparse.Namespace(key=None, raw=True, header=[], topic="t", json=False)
    with pytest.raises(KeyboardInterrupt):
        kafka_commands.produce_lines(given, Settings(), BytesIO(), connect.Limits(100, only_keyed=False))
    said = "kafka_cli.py: interrupted: Kafka has acknowledged 2 records; up to 1 more are on their way\n"
    assert capsys.readouterr().err == said


def test_a_record_that_is_waited_for_at_ctrl_c_is_on_its_way() -> None:
    sending = Sending(Producer(1, KeyboardInterrupt(), 3, done=False), "t")
    for number in range(3):
        sending.send(number, None, b"v")
    with pytest.raises(KeyboardInterrupt):
        sending.finish()
    sending.settle_done()
    assert (sending.acknowledged, len(sending.waiting), sending.waiting_bytes) == (1, 2, 2)


def test_only_so_many_records_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(produce, "IN_FLIGHT", 3)
    sending = Sending(Producer(*range(10), done=False), "t")
    for number in range(10):
        sending.send(number, None, b"v")
        assert len(sending.waiting) <= 3
    monkeypatch.setattr(produce, "IN_FLIGHT_BYTES", 2)
    sending.producer = Producer(10, done=False)
    sending.send(10, None, b"v")
    assert sending.waiting_bytes <= 2


def test_only_the_first_reasons_are_kept() -> None:
    sending = Sending(Producer(), "t")
    for number in range(100):
        sending.fail(number, "bad")
    assert (sending.failed, sending.reasons[:1], len(sending.reasons)) == (
        100,
        [Unsent(0, "bad")],
        produce.REASONS_KEPT,
    )


def test_a_record_is_shown_as_a_line_of_json() -> None:
    record = SimpleNamespace(
        topic="t",
        partition=1,
        offset=2,
        timestamp=3,
        key=b"\xff",
        value="größe\n".encode(),
        headers=[("h", None), ("h", b"v")],
    )
    line = consume.as_json(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "topic": "t",
        "partition": 1,
        "offset": 2,
        "timestamp": 3,
        "key": {"base64": "/w=="},
        "value": "größe\n",
        "headers": [["h", None], ["h", "v"]],
    }


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["produce", "text-messages", '{"id":"test-123","text":"Hello from Kafka"}'], {"key": None, "raw": False}),
        (["produce", "t", "{}", "--header", "a=b=c", "--header", "d="], {"header": [("a", b"b=c"), ("d", b"")]}),
        (["produce", "t", "-"], {"value": "-"}),
        (
            ["consume", "text-messages", "--max-messages", "10"],
            {"max_messages": 10, "from_beginning": True, "timeout": 5.0},
        ),
        (["consume", "t", "--no-from-beginning", "--timeout", "0"], {"from_beginning": False, "timeout": 0.0}),
        (["dead-letters", "list"], {"state": "open", "limit": 100}),
        (["dead-letters", "replay", "t:0:1", "t:0:2"], {"letters": ["t:0:1", "t:0:2"]}),
        (["dead-letters", "replay", "--reason", "rejected", "--json"], {"reason": "rejected", "letters": []}),
    ],
)
def test_command_lines(typed: list[str], expected: dict[str, object]) -> None:
    parsed = vars(kafka_options.parser().parse_args(typed))
    assert {name: parsed[name] for name in expected} == expected


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["produce"],
        ["produce", "t"],
        ["produce", "t", "{}", "--tombstone", "k"],
        ["produce", "bad topic", "{}"],
        ["produce", "t", "{}", "--header", "novalue"],
        ["consume", "t", "--max-messages", "0"],
        ["consume", "t", "--timeout", "-1"],
        ["consume", "t", "--timeout", "nan"],
        ["consume", "text-messages", "--group", "text-bridge"],
        ["dead-letters"],
        ["dead-letters", "drop"],
        ["dead-letters", "replay", "--all", "t:0:1"],
        ["dead-letters", "list", "--state", "lost"],
    ],
)
def test_wrong_usage_is_2(typed: list[str], defaults: None) -> None:
    assert kafka_commands.main(typed) == 2


def test_what_is_no_json_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CommandFailed, match="--raw sends it"):
        kafka_commands.key_in(b"not json")


def test_kafka_that_is_away_is_3_at_once(defaults: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    assert kafka_commands.main(["topics"]) == 3
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "./start.sh" in printed


@pytest.fixture
def defaults(monkeypatch: pytest.MonkeyPatch, nobodys_port: int) -> None:
    """The settings of a checkout without .env, but with a Kafka that is not there."""
    from settings import Settings

    monkeypatch.setattr("settings.load", lambda: Settings(kafka_port=nobodys_port))


@pytest.fixture
def nobodys_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize(
    "words",
    [
        ("rewind", "--to-offset", "\N{ARABIC-INDIC DIGIT ZERO}:\N{ARABIC-INDIC DIGIT TWO}"),
        ("consume", "texts", "--max-messages", "\N{ARABIC-INDIC DIGIT TWO}"),
        ("drain", "--timeout", "\N{ARABIC-INDIC DIGIT TWO}"),
        ("drain", "--timeout", "nan"),
    ],
)
def test_a_number_is_written_in_the_digits_0_to_9(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert kafka_commands.main(list(words)) == 2
    assert f"argument {words[-2]}: " in capsys.readouterr().err


@pytest.mark.parametrize("time", ["1960-01-01", "0001-01-01", "0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59+00:00"])
def test_a_time_before_1970_is_the_beginning(time: str) -> None:
    assert kafka_options.moment(time).timestamp() == 0


def test_a_time_is_the_one_that_was_typed() -> None:
    assert kafka_options.moment("2026-01-31T08:00:00+02:00").timestamp() == 1_769_839_200


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to-time", "9999-12-31T23:59:59-12:00"), "is no time"),
        (("--to-time", "yesterday"), "is no time"),
        (("--to-offset", "1:7", "--to-offset", "0:5", "--to-offset", "01:9"), "a partition is given twice"),
    ],
)
def test_a_place_that_cannot_be_meant_is_wrong_usage(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kafka_commands.main(["rewind", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def rewound(monkeypatch: pytest.MonkeyPatch) -> list[dict[int, int]]:
    """The places to which a topic of one partition with 7 records was rewound, nobody being there to ask."""
    part = TopicPartition("texts", 0)
    done: list[dict[int, int]] = []
    reader = SimpleNamespace(end_offsets=lambda partitions: {part: 7})
    monkeypatch.setattr("clients.connect.admin", lambda settings: nullcontext())
    monkeypatch.setattr("clients.connect.consumer", lambda settings: nullcontext(reader))
    monkeypatch.setattr("clients.connect.partitions", lambda admin, topic: [part])
    monkeypatch.setattr("clients.steering.committed", lambda *given: {})
    monkeypatch.setattr("clients.steering.earliest_of", lambda *given, **options: {0: 0})
    monkeypatch.setattr("clients.steering.rewind", lambda settings, admin, wished: done.append(wished))
    monkeypatch.setattr("sys.stdin", None)
    return done


@pytest.mark.parametrize(("words", "code"), [((), 2), (("--yes",), 0), (("--json",), 0), (("--json", "--yes"), 0)])
def test_without_a_terminal_a_rewind_wants_yes(
    rewound: list[dict[int, int]], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int
) -> None:
    assert kafka_commands.main(["rewind", "--to-beginning", *words]) == code
    assert rewound == ([] if code else [{0: 0}])
    assert ("this reads 7 records" in capsys.readouterr().err) == bool(code)


STAYS_PAUSED = "the intake stays paused: `python kafka_cli.py resume` lets it go on\n"


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        (drain.Left(0, 0, 0, 0), 0, STAYS_PAUSED),
        (drain.Left(1, 0, 0, 0), 1, STAYS_PAUSED),
        (Unreachable("nobody answers"), 3, STAYS_PAUSED),
        (drain.Resumed("it was resumed"), 1, ""),
    ],
)
def test_every_ending_of_a_drain_says_that_the_intake_stays_paused(
    ending: drain.Left | CommandFailed,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def wait(*given: object) -> drain.Left:
        if isinstance(ending, CommandFailed):
            raise ending
        return ending

    monkeypatch.setattr("clients.steering.pause", lambda settings, paused: "name")
    monkeypatch.setattr("clients.connect.admin", lambda settings: nullcontext())
    monkeypatch.setattr(drain, "wait", wait)
    for words in (["drain", "--timeout", "1"], ["drain", "--timeout", "1", "--json"]):
        assert kafka_commands.main(words) == code
        told = capsys.readouterr().err
        assert told.startswith(said)
        assert told.count("stays paused") == bool(said)


def test_a_task_between_its_queue_and_its_worker_is_not_taken_for_done(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([(0, 1), (0, 0), (1, 0), (0, 0), (0, 0)])
    monkeypatch.setattr(drain, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr("clients.database.connect", lambda settings: nullcontext())
    monkeypatch.setattr("clients.steering.connect", lambda settings: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr("clients.connect.partitions", lambda admin, topic: [])
    monkeypatch.setattr("db.queries.under_way", lambda connection: {"pending": 0, "failed": 0})
    monkeypatch.setattr(drain, "in_hand", lambda *given: next(looks))
    admin: Any = SimpleNamespace()
    assert drain.wait(Settings(), admin, "name", None).nothing
    assert list(looks) == []


def test_a_drain_pauses_again_in_a_redis_that_was_emptied() -> None:
    wishes: dict[str, str] = {}
    client: Any = SimpleNamespace(
        hsetnx=lambda _key, name, value: wishes.setdefault(name, value), hgetall=lambda _key: wishes, llen=lambda _: 0
    )
    admin: Any = SimpleNamespace()
    assert drain.in_hand(Settings(), admin, client, [], "name") == (0, 0)
    assert wishes == {PAUSED: "name"}
    with pytest.raises(drain.Resumed):
        drain.in_hand(Settings(), admin, client, [], "another")


@pytest.mark.parametrize("mark", ["\x9b", "\u2028", "\u202e", "\u200f"])
def test_a_record_is_shown_without_what_a_terminal_obeys(mark: str) -> None:
    record = SimpleNamespace(
        topic="texts", partition=0, offset=0, timestamp=0, key=None, value=f"größer{mark}".encode(), headers=[]
    )
    shown = consume.as_json(record)
    assert mark not in shown
    assert json.loads(shown)["value"] == f"größer{mark}"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("produce t {} --key a", ("t", "{}", "a")),
        ("produce t --key a {}", ("t", "{}", "a")),
        ("produce --key a t {}", ("t", "{}", "a")),
        ("produce t --raw -", ("t", "-", None)),
        ("produce t --key a -- -5", ("t", "-5", "a")),
        ("produce t --tombstone a --json", ("t", None, None)),
    ],
)
def test_options_stand_anywhere(words: str, found: tuple[str | None, ...]) -> None:
    given = kafka_options.parser().parse_args(words.split())
    assert (given.topic, given.value, given.key) == found


@pytest.mark.parametrize("words", ["t:0:1 t:0:2 --yes", "t:0:1 --yes t:0:2", "--yes t:0:1 t:0:2"])
def test_options_stand_anywhere_among_dead_letters(words: str) -> None:
    given = kafka_options.parser().parse_args(["dead-letters", "drop", *words.split()])
    assert (given.letters, given.yes) == (["t:0:1", "t:0:2"], True)
    kafka_options.check_choice(given)


@pytest.mark.parametrize("words", ["--all t:0:1", "--reason x t:0:1", "t:0:1 --reason x"])
def test_dead_letters_are_chosen_in_one_way(words: str) -> None:
    for action in ("replay", "drop"):
        given = kafka_options.parser().parse_args(["dead-letters", action, *words.split()])
        with pytest.raises(WrongUsage, match="which dead letters"):
            kafka_options.check_choice(given)


def test_a_replay_of_none_is_of_all_and_a_drop_of_none_is_refused() -> None:
    replay, drop = (kafka_options.parser().parse_args(["dead-letters", action]) for action in ("replay", "drop"))
    kafka_options.check_choice(replay)
    assert replay.all
    with pytest.raises(WrongUsage, match="which dead letters"):
        kafka_options.check_choice(drop)


def test_a_tombstone_of_nobody_is_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    assert kafka_commands.main(["produce", "t", "--tombstone", ""]) == 2
    assert "nobody's id" in capsys.readouterr().err


def test_a_member_of_a_group_is_polled_with_patience_during_a_rebalance() -> None:
    """kafka-python would leave the join half done, and the member without partitions."""
    polls: list[int] = []

    def poll(timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        polls.append(timeout_ms)
        return {}

    consumer = SimpleNamespace(
        _coordinator=SimpleNamespace(rejoining=False, need_rejoin=lambda: True),
        subscribe=lambda topics: None,
        assignment=lambda: {TopicPartition("t", 0)} if polls else set(),
        poll=poll,
        end_offsets=lambda partitions: {},
        commit=lambda timeout_ms: None,
    )
    assert list(consume.follow_as_group(consumer, "t", limit=None, patience=0)) == []
    assert polls == [REJOIN_POLL_MS] * 2

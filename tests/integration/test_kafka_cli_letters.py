"""`kafka_cli.py dead-letters` show and drop: what a person sees of a letter, and that nothing is dropped by mistake."""

import base64
import json
import os
import pty
import subprocess
from collections.abc import Callable
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from sqlalchemy import Engine, text

from settings import Settings
from tests.integration.test_kafka_cli import DEAD_LETTER
from tests.kafka_cli import COMMAND, Cli
from tests.parts import Running

NASTY = b'\x1b]0;owned\x07{"id":"x"\nstate: dropped\r\xe2\x80\xae\xff'


def note(engine: Engine, topic: str, offset: int, value: bytes | None = b"v", **changes: Any) -> str:
    row = {"topic": topic, "partition": 0, "offset": offset, "timestamp": 5, "key": b"k", "value": value}
    row |= {"bytes": None if value is None else len(value), "headers": "[]", **changes}
    with engine.begin() as connection:
        connection.execute(DEAD_LETTER, row)
    return f"{topic}:{row['partition']}:{offset}"


def give_reason(engine: Engine, offset: int, reason: str) -> None:
    with engine.begin() as connection:
        connection.execute(text('UPDATE dead_letters SET reason = :r WHERE "offset" = :o'), {"r": reason, "o": offset})


def states(engine: Engine) -> dict[int, str]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(text('SELECT "offset", state FROM dead_letters'))}


def test_a_letter_is_shown_whole_and_cannot_command_the_terminal(cli: Cli, database: Engine) -> None:
    header = ["trace\x1b[2J", base64.b64encode(b"00-\nreason: none\x9b").decode()]
    name = note(database, cli.topic, 7, NASTY, key=b"\x1bk\nstate: dropped", headers=json.dumps([header]))
    shown = cli("dead-letters", "show", name)
    assert not set(shown) - {"\n"} & {chr(code) for code in [*range(32), *range(127, 160), 0x202E]}
    lines = shown.splitlines()
    assert "state: open" in lines
    assert "key: \\x1bk\\nstate: dropped" in lines
    assert "header trace\\x1b[2J: 00-\\nreason: none\\x9b" in lines
    assert lines[-2:] == ['    \\x1b]0;owned\\x07{"id":"x"', "    state: dropped\\r\\u202e\\xff"]


def test_a_letter_is_shown_to_machines_to_the_byte(cli: Cli, database: Engine) -> None:
    name = note(database, cli.topic, 7, NASTY, headers=json.dumps([["h", base64.b64encode(b"\xff").decode()]]))
    told = json.loads(cli("dead-letters", "show", name, "--json"))
    assert base64.b64decode(told["value"]["base64"]) == NASTY
    assert (told["key"], told["headers"], told["complete"]) == ("k", [["h", {"base64": "/w=="}]], True)
    assert (told["state"], told["reason"], told["value_bytes"]) == ("open", "rejected", len(NASTY))


def test_what_the_table_has_cut_comes_from_the_log(cli: Cli, settings: Settings, database: Engine) -> None:
    large = b"x" * 100_000
    with KafkaProducer(**settings.kafka_client()) as producer:
        at = producer.send(cli.topic, large, key=b"k", partition=0).get(timeout=10)
    name = note(database, cli.topic, at.offset, large[:65_536], bytes=len(large), timestamp=at.timestamp)
    told = json.loads(cli("dead-letters", "show", name, "--json"))
    assert (len(told["value"]), told["complete"]) == (100_000, True)

    admin = KafkaAdminClient(**settings.kafka_client())
    admin.delete_records({TopicPartition(cli.topic, 0): at.offset + 1})
    admin.close()
    told = json.loads(cli("dead-letters", "show", name, "--json", code=1))
    assert (len(told["value"]), told["complete"]) == (65_536, False)
    assert "this is what the table kept of it" in cli.said


def test_what_is_no_letter_is_said(cli: Cli, database: Engine) -> None:
    cli("dead-letters", "show", f"{cli.topic}:0:1", code=1)
    assert "there is no dead letter" in cli.said
    cli("dead-letters", "show", "nonsense", code=2)
    cli("dead-letters", "drop", code=2)
    assert "drop" in cli("dead-letters", "--help")


def test_the_list_can_be_of_one_reason(cli: Cli, database: Engine) -> None:
    for offset in (1, 2):
        note(database, cli.topic, offset)
    give_reason(database, 2, "invalid-json")
    (told,) = json.loads(cli("dead-letters", "list", "--reason", "invalid-json", "--json"))
    assert told["offset"] == 2
    assert cli("dead-letters", "list", "--reason", "invalid-id") == ""
    assert "no open dead letters with the reason invalid-id" in cli.said


def test_a_replay_of_nothing_is_told_to_machines_too(cli: Cli, database: Engine) -> None:
    assert json.loads(cli("dead-letters", "replay", "--all", "--json")) == {"sent": 0, "failed": 0}
    refused = cli("dead-letters", "replay", f"{cli.topic}:0:99", "--json", code=1)
    assert json.loads(refused) == {"sent": 0, "failed": 1}


def test_letters_are_dropped_by_a_worker_and_only_those(
    cli: Cli, database: Engine, start: Callable[..., Running]
) -> None:
    names = [note(database, cli.topic, offset) for offset in range(5)]
    give_reason(database, 3, "invalid-json")
    give_reason(database, 4, "invalid-json")
    start("persist-worker")
    told = json.loads(cli("dead-letters", "drop", names[0], names[0], f"{cli.topic}:0:99", "--yes", "--json", code=1))
    assert told == {"dropped": 1, "failed": 1}
    assert "99: there is no such dead letter" in cli.said
    assert states(database) == {0: "dropped", 1: "open", 2: "open", 3: "open", 4: "open"}
    cli("dead-letters", "drop", names[0], "--yes", code=1)
    assert "it is dropped already" in cli.said
    assert cli("dead-letters", "drop", "--reason", "invalid-json", "--yes") == "dropped 2 dead letters\n"
    assert states(database) == {0: "dropped", 1: "open", 2: "open", 3: "dropped", 4: "dropped"}
    assert json.loads(cli("dead-letters", "drop", "--all", "--yes", "--json")) == {"dropped": 2, "failed": 0}
    assert set(states(database).values()) == {"dropped"}
    assert cli("dead-letters", "drop", "--all", "--yes") == ""
    assert "no open dead letters" in cli.said


def test_nothing_is_dropped_unasked(cli: Cli, database: Engine, start: Callable[..., Running]) -> None:
    name = note(database, cli.topic, 1)
    start("persist-worker")
    cli("dead-letters", "drop", name, given=b"y\n", code=2)
    assert "--yes" in cli.said
    assert answered(cli, name, b"n\n") == 1
    assert answered(cli, name, b"\x04") == 1  # the end of the input
    assert states(database) == {1: "open"}
    assert answered(cli, name, b"y\n") == 0
    assert states(database) == {1: "dropped"}


def answered(cli: Cli, name: str, answer: bytes) -> int:
    """Runs the drop on a terminal of its own, where somebody types this; returns its exit code."""
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [*COMMAND, "dead-letters", "drop", name],
            env=cli.environment,
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.write(ours, answer)
        return process.wait(60)
    finally:
        os.close(ours)
        os.close(theirs)


def test_with_redis_away_the_command_says_so(cli: Cli, database: Engine) -> None:
    name = note(database, cli.topic, 1)
    cli.environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
    cli("dead-letters", "drop", name, "--yes", code=3)
    assert "127.0.0.1:1/0 does not answer" in cli.said
    assert states(database) == {1: "open"}

"""kafka_cli.py on a real Kafka: what was sent comes back to the byte, a stream survives its bad lines, and dead letters
get their second try from wherever their bytes still are."""

import base64
import contextlib
import json
import subprocess
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from sqlalchemy import Engine, text

from settings import Settings
from tests.kafka_cli import COMMAND, Cli
from tests.parts import eventually

DEAD_LETTER = text("""
    INSERT INTO dead_letters (topic, partition, "offset", timestamp, reason, detail, key, value, value_bytes, headers)
    VALUES (:topic, :partition, :offset, :timestamp, 'rejected', 'why', :key, :value, :bytes, CAST(:headers AS jsonb))
""")


def test_a_record_goes_as_it_was_typed_under_its_id(cli: Cli) -> None:
    value = '{"id":"test-123", "text":"Hello from Kafka",  "n":1.00}'
    assert cli("produce", cli.topic, value, "--header", "from=test").startswith(f"{cli.topic}: partition ")
    cli("produce", cli.topic, "--tombstone", "test-123")
    first, second = cli.records()
    assert (first["key"], first["value"], first["headers"]) == ("test-123", value, [["from", "test"]])
    assert (second["key"], second["value"]) == ("test-123", None)
    assert first["partition"] == second["partition"]
    assert (cli.records(), cli("consume", cli.topic, "--max-messages", "1", "--value-only")) == (
        [first, second],
        value + "\n",
    )


def test_a_stream_survives_its_bad_lines(cli: Cli) -> None:
    large = b'{"id":"large","text":"' + b"x" * 2_000_000 + b'"}'
    lines = [b'{"id":"a","text":"1"}', b"", b"not json", large, *(b'{"text":"%d"}' % number for number in range(3000))]
    told = json.loads(cli("produce", cli.topic, "-", "--json", given=b"\n".join(lines), code=1))
    assert (told["sent"], told["failed"]) == (3001, 2)
    assert "line 3: not JSON" in cli.said
    assert "line 4: larger than the topic takes" in cli.said
    assert len(cli.records()) == 3001
    (listed,) = [found for found in json.loads(cli("topics", "--json")) if found["topic"] == cli.topic]
    assert (listed["partitions"], listed["records"]) == (4, 3001)


def test_a_topic_that_is_compacted_gets_all_records_that_have_a_key(cli: Cli, settings: Settings) -> None:
    """Kafka refuses the others, and whatever is in one batch with them."""
    with contextlib.closing(KafkaAdminClient(**settings.kafka_client())) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, cli.topic, {"cleanup.policy": "compact"})])
    lines = [b'{"id":"%d","text":"1"}' % number if number % 10 else b'{"text":"no id"}' for number in range(100)]
    told = json.loads(cli("produce", cli.topic, "-", "--json", given=b"\n".join(lines), code=1))
    assert (told["sent"], told["failed"]) == (90, 10)
    assert f"line 1: has no key, which {cli.topic} needs" in cli.said
    assert len(cli.records()) == 90


def test_a_group_of_its_own_goes_on_where_it_was(cli: Cli, settings: Settings) -> None:
    cli("produce", cli.topic, "-", "--raw", given=b"\n".join(b"%d" % number for number in range(50)))
    group = [cli.topic, "--group", f"readers-of-{cli.topic}", "--timeout", "0"]
    taken = [cli("consume", *group, "--max-messages", "20"), cli("consume", *group), cli("consume", *group)]
    assert [part.count("\n") for part in taken] == [20, 30, 0]
    told = json.loads(cli("lag", "--group", group[2], "--json"))
    assert (told["total"], sum(row["committed"] for row in told["partitions"])) == (0, 50)
    assert (
        json.loads(cli("lag", "--json"))["total"] == 50
    )  # the bridge has taken nothing, and nothing was taken from it
    assert settings.kafka_group_id in cli("lag")


def test_the_members_of_a_group_share_what_comes(cli: Cli, settings: Settings) -> None:
    def send(numbers: range) -> None:
        cli("produce", cli.topic, "-", given=b"\n".join(b'{"id":"%d"}' % number for number in numbers))

    def are_two() -> bool:
        found = admin.describe_groups([group])[group]
        return found["group_state"] == "Stable" and len(found["members"]) == 2

    group = f"readers-of-{cli.topic}"
    command = [*COMMAND, "consume", cli.topic, "--group", group, "--value-only", "--timeout", "20"]
    send(range(50))
    admin = KafkaAdminClient(**settings.kafka_client())
    with subprocess.Popen(command, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdout is not None
        seen = [first.stdout.readline() for _ in range(50)]
        with subprocess.Popen(command, env=cli.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as second:
            eventually(are_two)
            send(range(50, 100))
            ended = [first.communicate(timeout=60), second.communicate(timeout=60)]
    admin.close()
    assert [(first.returncode, second.returncode), *(said for _, said in ended)] == [(0, 0), b"", b""]
    shares = [out.splitlines(keepends=True) for out, _ in ended]
    assert all(shares)
    assert sorted(json.loads(value)["id"] for value in [*seen, *shares[0], *shares[1]]) == sorted(map(str, range(100)))
    # What they committed is in a topic of Kafka's own.
    assert cli("consume", "__consumer_offsets", "--max-messages", "1", "--timeout", "0").count("\n") == 1
    cli("consume", "__consumer_offsets", "--group", group, "--max-messages", "1", "--timeout", "0", code=2)
    assert cli.said.startswith("kafka_cli.py: Kafka's own topics are read without --group: ")
    cli("produce", "__consumer_offsets", "{}", code=1)
    assert cli.said == "kafka_cli.py: __consumer_offsets is Kafka's own, and takes no records of others\n"


def test_dead_letters_are_sent_again_from_wherever_they_still_are(
    cli: Cli, settings: Settings, database: Engine
) -> None:
    large = b"x" * 100_000
    with KafkaProducer(**settings.kafka_client()) as producer:

        def dead(key: bytes | None, value: bytes | None, *, partition: int, kept: int = 65_536) -> Any:
            headers = [("trace", b"1")]
            at = producer.send(cli.topic, value, key=key, headers=headers, partition=partition).get(timeout=10)
            with database.begin() as connection:
                connection.execute(
                    DEAD_LETTER,
                    {
                        **{name: getattr(at, name) for name in ("topic", "partition", "offset", "timestamp")},
                        "key": key,
                        "value": value and value[:kept],
                        "bytes": None if value is None else len(value),
                        "headers": json.dumps([["trace", base64.b64encode(b"1").decode()]]),
                    },
                )
            return at

        in_log = dead(b"\xff", b"\xff{", partition=0)
        in_table = dead(b"k", b"small", partition=3)
        in_copies = dead(b"k", large, partition=3)
        lost = dead(b"k", large, partition=3)
        headers = [
            ("trace", b"1"),
            ("dead-letter-reason", b"rejected"),
            *(
                (f"dead-letter-{name}", str(getattr(in_copies, name)).encode())
                for name in ("topic", "partition", "offset", "timestamp")
            ),
        ]
        producer.send(settings.dead_letter_topic, large, key=b"k", headers=headers).get(timeout=10)
    admin = KafkaAdminClient(**settings.kafka_client())
    admin.delete_records({TopicPartition(cli.topic, 3): lost.offset + 1})
    admin.close()

    assert len(json.loads(cli("dead-letters", "list", "--json"))) == 4
    told = json.loads(cli("dead-letters", "replay", "--all", "--json", code=1))
    assert told == {"sent": 3, "failed": 1}
    assert f"{cli.topic}:3:{lost.offset}: nothing has it whole any more" in cli.said
    again = {
        tuple(value for name, value in record["headers"] if name != "trace"): record
        for record in cli.records()
        if len(record["headers"]) == 5
    }
    for first, value in ((in_log, {"base64": "/3s="}), (in_table, "small"), (in_copies, large.decode())):
        record = again[(cli.topic, str(first.partition), str(first.offset), str(first.timestamp))]
        assert (record["partition"], record["value"], record["headers"][0]) == (first.partition, value, ["trace", "1"])


def test_only_open_dead_letters_that_exist_are_sent(cli: Cli, database: Engine) -> None:
    with database.begin() as connection:
        row = {
            "topic": cli.topic,
            "partition": 0,
            "offset": 7,
            "timestamp": 1,
            "key": None,
            "value": None,
            "bytes": None,
        }
        connection.execute(DEAD_LETTER, {**row, "headers": "[]"})
        connection.execute(text("UPDATE dead_letters SET state = 'dropped'"))
    cli("dead-letters", "replay", f"{cli.topic}:0:7", f"{cli.topic}:0:8", code=1)
    assert "it is dropped already" in cli.said
    assert "there is no such dead letter" in cli.said
    assert cli("dead-letters", "replay", "--all", "--yes") == ""
    assert cli("dead-letters", "list", "--state", "dropped").startswith(f"{cli.topic}:0:7\tdropped\trejected")


def test_errors_are_one_line(cli: Cli) -> None:
    for arguments, code in (
        (["produce", "no-such-topic", "{}"], 1),
        (["produce", cli.topic, "not json"], 1),
        (["consume", "no-such-topic"], 1),
        (["lag", "--group", "nobody"], 1),
    ):
        cli(*arguments, code=code)
        assert cli.said.count("\n") == 1

"""The end of a run: what the database and the dead letters hold against what the log implies. Says every difference.

Each check returns lines; none means that all is as it has to be.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import psycopg2
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from embedder.hashing import HashingEmbedder
from tests.chaos import log_reader, oracle
from tests.chaos.oracle import Bad, Expected
from tests.chaos.system import System
from tests.chaos.workload import Outgoing

SHOWN = 5
# What the table and the topic may cut; see the contract on dead letters.
NOTED_BYTES = 65_536
TOPIC_BYTES = 990_000
# They depend on how records fell into batches where a message was deleted and came back, or is written by both forms of
# its id. Such differences are counted and told, and promised by nobody.
LOOSE = ("source_id", "created_at")
# Half floats have 11 bits.
VECTOR_TOLERANCE = 1e-3


def unsettled(system: System, *, clean_up: bool) -> str:
    """What is still under way; "" when nothing is. Without `clean_up` the second looks after deletions may wait."""
    try:
        behind = log_reader.lag(system.settings)
        due = "" if clean_up else "WHERE NOT deleted"
        jobs = system.ask(f"SELECT count(*), coalesce(max(attempts), 0) FROM embedding_jobs {due}")[0]
    except (KafkaError, OSError, psycopg2.Error) as error:
        return f"{type(error).__name__}: {error}"
    said = [f"{behind} records not committed"] if behind else []
    if jobs[0]:
        said.append(f"{jobs[0]} embedding jobs left (most attempts: {jobs[1]})")
    return ", ".join(said)


def differences(
    system: System, sent: Iterable[Outgoing], accepted: dict[str, str], loose: list[str]
) -> tuple[list[str], Expected]:
    """Everything that is not as the log implies, and what it implies. Differences in LOOSE columns go into `loose`."""
    log = log_reader.read_log(system.settings)
    expected = oracle.expected(log)
    found = [
        *all_sent(log, sent),
        *rows(system, expected, loose),
        *vectors(system, expected),
        *letters_table(system, expected),
        *letters_topic(system, expected),
        *all_accepted(system, accepted),
        *nothing_left(system),
    ]
    return found, expected


def told(title: str, lines: Sequence[str]) -> list[str]:
    """The first few of many lines."""
    if not lines:
        return []
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [f"{title} ({len(lines)}): " + "; ".join([*lines[:SHOWN], *more])]


def all_sent(log: Sequence[ConsumerRecord], sent: Iterable[Outgoing]) -> list[str]:
    """The run itself has to have done what it says: each record sent is in the log."""
    present = {(record.key, record.value) for record in log}
    missing = [repr(record.key) for record in sent if (record.key, record.value) not in present]
    return told("acknowledged by Kafka and not in the log, by key", missing)


def rows(system: System, expected: Expected, loose: list[str]) -> list[str]:
    """The rows as the log implies them. Differences in LOOSE columns go into `loose`."""
    stored = {
        row[0]: row
        for row in system.ask("""
            SELECT id::text, message, source_id, metadata, (extract(epoch FROM created_at) * 1000)::bigint,
                version_timestamp, version_partition, version_offset FROM text_messages
        """)
    }
    lost: list[str] = []
    wrong: list[str] = []
    for message_id, text in expected.rows.items():
        row = stored.get(message_id)
        where = f"{message_id} ({text.source_id}), version {text.version}"
        if row is None:
            lost.append(where)
            continue
        pairs = {
            "message": (text.message, row[1]),
            "source_id": (text.source_id, row[2]),
            "metadata": (text.metadata, row[3]),
            "created_at": (text.created, row[4]),
            "version": (text.version, tuple(row[5:])),
        }
        for name, (want, have) in pairs.items():
            if want != have:
                line = f"{name} of {where}: expected {shortened(want)}, found {shortened(have)}"
                (loose if name in LOOSE else wrong).append(line)
    extra = [
        f"{message_id}: {shortened(row[1])}, version {tuple(row[5:])}, deleted: {expected.deletions.get(message_id)}"
        for message_id, row in stored.items()
        if message_id not in expected.rows
    ]
    return [
        *told("messages lost", lost),
        *told("messages that should not be there", extra),
        *told("messages that differ", wrong),
    ]


def shortened(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 80 else said[:77] + "..."


def vectors(system: System, expected: Expected) -> list[str]:
    """Each passage of each current text has one vector, the right one, and there is no other vector.

    One of a deleted message may stay, unseen by any search, until the second look that is queued for it.
    """
    embedder = HashingEmbedder()
    to_be_cleaned = {row[0] for row in system.ask("SELECT unnest(message_ids)::text FROM embedding_jobs WHERE deleted")}
    wanted: dict[tuple[str, int], tuple[str, int, int]] = {}
    for message_id, text in expected.rows.items():
        for number, (start, end) in enumerate(embedder.passages(text.message)):
            wanted[message_id, number] = (text.message, start, end)
    found: dict[tuple[str, int], tuple[int, int, str, np.ndarray]] = {}
    wrong: list[str] = []
    for message_id, number, start, end, content, model, vector in system.ask("""
        SELECT message_id::text, passage_number, passage_start, passage_end, content_hash::text, model,
            halfvec_send(embedding) FROM message_embeddings
    """):
        if model != embedder.model or (message_id, number) in found:
            wrong.append(f"{message_id} passage {number}: a second vector, or of the model {model}")
        # pgvector's wire form: dimensions, an unused field, then half floats.
        found[message_id, number] = (start, end, content, np.frombuffer(vector, dtype=">f2", offset=4))
    places = list(wanted)
    right = embedder.embed([message[start:end] for message, start, end in wanted.values()]) if wanted else ()
    missing = []
    for place, expected_vector in zip(places, right, strict=True):
        message, start, end = wanted[place]
        have = found.pop(place, None)
        if have is None:
            missing.append(f"{place[0]} passage {place[1]}")
        elif have[:2] != (start, end) or have[2].replace("-", "") != hashlib.md5(message.encode()).hexdigest():
            wrong.append(f"{place[0]} passage {place[1]}: the vector of another text")
        elif np.abs(have[3].astype(np.float32) - expected_vector).max() > VECTOR_TOLERANCE:
            wrong.append(f"{place[0]} passage {place[1]}: not the vector of its text")
    orphans = [f"{place[0]} passage {place[1]}" for place in found if place[0] not in to_be_cleaned]
    return [
        *told("passages without a vector", missing),
        *told("wrong vectors", wrong),
        *told("vectors of no message", orphans),
    ]


def letters_table(system: System, expected: Expected) -> list[str]:
    topic = system.settings.kafka_topic
    found = {
        (row[0], row[1], row[2]): row[3:]
        for row in system.ask("""
            SELECT topic, partition, "offset", reason, key, value, value_bytes, state FROM dead_letters
        """)
    }
    lines = []
    for (partition, offset), bad in expected.bad.items():
        row = found.pop((topic, partition, offset), None)
        where = f"{topic}/{partition} offset {offset}, key {bad.record.key!r}"
        if row is None:
            lines.append(f"{where}: missing, expected {bad.reason}")
            continue
        value = bad.record.value
        have = (row[0], as_bytes(row[1]), as_bytes(row[2]), row[3], row[4])
        want = (
            bad.reason,
            bad.record.key,
            value[:NOTED_BYTES] if value is not None else None,
            len(value) if value is not None else None,
            "open",
        )
        if have != want:
            lines.append(f"{where}: expected {shortened(want)}, found {shortened(have)}")
    lines += [f"{place} is no bad record: {row[0]}" for place, row in found.items()]
    return told("dead letters in the table", lines)


def as_bytes(value: memoryview | None) -> bytes | None:
    return None if value is None else bytes(value)


def letters_topic(system: System, expected: Expected) -> list[str]:
    """At least one copy of each bad record with its bytes unchanged, and nothing else."""
    lines = []
    missing = dict(expected.bad)
    for letter in log_reader.read_log(system.settings, system.settings.dead_letter_topic):
        about = {name: value for name, value in letter.headers if name.startswith("dead-letter-")}
        place = (int(about["dead-letter-partition"]), int(about["dead-letter-offset"]))
        bad = expected.bad.get(place)
        if bad is None:
            lines.append(f"{place} is no bad record")
            continue
        missing.pop(place, None)
        lines += [f"{place}: {problem}" for problem in letter_problems(letter, about, bad)]
    lines += [f"{place}: missing, expected {bad.reason}" for place, bad in missing.items()]
    return told("dead letters in the topic", lines)


def letter_problems(letter: ConsumerRecord, about: dict[str, bytes], bad: Bad) -> list[str]:
    own = [header for header in letter.headers if not header[0].startswith("dead-letter-")]
    cut = "dead-letter-cut" in about
    same_value = letter.value == bad.record.value or (
        cut and len(bad.record.value or b"") > TOPIC_BYTES and (bad.record.value or b"").startswith(letter.value or b"")
    )
    checks = {
        f"reason {about['dead-letter-reason']!r} instead of {bad.reason}": about["dead-letter-reason"].decode()
        == bad.reason,
        "another key": letter.key == bad.record.key,
        "other bytes": same_value,
        "other headers": own == list(bad.record.headers),
        "another timestamp": int(about["dead-letter-timestamp"]) == bad.record.timestamp,
        "another topic": about["dead-letter-topic"].decode() == bad.record.topic,
    }
    return [problem for problem, holds in checks.items() if not holds]


def all_accepted(system: System, accepted: dict[str, str]) -> list[str]:
    """What a POST has confirmed is there, once (its id is the primary key), with its text."""
    stored = dict(system.ask("SELECT id::text, message FROM text_messages"))
    wrong = [given for given, text in accepted.items() if stored.get(oracle.identity(given)[0]) != text]
    return told("accepted by POST and not stored", wrong)


def nothing_left(system: System) -> list[str]:
    lines = []
    behind = log_reader.lag(system.settings)
    if behind:
        lines.append(f"{behind} records are not committed")
    failures = system.ask("SELECT message_id::text, reason FROM embedding_failures")
    lines += told("embeddings marked as failed", [f"{row[0]}: {row[1]}" for row in failures])
    return lines


def copies_in_topic(system: System) -> int:
    """How many letters the dead-letter topic holds."""
    with log_reader.asking(system.settings) as admin, contextlib.suppress(KafkaError):
        return sum(log_reader.ends(system.settings, admin, system.settings.dead_letter_topic).values())
    return 0

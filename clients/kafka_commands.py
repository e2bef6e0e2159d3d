"""The commands of kafka_cli.py: what they do with what was typed, and what they print."""

import argparse
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping
from typing import BinaryIO

from kafka.errors import KafkaError

import settings as configuration
from clients import connect, consume, json_form, kafka_options, produce, steering, topics
from clients.progress import reading
from clients.terminal import (
    CommandFailed,
    WrongUsage,
    confirm,
    on_terminal,
    one_line,
    run,
    say,
    standard_input,
    table,
)
from settings import Settings

# A broker may restart while a stream is sent; a single record is not waited for so long.
STREAM_PATIENCE_MS = 30_000
PAUSED = "the intake is paused: `python kafka_cli.py resume` takes it up again"
PAUSES = "intake pauses within a second; `python kafka_cli.py drain` waits for it, and until all that was read is done"
SHOW_EVERY = 1_000  # records between two moves of the bar


Command = Callable[[argparse.Namespace, Settings], int]


def main(arguments: list[str]) -> int:
    return run("kafka_cli.py", lambda: dispatch(kafka_options.parser().parse_args(arguments)))


def dispatch(given: argparse.Namespace) -> int:
    return COMMANDS[given.command](given, configuration.load())


def produce_records(given: argparse.Namespace, settings: Settings) -> int:
    if (given.value is None) == (given.tombstone is None):
        raise WrongUsage("give a JSON value, - for standard input, or --tombstone KEY")
    if given.tombstone == "" and not given.raw:
        raise WrongUsage("--tombstone: a key of no characters is nobody's id; --raw sends it all the same")
    lines = standard_input() if given.value == "-" else None
    with connect.admin(settings) as admin:
        connect.partitions(admin, given.topic)
        limits = connect.limits(admin, given.topic)
    if lines is not None:
        return produce_lines(given, settings, lines, limits)
    key: bytes | None
    value: bytes | None
    if given.tombstone is not None:
        key, value = os.fsencode(given.tombstone), None
    else:
        value = os.fsencode(given.value)  # the bytes that were typed
        key = None if given.raw else key_in(value)
        key = key if given.key is None else os.fsencode(given.key)
    with connect.producer(settings, limits.largest) as producer:
        sent = produce.send_one(producer, given.topic, key, value, given.header)
    if given.json:
        print(json_form.dump({name: getattr(sent, name) for name in ("topic", "partition", "offset", "timestamp")}))
    else:
        print(f"{sent.topic}: partition {sent.partition}, offset {sent.offset}")
    return 0


def key_in(value: bytes) -> bytes | None:
    try:
        return produce.key_in(value)
    except produce.NotJson as error:
        raise CommandFailed(f"{error}: not sent (--raw sends it all the same)") from None


def produce_lines(given: argparse.Namespace, settings: Settings, lines: BinaryIO, limits: connect.Limits) -> int:
    key = None if given.key is None else os.fsencode(given.key)
    began = time.monotonic()
    with connect.producer(settings, limits.largest, patience_ms=STREAM_PATIENCE_MS) as producer:
        sending = produce.Sending(producer, given.topic, only_keyed=limits.only_keyed)
        try:
            with reading("sending", total_bytes=length(lines)) as moved:
                done = 0
                for line in produce.records(lines, raw=given.raw, largest=limits.largest):
                    if line.wrong is None:
                        sending.send(line.number, line.key if key is None else key, line.value, given.header)
                    else:
                        sending.fail(line.number, line.wrong)
                    done += len(line.value) + 1
                    if line.number % SHOW_EVERY == 0:
                        moved(done, sending.acknowledged)
                sending.finish()
        except KafkaError:
            say(f"kafka_cli.py: stopped: Kafka has acknowledged {sending.acknowledged:,} records")
            raise
        except KeyboardInterrupt:
            sending.settle_done()
            more = f"; up to {len(sending.waiting):,} more are on their way" if sending.waiting else ""
            say(f"kafka_cli.py: interrupted: Kafka has acknowledged {sending.acknowledged:,} records{more}")
            raise
    took = time.monotonic() - began
    for unsent in sending.reasons:
        say(f"kafka_cli.py: line {unsent.number}: {one_line(unsent.reason)}")
    if given.json:
        print(json_form.dump({"sent": sending.acknowledged, "failed": sending.failed, "seconds": round(took, 3)}))
    else:
        rate = (
            f"{sending.acknowledged:,} records to {given.topic} in {took:.1f} s ({sending.acknowledged / took:,.0f}/s)"
        )
        print(f"sent {rate}" + (f", {sending.failed:,} not sent" if sending.failed else ""))
    return 1 if sending.failed else 0


def length(lines: BinaryIO) -> int | None:
    """The length of standard input, if it is a file."""
    found = os.fstat(lines.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def consume_records(given: argparse.Namespace, settings: Settings) -> int:
    if given.group == settings.kafka_group_id:
        raise WrongUsage(f"{given.group} is the bridge's group: reading as its member would take records from it")
    with connect.admin(settings) as admin:
        try:
            partitions = connect.partitions(admin, given.topic, internal=not given.group)
        except connect.KafkasOwn:
            raise WrongUsage(
                "Kafka's own topics are read without --group: each commit would be one more record of it"
            ) from None
    options = {"auto_offset_reset": "earliest" if given.from_beginning else "latest"}
    count = 0
    with connect.consumer(settings, **options, **member(given.group)) as consumer:
        if given.group:
            records = consume.follow_as_group(consumer, given.topic, limit=given.max_messages, patience=given.timeout)
        else:
            records = consume.follow(
                consumer,
                partitions,
                limit=given.max_messages,
                from_beginning=given.from_beginning,
                patience=given.timeout,
            )
        for record in records:
            shown = (record.value or b"") if given.value_only else consume.as_json(record).encode()
            sys.stdout.buffer.write(shown + b"\n")
            sys.stdout.buffer.flush()
            count += 1
    if sys.stderr.isatty():
        say(f"{count} records" + ("" if count == given.max_messages else ", and that is all that there is"))
    return 0


def member(group: str | None) -> dict[str, object]:
    # A short session: no longer does a reader that ended without a word keep its successor waiting.
    return {"group_id": group, "session_timeout_ms": 10_000, "heartbeat_interval_ms": 2_000} if group else {}


def list_topics(given: argparse.Namespace, settings: Settings) -> int:
    with connect.admin(settings) as admin:
        found = topics.topics(admin, internal=given.all)
    if given.json:
        print(json_form.dump([topic._asdict() for topic in found]))
    elif on_terminal():
        table(["topic", "partitions", "records"], found, right=["partitions", "records"])
    else:
        for topic in found:
            print(f"{topic.topic}: {topic.partitions} partitions, {topic.records} records")
    return 0


def show_lag(given: argparse.Namespace, settings: Settings) -> int:
    group = given.group or settings.kafka_group_id
    with connect.admin(settings) as admin:
        # All partitions for the bridge's group, so that one without a commit is seen too.
        partitions = connect.partitions(admin, settings.kafka_topic) if group == settings.kafka_group_id else None
        found = topics.lag(admin, group, partitions)
    if not found:
        raise CommandFailed(f"the group {group!r} has not committed anything")
    total = sum(row.lag for row in found)
    # Of other groups it is not known. None means that Redis, which knows it of the bridge's, is away.
    paused = steering.is_paused(settings) if group == settings.kafka_group_id else False
    if given.json:
        rows_as_json = [row._asdict() for row in found]
        print(json_form.dump({"group": group, "total": total, "paused": paused, "partitions": rows_as_json}))
        return 0
    rows = [row._replace(committed="-") if row.committed is None else row for row in found]  # type: ignore[arg-type]
    if on_terminal():
        table(["topic", "partition", "end", "committed", "lag"], rows, right=["partition", "end", "committed", "lag"])
    else:
        for row in rows:
            print(f"{row.topic} partition {row.partition}: end {row.end}, committed {row.committed}, lag {row.lag}")
    print(f"total lag of {group}: {total}")
    if paused:
        say(PAUSED)
    return 0


def dead_letters(given: argparse.Namespace, settings: Settings) -> int:
    if given.action in ("replay", "drop"):
        kafka_options.check_choice(given)
    from clients import drop, letter, replay  # they bring SQLAlchemy, which would make every other command wait

    actions = {"list": replay.list_letters, "show": letter.show, "replay": replay.replay, "drop": drop.drop}
    return actions[given.action](given, settings)


def pause(given: argparse.Namespace, settings: Settings) -> int:
    steering.pause(settings, paused=given.command == "pause")
    if given.json:
        print(json_form.dump({"paused": given.command == "pause"}))
    else:
        print(PAUSES if given.command == "pause" else "intake goes on within a second")
    return 0


def drain(given: argparse.Namespace, settings: Settings) -> int:
    from clients import drain as draining  # it brings SQLAlchemy, which would make every other command wait

    return draining.drain(given, settings)


def rewind(given: argparse.Namespace, settings: Settings) -> int:
    offsets = dict(given.to_offset)
    if len(offsets) < len(given.to_offset):
        raise WrongUsage("a partition is given twice: it can be read from one offset only")
    with connect.admin(settings) as admin, connect.consumer(settings) as reader:
        partitions = connect.partitions(admin, settings.kafka_topic)
        commits = steering.committed(settings, admin, partitions)
        wished = steering.earliest_of(reader, partitions, commits, since=given.to_time, offsets=offsets)
        ends = reader.end_offsets(partitions)
        records = sum(max(0, ends[part] - wished[part.partition]) for part in partitions if part.partition in wished)
        these = f"{records:,} records of {settings.kafka_topic} again"
        # A program that reads the answer as JSON has nobody to ask.
        unasked = None if given.json else f"this reads {these}"
        confirm(f"Read {these}?", "nothing was changed", yes=given.yes, unasked=unasked)
        steering.rewind(settings, admin, wished)
    if given.json:
        print(json_form.dump({"records": records, "offsets": {str(part): offset for part, offset in wished.items()}}))
    else:
        print(f"{records:,} records of {settings.kafka_topic} are read again: `kafka_cli.py lag` shows how far it is")
    return 0


COMMANDS: Mapping[str, Command] = {
    "produce": produce_records,
    "consume": consume_records,
    "topics": list_topics,
    "lag": show_lag,
    "dead-letters": dead_letters,
    "pause": pause,
    "resume": pause,
    "drain": drain,
    "rewind": rewind,
}

"""`kafka_cli.py dead-letters show`: one dead letter whole, with its key, its headers and its value.

The table has most of them whole; the rest of a large one is in the log, or in its copy in the dead-letter topic.
"""

import argparse
from typing import Any

from clients import database, json_form
from clients.connect import NoSuchTopic
from clients.consume import readable
from clients.place import Place, dead_letter
from clients.replay import in_copies, in_log
from clients.terminal import CommandFailed, Unreachable, escaped, one_line, pairs, say
from db import dead_letter_queries
from replay.letters import Letter, Original, first_found, kept, whole
from settings import Settings

Row = dict[str, Any]


def show(given: argparse.Namespace, settings: Settings) -> int:
    place = dead_letter(given.letter)
    with database.connect(settings) as connection:
        row = dead_letter_queries.one(connection, *place)
    if row is None:
        raise CommandFailed(f"there is no dead letter {place}: `kafka_cli.py dead-letters list` shows them")
    original, problem = record_of(row, settings)
    if given.json:
        print(json_form.dump(as_document(row, original, complete=problem is None)))
    else:
        as_text(row, original)
    if problem is not None:
        say(f"kafka_cli.py: {one_line(problem)}")
        return 1
    return 0


def record_of(row: Row, settings: Settings) -> tuple[Original, str | None]:
    """The record as it came; else what the table kept of it, and why that is all."""
    original = whole(row)
    if original is not None:
        return original, None
    letter = Letter(row["topic"], row["partition"], row["offset"], row["timestamp"])
    problem = "this is what the table kept of it: neither the log nor its copies have it any more"
    try:
        sources = [lambda wanted: in_log(settings, wanted), lambda wanted: in_copies(settings, wanted)]
        if letter.topic != settings.kafka_topic:
            del sources[0]  # its topic was read here once, and is not any more
        for _, found in first_found([letter], sources):
            return found, None
    except (Unreachable, NoSuchTopic) as error:
        problem = f"this is what the table kept of it; the rest is in Kafka: {error}"
    return kept(row), problem


def as_document(row: Row, original: Original, *, complete: bool) -> Row:
    names = ("topic", "partition", "offset", "timestamp", "reason", "detail", "state", "created_at", "state_changed_at")
    return {
        **{name: row[name] for name in names},
        "key": readable(original.key),
        "headers": [[name, readable(value)] for name, value in original.headers],
        "value": readable(original.value),
        "value_bytes": row["value_bytes"],
        "complete": complete,
    }


def as_text(row: Row, original: Original) -> None:
    fields = [
        ("dead letter", Place.of(row)),
        ("state", row["state"] + (f" since {row['state_changed_at']}" if row["state_changed_at"] else "")),
        ("reason", row["reason"]),
        ("detail", shown_line(row["detail"])),
        ("came", f"{row['timestamp']} ms since 1970"),
        ("noted", row["created_at"]),
        ("key", "none" if original.key is None else shown_line(as_escaped(original.key))),
        *((f"header {shown_line(name)}", shown_line(as_escaped(value or b""))) for name, value in original.headers),
        ("value", "none" if original.value is None else f"{row['value_bytes']:,} bytes"),
    ]
    pairs(fields)
    if original.value is not None:
        # Indented, so that no line of a value can pass for one of ours.
        for line in as_escaped(original.value).split("\n"):
            print(f"    {line}")


def as_escaped(content: bytes) -> str:
    """Bytes for a terminal: what is no UTF-8 as \\xff, and what a terminal would obey as its code."""
    return escaped(content.decode("utf-8", "backslashreplace"))


def shown_line(text: str) -> str:
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")

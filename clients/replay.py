"""`kafka_cli.py dead-letters`: lists them, and sends chosen ones to the topic again."""

import argparse
from collections.abc import Iterator, Sequence
from functools import partial

from clients import connect, database, json_form
from clients.place import Place, counted, dead_letter
from clients.produce import Sending
from clients.progress import bar
from clients.show import short_time
from clients.terminal import confirm, lines, on_terminal, one_line, say, table
from db import dead_letter_queries
from replay.letters import (
    GONE,
    NOTHING_TO_SEND,
    Letter,
    Original,
    copies,
    first_found,
    from_log,
    from_rows,
    refusal,
    replay_headers,
)
from settings import Settings

EVERY = 1_000_000_000  # as a limit: all of them


def list_letters(given: argparse.Namespace, settings: Settings) -> int:
    with database.connect(settings) as connection:
        state = None if given.state == "all" else given.state
        found = dead_letter_queries.newest(connection, state=state, reason=given.reason, limit=given.limit)
    if given.json:
        print(json_form.dump(found))
        return 0
    shown = short_time if on_terminal() else str
    rows = [
        (
            Place.of(row),
            row["state"],
            row["reason"],
            shown(row["created_at"]),
            row["detail"],
        )
        for row in found
    ]
    if on_terminal():
        table(["dead letter", "state", "reason", "noted (UTC)", "detail"], rows, wide="detail")
    else:
        lines(rows)
    if not found:
        which = "no dead letters" if given.state == "all" else f"no {given.state} dead letters"
        say(which + (f" with the reason {one_line(given.reason)}" if given.reason else ""))
    return 0


def replay(given: argparse.Namespace, settings: Settings) -> int:
    letters, refused = choose(given, settings)
    for line in refused:
        say(f"kafka_cli.py: {line}")
    if not letters:
        if not refused:
            say("no open dead letters" + (f" with the reason {given.reason}" if given.reason else ""))
        if given.json:
            print(json_form.dump({"sent": 0, "failed": len(refused)}))
        return 1 if refused else 0
    if given.all:
        these = counted(len(letters))
        confirm(f"Send {these} to {settings.kafka_topic} again?", "nothing was sent", yes=given.yes)
    with connect.admin(settings) as admin:
        limits = connect.limits(admin, settings.kafka_topic)
    with connect.producer(settings, limits.largest) as producer:
        sending = Sending(producer, settings.kafka_topic, only_keyed=limits.only_keyed)
        missing = send_again(settings, sending, letters)
    for letter in missing:
        say(f"kafka_cli.py: {letter.name}: {GONE}")
    for unsent in sending.reasons:
        say(f"kafka_cli.py: {letters[unsent.number].name}: {one_line(unsent.reason)}")
    failed = len(refused) + len(missing) + sending.failed
    if given.json:
        print(json_form.dump({"sent": sending.acknowledged, "failed": failed}))
    else:
        print(f"sent {sending.acknowledged} to {settings.kafka_topic} again" + (f", {failed} not" if failed else ""))
        say("`kafka_cli.py dead-letters list` shows the ones that stay open")
    return 1 if failed else 0


def choose(given: argparse.Namespace, settings: Settings) -> tuple[list[Letter], list[str]]:
    """The open dead letters that were asked for, and a line for each that cannot be sent again."""
    asked: list[tuple[Letter, str | None]] = []  # each with its state; None if there is no such letter
    with database.connect(settings) as connection:
        if given.letters:
            for place in dict.fromkeys(map(dead_letter, given.letters)):
                row = dead_letter_queries.one(connection, *place)
                asked.append((Letter(*place, row["timestamp"] if row else 0), row["state"] if row else None))
        else:
            for row in dead_letter_queries.newest(connection, state="open", reason=given.reason, limit=EVERY):
                letter = Letter(row["topic"], row["partition"], row["offset"], row["timestamp"])
                asked.append((letter, row["state"]))
    letters: list[Letter] = []
    refused: list[str] = []
    for letter, state in asked:
        why = refusal(state, letter.topic, reads=settings.kafka_topic)
        if why is None:
            letters.append(letter)
        else:
            refused.append(f"{letter.name}: {why}")
    return letters, refused


def send_again(settings: Settings, sending: Sending, letters: Sequence[Letter]) -> list[Letter]:
    """Sends the letters to their partitions; returns those whose bytes nobody has any more."""
    numbers = {letter: number for number, letter in enumerate(letters)}
    with bar("sending again", total=len(letters)) as advance:
        for letter, original in found_originals(settings, letters):
            if original.key is None and original.value is None:
                sending.fail(numbers[letter], NOTHING_TO_SEND)
            else:
                headers = replay_headers(letter, original.headers)
                sending.send(numbers[letter], original.key, original.value, headers, partition=letter.partition)
            del numbers[letter]
            advance(1)
        sending.finish()
    return sorted(numbers)


def found_originals(settings: Settings, letters: Sequence[Letter]) -> Iterator[tuple[Letter, Original]]:
    """Each letter with its record: from the table, else from the log, else from the dead-letter topic."""
    sources = [partial(source, settings) for source in (in_table, in_log, in_copies)]
    return first_found(letters, sources)


def in_table(settings: Settings, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    with database.connect(settings) as connection:
        yield from from_rows(lambda letter: dead_letter_queries.one(connection, *letter[:3]), letters)


def in_log(settings: Settings, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    with connect.consumer(settings) as consumer:
        yield from from_log(consumer, settings.kafka_topic, letters)


def in_copies(settings: Settings, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    try:
        with connect.admin(settings) as admin:
            partitions = connect.partitions(admin, settings.dead_letter_topic)
    except connect.NoSuchTopic:
        return
    with connect.consumer(settings) as consumer:
        yield from copies(consumer, partitions, letters)

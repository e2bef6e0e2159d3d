"""The index over words by itself: `.venv/bin/python -m benchmarks.text_index`, without Kafka and workers.

It prints how much processor time PostgreSQL takes to store a text, depending on how much may wait beside the index; how
long a search for a word takes with what waits by then; and how long it takes to put that into the index.
"""

import argparse
import contextlib
import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psycopg2

from benchmarks import servers, texts
from benchmarks.servers import Servers
from db import commands, copy, schema, text_index
from records import Record
from stack.progress import say

BATCH = 1_000
STATES: dict[str, int | None] = {"no index": None, "4 MB": 4_096, "16 MB": 16_384, "64 MB": 65_536}
SEARCH = f"""SELECT id FROM text_messages WHERE {text_index.words(text_index.DEFAULT_LANGUAGE)}
    @@ websearch_to_tsquery('english', %s) LIMIT 20"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    sent = [
        Record(each.id, None, each.text, None, 1_700_000_000_000 + number, 0, number)
        for number, each in enumerate(texts.made_up(given.texts))
    ]
    batches = [sorted(sent[first : first + BATCH]) for first in range(0, len(sent), BATCH)]
    with servers.started() as running:
        for number, (name, limit) in enumerate(itertools.chain.from_iterable([STATES.items()] * given.runs)):
            measure(running, f"words_{number}", name, limit, batches)


def measure(running: Servers, database: str, state: str, limit: int | None, batches: Sequence[list[Record]]) -> None:
    """Prints a line for one state, in a database of its own."""
    running.create_database(database)
    indexed = limit is not None
    schema.upgrade(replace(running.settings, database_name=database, keyword_index="on" if indexed else "off"))
    with contextlib.closing(running.connect(database)) as connection, connection.cursor() as cursor:
        if indexed:
            cursor.execute(f"ALTER INDEX {text_index.WORDS} SET (gin_pending_list_limit = {limit})")
        before = processor_seconds(connection)
        longest = max(store(cursor, batch) for batch in batches)
        spent = (processor_seconds(connection) - before) / sum(map(len, batches))
        told = f"{state}: {1e6 * spent:.1f} us of PostgreSQL a text, longest batch {1e3 * longest:.0f} ms"
        if indexed:
            cursor.execute("SET enable_seqscan = off")
            word = max(str(batches[0][0].message).split(), key=len)
            asked = min(timed(cursor, SEARCH, word) for _ in range(7))
            told += f"; search {1e3 * asked:.1f} ms"
            cleaned = timed(cursor, "SELECT gin_clean_pending_list(%s::regclass)", text_index.WORDS)
            asked = min(timed(cursor, SEARCH, word) for _ in range(7))
            told += f", {1e3 * asked:.1f} ms after {1e3 * cleaned:.0f} ms of taking in"
        say(told)
    running.drop_database(database)


def store(cursor: psycopg2.extensions.cursor, records: Sequence[Record]) -> float:
    """Stores texts as persist_text stores new ones; returns the seconds that it took."""
    rows = copy.message_rows(records, [record.timestamp for record in records])
    began = time.perf_counter()
    copy.copy_pieces(cursor, commands.COPY_MESSAGES, [rows])
    return time.perf_counter() - began


def timed(cursor: psycopg2.extensions.cursor, query: str, value: str) -> float:
    began = time.perf_counter()
    cursor.execute(query, (value,))
    cursor.fetchall()
    return time.perf_counter() - began


def processor_seconds(connection: psycopg2.extensions.connection) -> float:
    """What the server process of this connection has taken so far: utime and stime of proc(5), in hundredths."""
    fields = Path(f"/proc/{connection.get_backend_pid()}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    main()

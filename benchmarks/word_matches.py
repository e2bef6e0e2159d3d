"""Searches for words of very many messages: `.venv/bin/python -m benchmarks.word_matches`, without Kafka and workers.

It prints for each query how many messages match, how long a page of the newest takes, how long a ranked search, and how
long PostgreSQL takes for that page if left to choose its plan.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection, text

import settings
from benchmarks import servers
from benchmarks.servers import Servers
from db import queries, schema, text_index, word_matches
from db.session import autocommit_connection, connect_engine
from stack.progress import say

LIMIT = 10
WAITS_MS = 60_000

FILL = """
    INSERT INTO text_messages (id, message, created_at)
    SELECT gen_random_uuid(), 'Order ' || number || ' of customer ' || number % 5000 || ' said: ' || CASE number % 10
            WHEN 0 THEN 'payment failed after the wi-fi went away'
            WHEN 1 THEN 'payment failed because of a timeout'
            WHEN 2 THEN 'the payment that was made has not failed at all'
            WHEN 3 THEN 'failed to deliver, payment is open'
            WHEN 4 THEN 'payment received, with thanks'
            ELSE 'delivery is late and nobody answers the phone' END || ' ' || md5(number::text),
        to_timestamp(1700000000 + number / 10.0)
    FROM generate_series(1, :rows) AS number
"""

QUERIES = (
    "said",
    "payment",
    "payment failed",
    "-payment",
    '"payment failed"',
    "wi-fi",
    '"payment failed" timeout',
    '"failed payment"',  # which none has, though two of five have both words
    'payment -"payment failed"',
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=600_000)
    parser.add_argument("--runs", type=int, default=3, help="the fastest counts")
    given = parser.parse_args()
    with servers.started() as running:
        measure(running, given.rows, given.runs)


def measure(running: Servers, rows: int, runs: int) -> None:
    here = replace(running.settings, database_name="words")
    running.create_database(here.database_name)
    schema.upgrade(here)
    engine = connect_engine(here.database_url(), "benchmark", timeout_ms=WAITS_MS)
    with autocommit_connection(engine) as connection:
        connection.execute(text(f"SET LOCAL session_replication_role = replica; {FILL}"), {"rows": rows})
        connection.execute(text(f"SELECT gin_clean_pending_list('{text_index.WORDS}')"))
        connection.execute(text("VACUUM ANALYZE text_messages"))
        say("query | match | page, ms | ranked, ms | page as PostgreSQL would, ms")
        for words in QUERIES:
            found = (f"{fastest(runs, ask, connection, words):.0f}" for ask in (page, ranked, page_as_postgresql_would))
            say(" | ".join([words, f"{matches(connection, words):,}", *found]))
    engine.dispose()


def fastest(runs: int, ask: Callable[[Connection, str], object], connection: Connection, words: str) -> float:
    """Milliseconds."""
    took = []
    for _ in range(runs):
        began = time.perf_counter()
        ask(connection, words)
        took.append(1000 * (time.perf_counter() - began))
    return min(took)


def page(connection: Connection, words: str) -> object:
    return queries.newest(connection, settings.load(), limit=LIMIT, words=words)


def ranked(connection: Connection, words: str) -> object:
    return queries.keyword(connection, settings.load(), words, limit=LIMIT)


def page_as_postgresql_would(connection: Connection, words: str) -> object:
    found = f"{text_index.words(text_index.DEFAULT_LANGUAGE)} @@ {word_matches.query(settings.load())}"
    ids = f"SELECT id FROM text_messages WHERE {found} ORDER BY created_at DESC, id DESC LIMIT {LIMIT + 1}"
    return connection.execute(text(ids), {"words": words}).all()


def matches(connection: Connection, words: str) -> int:
    where = f"{text_index.words(text_index.DEFAULT_LANGUAGE)} @@ {word_matches.query(settings.load())}"
    query = text(f"{word_matches.hints(settings.load())} SELECT count(*) FROM text_messages WHERE {where}")
    return int(connection.execute(query, {"words": words}).scalar_one())


if __name__ == "__main__":
    main()

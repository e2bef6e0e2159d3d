"""What full text finds, however it is looked for: by the index alone, newest first in turn, or all at once."""

import itertools
import random
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from api.search import MAX_WORDS, some_words
from db import queries, word_matches
from settings import Settings
from tests.samples import run

MESSAGES = 400
WORDS = ["payment", "failed", "wi-fi", "away", "and", "the", "x<y", "a <-> b", "me@example.org", "'quoted'", "3.14"]
WORDS += ["3 --- 5", "-5"]

QUERIES = [
    "payment",
    "payment failed",
    "payment -failed",
    "-payment",
    '"payment failed"',
    '"payment failed" or away',
    '"payment failed" away',
    '"the payment and failed"',
    'payment -"payment failed"',
    '-"payment failed"',
    '"payment payment payment"',
    "wi-fi",
    '"wi-fi away"',
    "me@example.org",
    '"me@example.org failed"',
    "a <-> b",
    '"x<y a <-> b"',
    "'quoted'",
    '3.14 "payment',
    "the",
    "-",
    '""',
    "--payment",
    "---payment away",
    "-" * 34 + "away",
    "-" * 35 + "away",
    "- " * 40 + "failed",
    "failed " + "-" * 5_000,
    f'"{"-" * 50}" failed',
    "away" + "-" * 50 + "failed",
    '"3 --- 5"',
    "-(away)",
    "|" + "-" * 39 + "|",
    "(" + "-" * 41 + "away",
    "-(" * 40 + "away",
    "-! & " * 41 + "away",
    "payment|" + "-" * 40 + "failed",
    "payment, failed?",
    "failed!",
    '-away "payment failed"',
    "failed " + "<!--" * 41,
    "-<" * 40 + "away",
    "- : " * 41 + "away",
]

# PostgreSQL refuses to read them: as many dashes as change nothing stand for them.
TOO_DEEP = {
    "-" * 34 + "away": "away",
    "-" * 35 + "away": "-away",
    "- " * 40 + "failed": "failed",
    "failed " + "-" * 5_000: "failed",
    "|" + "-" * 39 + "|": "",
    "(" + "-" * 41 + "away": "-away",
    "-(" * 40 + "away": "away",
    "-! & " * 41 + "away": "-away",
    "failed " + "<!--" * 41: "failed",
    "-<" * 40 + "away": "away",
    "- : " * 41 + "away": "-away",
    "payment|" + "-" * 40 + "failed": "payment failed",
}


@pytest.fixture(scope="module", params=[1, 20, 20_000], ids=lambda turn: f"{turn} in turn")
def in_turn(request: pytest.FixtureRequest) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_matches, "READ_IN_TURN", request.param)
        patch.setattr(queries, "RANKED", 7)
        yield request.param


@pytest.fixture
def messages(database: Engine) -> Iterator[None]:
    chosen = random.Random(1)
    with database.begin() as connection:
        for at in range(MESSAGES):
            connection.execute(
                text("""
                    INSERT INTO text_messages (id, message, created_at)
                    VALUES (gen_random_uuid(), :message, to_timestamp(:at))
                """),
                {"message": " ".join(chosen.choices(WORDS, k=6)), "at": at // 3},
            )
    yield
    run(database, "TRUNCATE text_messages")


@pytest.mark.usefixtures("messages", "in_turn")
def test_every_way_finds_the_newest_that_match(database: Engine) -> None:
    for query in QUERIES:
        with database.connect() as connection:
            expected = [
                (row.id, row.message)
                for row in connection.execute(
                    text("""
                        SELECT id::text, message FROM text_messages
                        WHERE to_tsvector('english', message) @@ websearch_to_tsquery('english', :query)
                        ORDER BY created_at DESC, id DESC
                    """),
                    {"query": TOO_DEEP.get(query, query)},
                )
            ]
            found: list[tuple[str, str]] = []
            after = None
            while True:
                page = queries.newest(connection, Settings(), limit=9, words=query, after=after)
                found += [(each["id"], each["message"]) for each in page["messages"]]
                after = page["next"]
                if after is None:
                    break
            ranked = queries.keyword(connection, Settings(), query, limit=100)
        assert found == expected, query
        assert sorted(hit["id"] for hit in ranked) == sorted(each for each, _ in expected[:7]), query


@pytest.fixture
def ten_thousand(database: Engine) -> Iterator[None]:
    """Messages that all have a word and a phrase."""
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no jobs
        connection.execute(
            text("""
                INSERT INTO text_messages (id, message, created_at)
                SELECT gen_random_uuid(), 'the water pipe ' || number, to_timestamp(number)
                FROM generate_series(1, 10000) AS number
            """)
        )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT gin_clean_pending_list('text_messages_words')"))
        connection.execute(text("VACUUM ANALYZE text_messages"))
    yield
    run(database, "TRUNCATE text_messages")


@pytest.mark.parametrize("words", ["water", "-fire", '"water pipe 10000"'])
@pytest.mark.usefixtures("ten_thousand")
def test_the_texts_of_all_messages_are_not_parsed(database: Engine, words: str) -> None:
    with database.begin() as connection:
        assert queries.newest(connection, Settings(), limit=1, words=words)["count"] == 1
        assert len(queries.keyword(connection, Settings(), words, limit=10)) > 0
        scans = "SELECT pg_stat_get_xact_numscans('text_messages'::regclass)"
        assert connection.execute(text(scans)).scalar_one() == 0


READS = "SELECT pg_stat_get_xact_tuples_fetched('text_messages_pkey'::regclass)"


@pytest.mark.parametrize(("words", "times"), [('"water pipe"', 2), ("water, pipe?", 1)], ids=["a phrase", "words"])
@pytest.mark.usefixtures("ten_thousand")
def test_texts_are_read_newest_first_until_there_are_enough_and_only_for_a_phrase(
    database: Engine, monkeypatch: pytest.MonkeyPatch, words: str, times: int
) -> None:
    monkeypatch.setattr(queries, "RANKED", 20)
    with database.begin() as connection:
        assert queries.newest(connection, Settings(), limit=10, words=words)["count"] == 10
        assert len(queries.keyword(connection, Settings(), words, limit=5)) == 5
        # 11 for the page and 20 to rank, read to be found, for a phrase, and to be shown or ranked; and the 5 hits.
        assert connection.execute(text(READS)).scalar_one() == times * 11 + times * 20 + 5


@pytest.mark.usefixtures("ten_thousand")
def test_texts_that_were_all_read_in_turn_are_not_read_once_more(database: Engine) -> None:
    with database.begin() as connection:
        assert queries.newest(connection, Settings(), limit=10, words='"pipe water" 77')["count"] == 0
        assert connection.execute(text(READS)).scalar_one() == 1


SAID_AGAIN = [
    "alpha",
    "bravo",
    "-carol",
    "- carol",
    "- - delta",
    "-! delta",
    "( - alpha",
    "| bravo",
    "- or",
    "delta,",
    "or-alpha",
    '- "alpha bravo"',
]
BETWEEN = ["or", "OR", "or,", "or, -", "or(", "or:", 'or"alpha delta"or', "or - or"]


def long_query(chosen: random.Random) -> str:
    query = "alpha"
    for _ in range(chosen.randint(1, 4)):
        pieces = chosen.sample(SAID_AGAIN, k=3)
        if not any('"' in piece for piece in pieces):  # what stands in quotes is never left out
            pieces *= 8
        chosen.shuffle(pieces)
        query += f" {' '.join(pieces)} {chosen.choice(BETWEEN)} bravo"
    return query + " bravo" * MAX_WORDS


def test_what_a_very_long_query_says_again_is_left_out_without_another_meaning(database: Engine) -> None:
    names = ("alpha", "bravo", "carol", "delta", "alpha bravo", "alpha delta")
    texts = [" ".join(some) for count in range(5) for some in itertools.combinations(names, count)]
    found_by = text("""
        SELECT message FROM unnest(:texts) AS message
        WHERE to_tsvector('english', message) @@ websearch_to_tsquery('english', :query)
    """)
    for seed in range(200):
        query = long_query(random.Random(seed))
        shorter = some_words(query)
        assert len(shorter) < len(query)
        with database.connect() as connection:
            expected, found = (
                connection.execute(found_by, {"query": each, "texts": texts}).scalars().all()
                for each in (query, shorter)
            )
        assert found == expected, (query, shorter)

"""The indexes over texts and metadata: as the settings have them, made and dropped beside the writers."""

import random
import uuid
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import ProgrammingError

from api.search import some_words
from db import queries, session, text_index, vector_index
from db.console_queries import words_of_query
from settings import Settings
from tests.parts import eventually
from tests.samples import ask, run


def tend(settings: Settings, engine: Engine) -> None:
    def done() -> bool:
        vector_index.tend(settings, 0.0, 0.0)
        with engine.connect() as connection:
            return not vector_index.is_due(connection, settings, 0.0, 0.0)

    eventually(done)


def plan(engine: Engine, query: str) -> str:
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        return "\n".join(connection.execute(text(f"EXPLAIN {query}")).scalars())


def add(engine: Engine, *texts: str) -> None:
    for message in texts:
        run(
            engine,
            "INSERT INTO text_messages (id, message, metadata) VALUES (CAST(:id AS uuid), :message, '{\"a\": 1}')",
            id=str(uuid.uuid4()),
            message=message,
        )


def keyword(engine: Engine, settings: Settings, words: str, **narrowed: object) -> list[str]:
    with engine.connect() as connection:
        hits = queries.keyword(connection, settings, words, limit=10, **narrowed)  # type: ignore[arg-type]
    return [hit["message"] for hit in hits]


def test_the_settings_say_which_indexes_there_are(database: Engine, settings: Settings) -> None:
    def present() -> dict[str, bool]:
        with database.connect() as connection:
            return text_index.present(connection)

    tend(settings, database)
    assert present() == {"text_messages_words": True, "text_messages_metadata": True}
    with database.connect() as connection:
        german = replace(settings, keyword_language="german")
        assert vector_index.is_due(connection, german, 0.0, 0.0), "though no vector waits for an index"
    tend(replace(settings, keyword_index="off", metadata_index="off"), database)
    assert present() == {}
    tend(replace(settings, keyword_language="german"), database)
    assert present() == {"text_messages_words_german": True, "text_messages_metadata": True}
    tend(settings, database)
    assert present() == {"text_messages_words": True, "text_messages_metadata": True}


def test_a_half_built_index_is_built_again(database: Engine, settings: Settings) -> None:
    tend(settings, database)
    run(database, "UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = 'text_messages_metadata'::regclass")
    with database.connect() as connection:
        assert text_index.is_due(connection, settings)
    tend(settings, database)
    (found,) = ask(database, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'text_messages_metadata'::regclass")
    assert found["indisvalid"]


def test_an_index_of_somebody_with_such_a_name_is_left_alone(database: Engine, settings: Settings) -> None:
    run(database, "ALTER TABLE text_messages ADD words_count INTEGER, ADD UNIQUE (words_count)")
    run(database, "ALTER INDEX text_messages_words_count_key RENAME TO text_messages_words_simple")
    run(database, "CREATE INDEX ON text_messages (words_count)")
    run(database, "CREATE TABLE message_embeddings_part_of (id INTEGER PRIMARY KEY)")
    tend(settings, database)
    names = ["text_messages_words_simple", "text_messages_words_count_idx", "message_embeddings_part_of_pkey"]
    assert len(ask(database, "SELECT FROM pg_class WHERE relname = ANY (CAST(:names AS text[]))", names=names)) == 3


@pytest.mark.parametrize("name", ["text_messages_words", "text_messages_words_german", "text_messages_metadata"])
def test_what_is_left_of_an_index_that_somebody_made_anew_is_dropped(
    database: Engine, settings: Settings, name: str
) -> None:
    run(database, f"CREATE INDEX {name}_ccnew1 ON text_messages USING gin (to_tsvector('german', message))")
    run(database, f"UPDATE pg_index SET indisvalid = FALSE WHERE indexrelid = '{name}_ccnew1'::regclass")
    tend(settings, database)
    assert ask(database, "SELECT FROM pg_class WHERE relname = :name", name=f"{name}_ccnew1") == []


def test_what_waits_beside_the_indexes_is_taken_in(database: Engine, settings: Settings) -> None:
    def waiting() -> list[int]:
        lists = "SELECT gin_clean_pending_list(c::regclass) AS pages FROM unnest(CAST(:names AS text[])) AS c"
        return [found["pages"] for found in ask(database, lists, names=["text_messages_words", text_index.METADATA])]

    tend(settings, database)
    add(database, "waits")
    vector_index.take_in_texts(settings)
    assert waiting() == [0, 0]
    add(database, "waits, too")
    assert waiting() == [1, 1], "nothing waits here, so nothing was taken in"
    with vector_index.builder(settings):
        assert not vector_index.take_in_texts(settings), "another builder is at work"
    assert sorted(keyword(database, settings, "wait")) == ["waits", "waits, too"]


@pytest.mark.parametrize("language", ["english", "german"])
def test_so_much_may_wait_beside_an_index(database: Engine, settings: Settings, language: str) -> None:
    tend(replace(settings, keyword_language=language), database)
    options = "SELECT reloptions FROM pg_class WHERE relname = ANY (CAST(:names AS text[]))"
    found = ask(database, options, names=[text_index.words_index(language), text_index.METADATA])
    assert [each["reloptions"] for each in found] == [[f"gin_pending_list_limit={text_index.PENDING_KB}"]] * 2


@pytest.mark.parametrize("made", ["by the migrations", "anew"])
def test_the_queries_use_the_indexes(database: Engine, settings: Settings, made: str) -> None:
    add(database, "running dogs")
    if made == "anew":
        tend(replace(settings, keyword_index="off", metadata_index="off"), database)
    tend(settings, database)
    words = text_index.words("english", "m.message")
    assert "text_messages_words" in plan(
        database, f"SELECT FROM text_messages m WHERE {words} @@ websearch_to_tsquery('english', 'dog')"
    )
    assert "text_messages_metadata" in plan(
        database, "SELECT FROM text_messages m WHERE m.metadata @> CAST('{\"a\": 1}' AS jsonb)"
    )


def test_words_are_found_in_the_language_of_the_settings(database: Engine, settings: Settings) -> None:
    add(database, "Die Hunde bellen", "A dog was running")
    german = replace(settings, keyword_language="german")
    tend(german, database)
    assert keyword(database, german, "Hund") == ["Die Hunde bellen"]
    assert keyword(database, german, "run") == []
    with database.connect() as connection:
        assert queries.newest(connection, german, limit=5, words="der Hund")["count"] == 1


@pytest.mark.parametrize("language", ["english", "german"])
def test_an_index_in_the_words_of_before_is_made_anew(database: Engine, settings: Settings, language: str) -> None:
    chosen, name = replace(settings, keyword_language=language), text_index.words_index(language)
    before = f"to_tsvector('{language}'::regconfig, left(message, 100000))"
    run(database, f"DROP INDEX IF EXISTS {name}; CREATE INDEX {name} ON text_messages USING gin ({before})")
    tend(chosen, database)
    (found,) = ask(database, "SELECT pg_get_indexdef(CAST(:name AS regclass)) AS definition", name=name)
    assert "parsable_text(message)" in found["definition"]


# Of each PostgreSQL's parser reads a long word again and again, from each of its parts on, or a text to its end. Of the
# quickest 80,000 characters take 20 s.
ENDLESS = ["c_d_", "./", "~/", "1-a-", "a1@", "a@1", "a-b.", "<!--", "<!-- x "]


@pytest.mark.parametrize("part", ENDLESS)
def test_no_text_and_no_query_is_too_much_for_the_parser(database: Engine, settings: Settings, part: str) -> None:
    tend(settings, database)
    endless = part * (80_000 // len(part))
    api = session.connect_engine(settings.database_url(reader=True), "test", timeout_ms=15_000)
    with api.connect() as connection:
        assert queries.keyword(connection, settings, some_words(endless[:10_000]), limit=10) == []
        assert queries.newest(connection, settings, limit=10, words=endless[:500])["messages"] == []
        add(database, f"lighthouse {endless}")
        (hit,) = queries.keyword(connection, settings, "lighthouses", limit=10)
        assert hit["message"].startswith("lighthouse")
        assert hit["passage"].startswith("lighthouse")
        assert words_of_query(connection, "lighthouse", ["lighthouse", endless], "english") == {"lighthouse"}
    api.dispose()


def test_the_passage_of_a_hit_is_of_its_text_to_the_letter(database: Engine, settings: Settings) -> None:
    texts = {"lighthouse of List<String> names", "lighthouse with <b>bold</b> light", "lighthouse <!-- in a comment"}
    add(database, *texts)
    with database.connect() as connection:
        hits = queries.keyword(connection, settings, "lighthouse", limit=10)
    assert {hit["message"] for hit in hits} == texts
    assert all(hit["passage"] in hit["message"] and "<" in hit["passage"] for hit in hits), hits


def test_texts_that_are_one_word_over_and_over_are_found_in_time(database: Engine, settings: Settings) -> None:
    tend(settings, database)
    add(database, *["w " * 50_000] * 60)  # whose passages take 12 s where all of each text is looked at
    api = session.connect_engine(settings.database_url(reader=True), "test", timeout_ms=8_000)
    with api.connect() as connection:
        hits = queries.keyword(connection, settings, "w", limit=60)
    api.dispose()
    assert len(hits) == 60
    assert all(hit["passage"].startswith("w w w") for hit in hits)


def test_the_passage_of_a_long_text_is_where_the_words_are(database: Engine, settings: Settings) -> None:
    add(database, "harbour " + "and then more " * 5_000 + "a lighthouse by the harbour " + "and so on " * 1_000)
    with database.connect() as connection:
        (late,) = queries.keyword(connection, settings, "lighthouse harbour", limit=10)
        (early,) = queries.keyword(connection, settings, "harbour", limit=10)
    assert "lighthouse by the harbour" in late["passage"]
    assert early["passage"].startswith("harbour and then")


def test_of_hits_that_may_not_be_shown_no_passage_is_made(database: Engine, settings: Settings) -> None:
    add(database, *["lighthouse " * (number + 1) for number in range(5)])
    with database.connect() as connection:
        hits = queries.keyword(connection, settings, "lighthouse", limit=4, shown=2)
    assert [bool(hit["passage"]) for hit in hits] == [True, True, False, False]
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_what_is_shown_of_two_rankings_has_a_passage(limit: int) -> None:
    chosen = random.Random(limit)
    for _ in range(200):
        by_meaning, by_words = (chosen.sample(range(30), chosen.randint(0, 20)) for _ in range(2))
        rankings = [
            [{"id": str(each), "passage": "of its meaning"} for each in by_meaning],
            [
                {"id": str(each), "passage": "of its words" if place < limit else ""}
                for place, each in enumerate(by_words)
            ],
        ]
        assert all(hit["passage"] for hit in queries.fuse(rankings, limit))


def test_a_very_long_address_is_found_by_its_host_and_hides_nothing(database: Engine, settings: Settings) -> None:
    address = "https://example.com/" + "/".join(f"folder{number}" for number in range(120))
    add(database, f"see {address} " + "and more words " * 20)
    assert len(address) > 1_000
    for words in ("example.com", '"more words"'):
        assert len(keyword(database, settings, words)) == 1, words


def test_without_an_index_the_same_is_found(database: Engine, settings: Settings) -> None:
    add(database, "The dogs bark", "A cat")
    tend(replace(settings, keyword_index="off", metadata_index="off"), database)
    assert keyword(database, settings, "dog", filter={"a": 1}) == ["The dogs bark"]
    assert keyword(database, settings, "dog", filter={"a": 2}) == []


def test_an_unknown_language_stops_nothing_but_its_index(database: Engine, settings: Settings) -> None:
    with pytest.raises(ProgrammingError, match="klingon"):
        vector_index.tend(replace(settings, keyword_language="klingon"), 0.0, 0.0)
    with database.connect() as connection:
        assert text_index.present(connection) == {"text_messages_words": True}


# The three newest have 51 bytes, and 29 without the oldest of them.
@pytest.mark.parametrize(("limit", "most"), [("RANKED", 3), ("RANKED_BYTES", 30), ("RANKED_BYTES", 51)])
def test_of_more_matches_than_are_ranked_the_newest_are(
    database: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    monkeypatch.setattr(queries, limit, most)
    texts = ["fox fox fox", *[f"a fox and {number} words more" for number in range(4)], "fox fox"]
    for number, message in enumerate(texts):
        run(
            database,
            """INSERT INTO text_messages (id, message, created_at)
               VALUES (gen_random_uuid(), :message, to_timestamp(:at))""",
            message=message,
            at=number,
        )
    with database.connect() as connection:
        hits = queries.keyword(connection, settings, "fox", limit=10)
        page = queries.newest(connection, settings, limit=2, words="fox")
        after = queries.newest(connection, settings, limit=10, words="fox", after=page["next"])
    assert hits[0]["message"] == texts[5]
    assert {hit["message"] for hit in hits} == set(texts[3:])
    assert [each["message"] for each in page["messages"] + after["messages"]] == texts[::-1]

"""What a search by meaning finds when there are indexes: filters, edits, deletions, and vectors in odd places."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import Connection, Engine, event, text

from db import vector_search
from settings import Settings
from tests.samples import run
from tests.vectors import DIMENSIONS, MODEL, NOW, Stored, ranges, rest


@pytest.fixture
def chosen(settings: Settings) -> Settings:
    return replace(settings, index_seal_rows=200)


@pytest.fixture
def stored(database: Engine) -> Stored:
    return Stored(database)


@pytest.mark.parametrize("matching", [1, 12, 60, 300])
def test_a_filter_gives_as_many_as_match(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch, matching: int
) -> None:
    stored.add(600)
    rest(chosen, stored.engine)
    stored.add(50)
    chosen_by: dict[int, tuple[dict[str, object], Callable[[dict[str, int]], bool]]] = {
        1: ({"filter": {"n": 77}}, lambda found: found["n"] == 77),
        12: ({"filter": {"dozen": 5}}, lambda found: found["dozen"] == 5),
        60: ({"filter": {"tenth": 3}}, lambda found: found["tenth"] == 3),
        300: (
            {"since": instant(NOW + 101), "until": instant(NOW + 401)},
            lambda found: 101 <= found["n"] < 401,
        ),
    }
    narrowed, passes = chosen_by[matching]
    for few in (5_000, 30, 0):  # an exact pass over what matches, or the index
        monkeypatch.setattr(vector_search, "FEW", few)
        found = wanted = 0
        for query in stored.points(5):
            nearest = stored.nearest(query, 10, passes)
            hits = stored.search(query, 10, **narrowed)
            assert len(hits) == min(10, matching)
            assert all(passes(stored.metadata[hit]) for hit in hits)
            found, wanted = found + len(set(hits) & set(nearest)), wanted + len(nearest)
        assert found / wanted >= (1.0 if few >= matching else 0.95)


def test_what_comes_to_match_after_the_count_hides_none_that_matched(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.add(300)
    rest(chosen, stored.engine)
    monkeypatch.setattr(vector_search, "FEW", 30)
    count = vector_search.few_match

    def and_more_come(connection: Connection, asked: vector_search.Asked) -> bool:
        few = count(connection, asked)
        stored.add(20)
        return few

    query = stored.points(1)[0]
    matching = stored.nearest(query, 30, lambda found: found["n"] >= 271)
    monkeypatch.setattr(vector_search, "few_match", and_more_come)
    assert set(stored.search(query, 100, since=instant(NOW + 271))) >= set(matching)


@pytest.mark.parametrize("narrowed", [{"filter": {"tenth": 3}}, {"since": "2001-01-01T00:00:00Z"}])
@pytest.mark.parametrize("without", [False, True])
def test_few_open_vectors_and_many_give_the_same(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch, narrowed: dict[str, object], without: bool
) -> None:
    """Looked up nearest first, or joined as a whole: with some that have another text now, and one that is left out."""
    stored.add(400)
    rest(chosen, stored.engine)
    fresh = stored.add(150)
    run(stored.engine, "UPDATE text_messages SET message = 'new' WHERE id = ANY (CAST(:ids AS uuid[]))", ids=fresh[:40])
    monkeypatch.setattr(vector_search, "FEW", 0)
    for vector in (stored.vectors[fresh[63]], *stored.points(3)):
        found = []
        for many in (1_000, -1):
            monkeypatch.setattr(vector_search, "MANY_OPEN", many)
            found.append(stored.search(vector, 20, **narrowed, **({"without": fresh[63]} if without else {})))
        assert found[0] == found[1]
        assert len(found[0]) == 20
        assert (fresh[63] in found[0]) <= (not without)
        assert not set(found[0]) & set(fresh[:40])


def instant(milliseconds: int) -> str:
    return str(np.datetime64(milliseconds, "ms")) + "Z"


def far_ones(stored: Stored, query: NDArray[np.float32], ids: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a search for these messages alone finds, by an index that gives up after 50 vectors."""
    run(
        stored.engine,
        "UPDATE text_messages SET metadata = '{\"far\": true}' WHERE id = ANY (CAST(:ids AS uuid[]))",
        ids=ids,
    )
    monkeypatch.setattr(vector_search, "FEW", 0)
    with stored.engine.connect() as connection:
        connection.execute(text("SET hnsw.max_scan_tuples = 50"))
        hits = vector_search.semantic(connection, Settings(), query.tolist(), MODEL, limit=10, filter={"far": True})
        connection.execute(text("RESET hnsw.max_scan_tuples"))
        connection.commit()
    return [str(hit["id"]) for hit in hits]


@pytest.fixture
def query(stored: Stored, chosen: Settings) -> NDArray[np.float32]:
    """A point, in a table of 800 vectors that an index holds."""
    stored.add(800)
    rest(chosen, stored.engine)
    point: NDArray[np.float32] = stored.points(1)[0]
    return point


@pytest.fixture
def farthest(stored: Stored, query: NDArray[np.float32]) -> list[str]:
    """The five messages farthest from the point, by the distance."""
    return stored.nearest(query, 800)[-5:]


def test_a_rare_match_far_away_is_found_where_the_index_gives_up(
    stored: Stored, query: NDArray[np.float32], farthest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = far_ones(stored, query, farthest, monkeypatch)
    assert hits == farthest


def test_a_far_match_in_the_open_part_hides_none_that_an_index_gave_up_on(
    stored: Stored, query: NDArray[np.float32], farthest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    farther = [str(uuid.uuid4()) for _ in range(15)]
    stored.store(farther, np.repeat(-query[None], 15, 0))
    hits = far_ones(stored, query, farthest + farther, monkeypatch)
    assert hits[:5] == farthest
    assert len(hits) == 10

    # The index was walked beyond the best of these hits, and not as far as the last.
    nearest = str(uuid.uuid4())
    stored.store([nearest], query[None])
    monkeypatch.setattr(vector_search, "REACH", 30)
    hits = far_ones(stored, query, [nearest, *farthest, *farther], monkeypatch)
    assert hits[:6] == [nearest, *farthest]
    assert len(hits) == 10


def test_texts_without_meaning_hide_none_that_an_index_gave_up_on(
    stored: Stored, query: NDArray[np.float32], farthest: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have a vector of zeros: enough for a whole page of hits, of which none has a score."""
    without_meaning = [str(uuid.uuid4()) for _ in range(15)]
    stored.store(without_meaning, np.zeros((15, DIMENSIONS), np.float32))
    assert far_ones(stored, query, farthest + without_meaning, monkeypatch) == farthest


def test_a_part_without_any_match_costs_no_pass_over_everything(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a filter by time: its index gives up, but not before it was beyond the hits of the other parts."""
    stored.add(800)
    rest(chosen, stored.engine)
    fresh = stored.add(100)
    query = stored.vectors[fresh[0]]
    since = {"since": instant(NOW + 801)}
    monkeypatch.setattr(vector_search, "FEW", 0)
    monkeypatch.setattr(vector_search, "REACH", 300)
    with searches(stored.engine) as sent:
        assert stored.search(query, 5, **since) == stored.nearest(query, 5, lambda found: found["n"] >= 801)
    assert sent == [("index", 18)]


@pytest.mark.parametrize(
    "narrowed",
    [
        {"since": "2020-01-01T05:33:11Z"},
        {"since": "2020-01-01T05:33:11Z", "until": "2030-01-01T00:00:00Z"},
        {"since": "2020-01-01T00:00:00Z", "until": "2020-01-01T00:00:11Z"},
        {"until": "2020-01-01T00:00:11Z"},
    ],
)
def test_the_messages_of_a_time_are_read_alone(stored: Stored, narrowed: dict[str, str]) -> None:
    """20,000 messages of a second each, in tables that nobody has analysed yet."""
    with stored.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no jobs
        connection.execute(
            text("""
                INSERT INTO text_messages (id, message, created_at)
                SELECT gen_random_uuid(), number, TIMESTAMPTZ '2020-01-01Z' + number * INTERVAL '1 s'
                FROM generate_series(1, 20000) AS number
            """)
        )
        connection.execute(
            text("""
                INSERT INTO message_embeddings (message_id, passage_start, passage_end, content_hash, model, embedding)
                SELECT id, 0, 1, content_hash, :model, array_fill(0.5, ARRAY[16])::real[]::halfvec FROM text_messages
            """),
            {"model": MODEL},
        )
        connection.execute(
            text("""
                INSERT INTO vector_index_parts (model, from_id, to_id, state, live_rows)
                VALUES (:model, 1, 20001, 'ready', 20000)
            """),
            {"model": MODEL},
        )
    seen = text("""
        SELECT sum(seq_tup_read), sum(idx_tup_fetch) FROM pg_stat_xact_user_tables
        WHERE relname IN ('text_messages', 'message_embeddings')
    """)
    with stored.engine.begin() as connection:
        before = connection.execute(seen).one()
        hits = vector_search.semantic(connection, Settings(), [1.0] * 16, MODEL, limit=5, **narrowed)  # type: ignore[arg-type]
        after = connection.execute(seen).one()
    assert len(hits) == 5
    whole, looked_up = (now - then for now, then in zip(after, before, strict=True))
    assert whole == 0
    assert looked_up < 100


@contextmanager
def searches(engine: Engine) -> Iterator[list[tuple[str, int]]]:
    """How each statement that makes hits looks for vectors, and for how many."""
    sent: list[tuple[str, int]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        if "nearest AS MATERIALIZED" in statement:
            sent.append(("index" if "e.id >= " in statement else "rows", parameters["wanted"]))

    event.listen(engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine, "before_cursor_execute", note)


def test_the_neighbours_of_a_message_leave_it_out(stored: Stored, chosen: Settings) -> None:
    ids = stored.add(400)
    rest(chosen, stored.engine)
    assert stored.search(stored.vectors[ids[3]], 1) == [ids[3]]
    hits = stored.search(stored.vectors[ids[3]], 10, without=ids[3])
    assert len(hits) == 10
    assert ids[3] not in hits


def test_a_long_message_is_one_hit(stored: Stored, chosen: Settings) -> None:
    ids = stored.add(400)
    query = stored.vectors[ids[0]]
    run(
        stored.engine,
        """
        INSERT INTO message_embeddings (message_id, passage_number, passage_start, passage_end, content_hash, model,
            embedding)
        SELECT message_id, n, 0, 4, content_hash, model, embedding
        FROM message_embeddings, generate_series(1, 150) AS n WHERE message_id = CAST(:id AS uuid)
        """,
        id=ids[0],
    )
    rest(chosen, stored.engine)
    hits = stored.search(query)
    assert hits[0] == ids[0]
    assert len(set(hits) & set(stored.nearest(query))) >= 9


def test_long_messages_are_looked_for_along_the_index(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = stored.add(400)
    run(
        stored.engine,
        """
        INSERT INTO message_embeddings (message_id, passage_number, passage_start, passage_end, content_hash, model,
            embedding)
        SELECT message_id, n, 0, 4, content_hash, model, embedding FROM message_embeddings, generate_series(1, 40) AS n
        """,
    )
    rest(chosen, stored.engine)
    query = stored.vectors[ids[0]]
    for reach, expected in (
        (vector_search.REACH, [("index", 28), ("index", 112), ("index", 448)]),
        (100, [("index", 28), ("rows", 112), ("rows", 448)]),
    ):
        monkeypatch.setattr(vector_search, "REACH", reach)
        with searches(stored.engine) as sent:
            assert len(set(stored.search(query)) & set(stored.nearest(query))) >= 9
        assert sent == expected


@pytest.mark.parametrize("indexed", [False, True])
def test_behind_vectors_that_count_no_more_the_others_are_found(
    stored: Stored, chosen: Settings, indexed: bool
) -> None:
    """Such as a worker leaves behind that has compared the text just before an edit was committed."""
    ids = stored.add(400)
    if indexed:
        rest(chosen, stored.engine)
    query = stored.vectors.pop(ids[0])
    run(
        stored.engine,
        """
        INSERT INTO message_embeddings (message_id, passage_number, passage_start, passage_end, content_hash, model,
            embedding)
        SELECT message_id, n, 0, 4, md5('the old text')::uuid, model, embedding
        FROM message_embeddings, generate_series(1, 40) AS n WHERE message_id = CAST(:id AS uuid)
        """,
        id=ids[0],
    )
    run(
        stored.engine,
        "DELETE FROM message_embeddings WHERE message_id = CAST(:id AS uuid) AND passage_number = 0",
        id=ids[0],
    )
    assert stored.search(query) == stored.nearest(query)


def test_a_part_of_which_little_is_left_is_read_without_its_index(stored: Stored, chosen: Settings) -> None:
    """Before that is counted, too."""
    ids = stored.add(400)
    rest(chosen, stored.engine)
    stored.add(100)
    stored.delete(ids[:390])
    query = stored.vectors[ids[395]]
    run(stored.engine, "UPDATE vector_index_parts SET live_rows = 400")
    assert stored.search(query, 10) == stored.nearest(query, 10)
    run(stored.engine, "UPDATE vector_index_parts SET live_rows = 10")
    with searches(stored.engine) as sent:
        assert stored.search(query, 10) == stored.nearest(query, 10)
    assert sent == [("rows", 28)]


def test_a_deleted_message_is_gone_and_an_edited_one_is_found_by_its_new_text(stored: Stored, chosen: Settings) -> None:
    ids = stored.add(600)
    rest(chosen, stored.engine)
    query = stored.vectors[ids[7]]
    assert stored.search(query, 1) == [ids[7]]
    stored.add(1, [ids[7]])
    assert ids[7] not in stored.search(query, 3)
    assert stored.search(stored.vectors[ids[7]], 1) == [ids[7]]
    stored.delete(ids[:7] + ids[8:100])
    assert stored.recall() >= 0.97


def test_an_index_full_of_what_was_deleted_still_gives_as_many_as_asked_for(stored: Stored, chosen: Settings) -> None:
    ids = stored.add(1_000)
    rest(chosen, stored.engine)
    query = stored.vectors[ids[0]]
    nearest = stored.nearest(query, 900)
    stored.delete(nearest)
    assert stored.search(query, 50) == stored.nearest(query, 50)
    # Outdated ones too: they stay until the new text has its vector, but answer nothing.
    left = stored.nearest(query, 60)
    run(stored.engine, "UPDATE text_messages SET message = 'new' WHERE id = ANY (CAST(:ids AS uuid[]))", ids=left)
    for each in left:
        del stored.vectors[each]
    assert sorted(stored.search(query, 100)) == sorted(stored.vectors)


def test_a_vector_that_is_committed_late_is_found_in_the_part_that_its_id_lies_in(
    stored: Stored, chosen: Settings
) -> None:
    stored.add(300)
    query = stored.points(1)[0]
    late = str(uuid.uuid4())
    run(stored.engine, "INSERT INTO text_messages (id, message) VALUES (CAST(:id AS uuid), 'late')", id=late)
    rest(chosen, stored.engine)
    run(
        stored.engine,
        """
        INSERT INTO message_embeddings (id, message_id, passage_start, passage_end, content_hash, model, embedding)
        OVERRIDING SYSTEM VALUE
        SELECT 150, id, 0, 4, content_hash, :model, CAST(:vector AS halfvec)
        FROM text_messages WHERE message = 'late'
        """,
        model=MODEL,
        vector=vector_search.literal(query.tolist()),
    )
    assert stored.search(query, 1) == [late]


def test_gaps_between_parts_are_scanned() -> None:
    assert vector_search.outside([(1, 10)]) == "(id >= 10)"
    assert vector_search.outside([(1, 10), (10, 20)]) == "(id >= 20)"
    assert vector_search.outside([(1, 10), (11, 20)]) == "(id >= 20 OR id >= 10 AND id < 11)"
    assert vector_search.outside([(5, 10), (15, 20)]) == "(id >= 20 OR id < 5 OR id >= 10 AND id < 15)"


def test_before_the_first_statistics_no_table_is_read_as_a_whole(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(stored.engine, "ALTER TABLE message_embeddings SET (autovacuum_enabled = off)")
    stored.add(3000)
    rest(chosen, stored.engine)
    sent: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        sent.append((statement, parameters))

    event.listen(stored.engine, "before_cursor_execute", note)
    with stored.engine.connect() as connection:
        assert vector_search.in_use(connection, 10) == vector_search.InUse(MODEL, None, ranges(stored.engine))
        assert vector_search.semantic(connection, Settings(), stored.points(1)[0].tolist(), MODEL, limit=10)
        statement, parameters = sent[-1]  # the settings, and then the search
        search = statement[statement.index(";") + 1 :]
        plan = connection.exec_driver_sql(f"EXPLAIN {search}", parameters).scalars().all()
        monkeypatch.setattr(vector_search, "FEW", 0)
        monkeypatch.setattr(vector_search, "MANY_OPEN", -1)
        assert vector_search.semantic(
            connection, Settings(), stored.points(1)[0].tolist(), MODEL, limit=10, filter={"tenth": 3}
        )
    event.remove(stored.engine, "before_cursor_execute", note)
    assert sent[-1][1]["seqscan"] == "on", "a filter over many open vectors joins the messages"
    assert any("Index Scan using message_embeddings_part_" in line for line in plan)
    assert not [line for line in plan if "Seq Scan" in line]

"""The index behind the writer on a real PostgreSQL: searches are right in each of its states, and in between."""

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import Engine, text

from db import index_catalogue, index_plan, reembedding, second_set, vector_index, vector_search
from settings import Settings
from tests.parts import eventually
from tests.samples import ask, meanwhile, run
from tests.vectors import AT_REST, DIMENSIONS, MODEL, Stored, indexes, plan, ranges, rest, seal, status

SECOND = "second-16"


def fill(engine: Engine, model: str, count: int) -> None:
    """Vectors without messages."""
    query = """
        INSERT INTO message_embeddings (message_id, passage_start, passage_end, content_hash, model, embedding)
        SELECT gen_random_uuid(), 0, 1, gen_random_uuid(), :model,
            (SELECT array_agg(random() + 0 * (n + number)) FROM generate_series(1, 16) AS n)::real[]::halfvec
        FROM generate_series(1, :count) AS number
    """
    run(engine, query, model=model, count=count)


@pytest.fixture
def chosen(settings: Settings) -> Settings:
    return replace(settings, index_seal_rows=200)


@pytest.fixture
def stored(database: Engine) -> Stored:
    return Stored(database)


def count_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_catalogue, "COUNT_SECONDS", 0.0)
    monkeypatch.setattr(index_catalogue, "COUNT_SHARE", 0)


def test_a_small_table_is_scanned(stored: Stored, chosen: Settings) -> None:
    stored.add(199)
    assert seal(chosen) is None
    assert vector_index.tend(chosen, 0.0, AT_REST) is None
    assert indexes(stored.engine) == []
    assert stored.recall() == 1.0
    found = status(chosen, stored.engine)
    assert (found["kind"], found["vectors"], found["open"], found["unindexed"]) == ("exact", 199, 199, 0)
    assert found["settled"]


def test_a_look_in_a_burst_reads_no_more_than_it_counts(database: Engine) -> None:
    fill(database, MODEL, 20_000)  # in a table that nobody has analysed yet
    limits = index_plan.Limits(seal_rows=100, part_rows=1_000)
    model = index_catalogue.Model(MODEL, DIMENSIONS, active=True)
    with database.begin() as connection:
        found = index_catalogue.situation(connection, model, limits)
        read = connection.execute(
            text("""
                SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'message_embeddings'
            """)
        ).scalar_one()
    assert (found.open_rows, found.open_span, found.next_id) == (20_000, 20_000, 20_001)
    assert read <= 3 * limits.seal_rows + 1


@pytest.mark.parametrize(
    ("from_id", "to_id", "found", "most"),
    [
        (1, 15_001, (15_000, 15_000, 15_001), 300),
        (501, 511, (10, 10, 511), 10),
        (30_001, 30_011, (0, 0, 30_001), 10),
    ],
)
def test_the_size_of_a_gap_is_told_by_so_many_vectors(
    database: Engine, from_id: int, to_id: int, found: tuple[int, int, int], most: int
) -> None:
    fill(database, MODEL, 20_000)  # in a table that nobody has analysed yet
    model = index_catalogue.Model(MODEL, DIMENSIONS, active=True)
    with database.begin() as connection:
        assert index_catalogue.size(connection, model, from_id, to_id, 300) == found
        read = connection.execute(
            text("""
                SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'message_embeddings'
            """)
        ).scalar_one()
    assert read <= most + 1


def test_searches_are_right_from_the_first_vector_to_one_index(stored: Stored, chosen: Settings) -> None:
    stored.add(300)
    assert status(chosen, stored.engine)["unindexed"] == 300
    for size in (300, 250, 220):  # sealed one after the other
        assert seal(chosen) is not None
        assert seal(chosen) is None
        assert stored.recall() >= 0.97
        stored.add(size)
        assert stored.recall() >= 0.97
    found = status(chosen, stored.engine)
    assert (found["kind"], found["vectors"], found["indexed"], found["open"]) == ("hnsw", 1_070, 850, 220)
    assert len(ranges(stored.engine)) == 3
    rest(chosen, stored.engine)
    assert ranges(stored.engine) == [(1, 1_071)]
    assert stored.recall() >= 0.97
    found = status(chosen, stored.engine)
    assert (found["indexed"], found["unindexed"], len(found["parts"])) == (1_070, 0, 1)  # type: ignore[arg-type]
    assert "message_embeddings_part" in plan(stored.engine, "id >= 1 AND id < 1071")


def test_what_was_merged_is_dropped_later(stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stored.add(300)
    seal(chosen)
    stored.add(300)
    rest(chosen, stored.engine)
    seal(chosen)
    assert len(indexes(stored.engine)) == 2, "a search may just have read the catalogue"
    assert not is_in_disorder(stored.engine)
    monkeypatch.setattr(index_catalogue, "RETIRE_SECONDS", 0.0)
    assert is_in_disorder(stored.engine)

    def dropped() -> bool:
        seal(chosen)  # nothing where the session of the builder before has not ended yet
        return len(indexes(stored.engine)) == 1

    eventually(dropped)
    assert stored.recall() >= 0.97


def test_a_search_that_read_the_catalogue_before_a_merge_finds_everything(stored: Stored, chosen: Settings) -> None:
    stored.add(300)
    seal(chosen)
    stored.add(300)
    seal(chosen)
    before = ranges(stored.engine)
    stored.add(50)
    rest(chosen, stored.engine)
    assert len(before) == 2
    assert ranges(stored.engine) == [(1, 651)]
    for name in indexes(stored.engine):  # the worst case: they are all gone
        with stored.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(f"DROP INDEX {name}"))
    query = stored.points(1)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_search, "ready_parts", lambda *_, **__: before)
        assert stored.search(query) == stored.nearest(query)


def test_searches_beside_merges_miss_nothing(stored: Stored, chosen: Settings) -> None:
    """Each search has as many hits as it asks for, with the nearest ones, while parts come and go."""
    stored.add(400)
    over = threading.Event()
    recalls: list[float] = []

    def ask_on() -> None:
        rng = np.random.default_rng(9)
        while not over.is_set() or not recalls:
            query = stored.centres[rng.integers(0, 12)]
            hits = stored.search(query / np.linalg.norm(query))
            nearest = stored.nearest(query)
            recalls.append(len(set(hits) & set(nearest)) / 10)

    seal(chosen)
    stored.add(400)
    seal(chosen)
    with meanwhile(ask_on):
        try:
            for _ in range(4):
                rest(chosen, stored.engine)
                run(stored.engine, "UPDATE vector_index_parts SET changed_at = changed_at - INTERVAL '1 hour'")
                # Half of it is built again, as if the other half had been deleted since.
                run(stored.engine, "UPDATE vector_index_parts SET built_rows = 10000 WHERE state = 'ready'")
        finally:
            over.set()
    assert len(recalls) >= 3
    assert np.mean(recalls) >= 0.97
    assert min(recalls) >= 0.8


def test_a_part_that_lost_most_of_its_rows_is_built_again_and_a_small_rest_needs_none(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_always(monkeypatch)
    ids = stored.add(1_000)
    rest(chosen, stored.engine)
    (first,) = ask(stored.engine, "SELECT id, built_rows FROM vector_index_parts WHERE state = 'ready'")
    assert first["built_rows"] == 1_000
    stored.delete(ids[:700])
    rest(chosen, stored.engine)
    (second,) = ask(stored.engine, "SELECT id, built_rows FROM vector_index_parts WHERE state = 'ready'")
    assert second["id"] != first["id"]
    assert second["built_rows"] == 300
    assert stored.recall() >= 0.97
    stored.delete(ids[700:950])
    rest(chosen, stored.engine)
    assert ranges(stored.engine) == []
    assert stored.recall() == 1.0


def test_parts_are_counted_for_a_hundredth_of_the_time(stored: Stored, chosen: Settings) -> None:
    ids = stored.add(500)
    rest(chosen, stored.engine)
    stored.delete(ids[:10])

    def counted() -> int:
        """What is alive, as the builder knows it after a look."""
        with stored.engine.connect() as connection:
            is_due = index_catalogue.disorder(connection)
        vector_index.tend(chosen, 0.0, AT_REST)
        (part,) = ask(stored.engine, "SELECT live_rows FROM vector_index_parts WHERE state = 'ready'")
        assert is_due or part["live_rows"] == 500
        return int(part["live_rows"])

    def age(took: float, seconds: float) -> None:
        statement = "UPDATE vector_index_parts SET count_seconds = :took, counted_at = clock_timestamp() - :age"
        run(stored.engine, f"{statement} * INTERVAL '1 s'", took=took, age=seconds)

    age(took=3.0, seconds=200.0)
    assert counted() == 500
    age(took=0.1, seconds=50.0)
    assert counted() == 500
    age(took=3.0, seconds=310.0)
    assert eventually(lambda: counted() == 490)
    (part,) = ask(stored.engine, "SELECT count_seconds FROM vector_index_parts")
    assert 0 < part["count_seconds"] < 3


def test_a_clock_that_was_set_back_keeps_no_part_and_no_count(stored: Stored, chosen: Settings) -> None:
    ids = stored.add(300)
    seal(chosen)
    stored.add(300)
    rest(chosen, stored.engine)
    assert len(indexes(stored.engine)) == 2
    stored.delete(ids[:10])
    for column in ("changed_at", "counted_at"):
        run(stored.engine, f"UPDATE vector_index_parts SET {column} = {column} + INTERVAL '1 day'")
    assert is_in_disorder(stored.engine)

    def in_order() -> bool:
        vector_index.tend(chosen, 0.0, AT_REST)
        return status(chosen, stored.engine)["vectors"] == 590 and len(indexes(stored.engine)) == 1

    eventually(in_order)


def test_a_part_whose_index_somebody_dropped_is_slower_and_not_wrong(stored: Stored, chosen: Settings) -> None:
    stored.add(300)
    rest(chosen, stored.engine)
    (name,) = indexes(stored.engine)
    run(stored.engine, f"DROP INDEX {name}")
    assert is_in_disorder(stored.engine)
    assert stored.recall() == 1.0
    rest(chosen, stored.engine)
    assert len(indexes(stored.engine)) == 1
    assert ranges(stored.engine) == [(1, 301)]


@pytest.fixture
def small(chosen: Settings) -> Settings:
    """A part holds 1,323 vectors at most."""
    return replace(chosen, index_memory_mb=1)


@pytest.mark.parametrize("look", [seal, lambda small: vector_index.tend(small, 0.0, AT_REST)])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_part_whose_index_is_lost_is_built_again_though_others_follow(
    stored: Stored, small: Settings, lost: int, look: Callable[[Settings], int | None]
) -> None:
    fill(stored.engine, MODEL, 3_000)
    rest(small, stored.engine)
    before = ranges(stored.engine)
    assert before == [(1, 1_324), (1_324, 2_647), (2_647, 3_001)]
    parts = ask(stored.engine, "SELECT id FROM vector_index_parts WHERE state = 'ready' ORDER BY from_id")
    run(stored.engine, f"DROP INDEX {index_catalogue.NAME}{parts[lost]['id']}")
    found = status(small, stored.engine)
    assert (found["vectors"], found["indexed"], found["open"], found["unindexed"]) == (3_000, 1_677, 1_323, 1_323)
    assert not found["settled"]
    eventually(lambda: look(small) is not None)
    assert ranges(stored.engine) == before
    found = status(small, stored.engine)
    assert (found["indexed"], found["unindexed"], found["settled"]) == (3_000, 0, True)


def test_a_gap_of_long_ago_is_filled(stored: Stored, small: Settings) -> None:
    fill(stored.engine, MODEL, 3_000)
    rest(small, stored.engine)
    before = ranges(stored.engine)
    run(stored.engine, "DELETE FROM vector_index_parts WHERE from_id = 1324")
    assert status(small, stored.engine)["unindexed"] == 1_323
    rest(small, stored.engine)
    assert ranges(stored.engine) == before


@pytest.mark.parametrize("name", ["an old one", "OLD", "100%", 'with "quotes"'])
def test_an_index_that_somebody_renamed_does_not_stand_in_the_way(stored: Stored, chosen: Settings, name: str) -> None:
    stored.add(300)
    part = seal(chosen)
    renamed = f"{index_catalogue.NAME}{name}"
    quoted = renamed.replace('"', '""')
    run(stored.engine, f'ALTER INDEX {index_catalogue.NAME}{part} RENAME TO "{quoted}"')
    rest(chosen, stored.engine)
    assert ranges(stored.engine) == [(1, 301)]
    assert renamed not in indexes(stored.engine)
    assert stored.recall() >= 0.97


def test_the_index_is_switched_off_and_on(stored: Stored, chosen: Settings) -> None:
    stored.add(300)
    rest(chosen, stored.engine)
    off = replace(chosen, vector_index="off")
    with stored.engine.connect() as connection:
        assert vector_index.is_due(connection, off, 0.0, AT_REST)
    vector_index.tend(off, 0.0, AT_REST)
    assert ranges(stored.engine) == []
    assert stored.recall() == 1.0
    found = status(off, stored.engine)
    assert (found["kind"], found["vectors"], found["unindexed"], found["settled"]) == ("exact", 300, 0, True)
    rest(chosen, stored.engine)
    assert ranges(stored.engine) == [(1, 301)]


def test_the_parts_of_a_model_that_is_no_more_are_dropped(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.add(300)
    rest(chosen, stored.engine)
    run(stored.engine, "UPDATE embedding_models SET active = FALSE")
    run(stored.engine, "DELETE FROM message_embeddings")
    run(stored.engine, "UPDATE vector_index_parts SET live_rows = 0")
    assert is_in_disorder(stored.engine)
    count_always(monkeypatch)
    monkeypatch.setattr(index_catalogue, "RETIRE_SECONDS", 0.0)
    seal(chosen)
    seal(chosen)
    assert indexes(stored.engine) == []
    assert ask(stored.engine, "SELECT FROM vector_index_parts") == []


def test_a_set_that_is_being_deleted_gets_no_index(stored: Stored, chosen: Settings) -> None:
    """Its vectors may be the newest."""
    with stored.engine.begin() as connection:
        reembedding.start(connection, SECOND, DIMENSIONS, {})
    fill(stored.engine, SECOND, 300)
    with stored.engine.begin() as connection:
        assert [model.name for model in index_catalogue.models(connection, chosen)] == [MODEL, SECOND]
        reembedding.undo(connection)
        assert [model.name for model in index_catalogue.models(connection, chosen)] == [MODEL]


def test_a_second_set_has_its_index_though_the_newest_vectors_are_the_active_model_s(
    stored: Stored, chosen: Settings
) -> None:
    """Both have parts of the same vectors' ids, and neither takes those of the other away."""
    stored.add(300)
    rest(chosen, stored.engine)
    with stored.engine.begin() as connection:
        reembedding.start(connection, SECOND, DIMENSIONS, {})
    fill(stored.engine, SECOND, 300)
    stored.add(index_catalogue.NEWEST)
    with stored.engine.connect() as connection:
        assert not second_set.is_indexed(connection, SECOND, chosen)
    assert parts_of_second(stored, chosen, looks=3) == [(1, 801, 300)]
    with stored.engine.connect() as connection:
        assert second_set.is_indexed(connection, SECOND, chosen)
    active = ranges(stored.engine)
    assert active[0] == (1, 301)
    with stored.engine.begin() as connection:
        reembedding.undo(connection)
    assert parts_of_second(stored, chosen, looks=0) == []
    assert ranges(stored.engine) == active
    assert stored.recall() >= 0.97


def test_the_index_of_a_second_set_begins_where_its_vectors_do(stored: Stored, small: Settings) -> None:
    """They are few beside those of the active model, and most of the newest."""
    fill(stored.engine, MODEL, 5_000)
    with stored.engine.begin() as connection:
        reembedding.start(connection, SECOND, DIMENSIONS, {})
    fill(stored.engine, SECOND, 2_000)
    assert parts_of_second(stored, small, looks=6) == [(1, 6_324, 1_323), (6_324, 7_001, 677)]
    with stored.engine.connect() as connection:
        assert second_set.is_indexed(connection, SECOND, small)
        (second,) = (each for each in index_catalogue.models(connection, small) if each.name == SECOND)
        now = index_catalogue.situation(connection, second, index_plan.Limits.of(small, DIMENSIONS))
        assert (now.open_rows, now.rows) == (0, 2_000)


def test_an_empty_part_of_a_set_that_is_coming_is_kept(
    stored: Stored, small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    count_always(monkeypatch)
    fill(stored.engine, MODEL, 3_000)
    with stored.engine.begin() as connection:
        reembedding.start(connection, SECOND, DIMENSIONS, {})
    fill(stored.engine, SECOND, 500)
    run(stored.engine, "UPDATE embedding_models SET first_id = 1")  # as before it was known
    assert parts_of_second(stored, small, looks=8)[-1][1] == 3_501
    with stored.engine.begin() as connection:
        assert second_set.is_indexed(connection, SECOND, small)
        reembedding.stop(connection)
    run(stored.engine, "DELETE FROM message_embeddings WHERE model = :model", model=SECOND)
    assert parts_of_second(stored, small, looks=2) == []


def parts_of_second(stored: Stored, small: Settings, looks: int) -> list[tuple[int, int, int]]:
    """What of the second set is indexed after so many looks while texts come in slowly: ranges and their vectors."""
    for _ in range(looks):
        eventually(lambda: not is_building(stored.engine))
        seal(small)
    query = """
        SELECT from_id, to_id, live_rows FROM vector_index_parts WHERE model = :model AND state = 'ready'
        ORDER BY from_id
    """
    return [tuple(row.values()) for row in ask(stored.engine, query, model=SECOND)]


def is_in_disorder(engine: Engine) -> bool:
    with engine.connect() as connection:
        return index_catalogue.disorder(connection)


def is_building(engine: Engine) -> bool:
    """The session of the builder before may not have ended yet."""
    with engine.connect() as connection:
        return index_catalogue.is_building(connection)


@pytest.mark.parametrize("kind", ["off", "too many dimensions"])
def test_the_status_counts_the_active_model_only_where_no_index_is_wanted(
    stored: Stored, chosen: Settings, kind: str
) -> None:
    fill(stored.engine, MODEL, 3)
    fill(stored.engine, SECOND, 7)
    if kind == "off":
        chosen = replace(chosen, vector_index="off")
    else:
        run(stored.engine, "UPDATE embedding_models SET dimensions = :many", many=index_catalogue.MAX_DIMENSIONS + 1)
    found = status(chosen, stored.engine)
    assert (found["vectors"], found["open"]) == (3, 3)

"""Search by meaning: the messages nearest to a vector, over the parts of the index and what none of them covers.

Three ways, each with `limit` results wherever so many match: the indexes; an exact pass over the vectors of few
matching messages; an exact pass over everything, where the indexes gave up too early.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, text

import settings
from db.queries import HIT, Row, narrowing

# A filter that so few messages pass is answered from just their vectors: 4 microseconds each, which an index scan that
# has to look for them cannot beat.
FEW = 5_000
# With a filter the messages of so many open vectors are looked up one by one, the nearest first, until enough pass: 40
# ms of 20,000 instead of 550 for a join to all messages. Where hardly one passes it is 5 microseconds each.
MANY_OPEN = 200_000
# About twice as many vectors are asked for as hits: some are of one message, some of texts that were edited since.
SPARE = 8

# Sent with each statement, for it alone where no transaction is open. Sorting is made unattractive, or PostgreSQL would
# rather read and sort a part that it believes small than walk its graph. relaxed_order finds more of the nearest than
# strict_order; what comes out is sorted anyway. Beside indexes nothing is read as a whole: before its first ANALYZE
# PostgreSQL takes what lies outside of the parts for a third of the table, a quarter of a second at a million vectors.
# But for a filter over a very large open part, which is joined to its messages as a whole.
SETTINGS = """
    SELECT set_config('hnsw.ef_search', :ef, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
        set_config('jit', 'off', true), set_config('enable_sort', 'off', true),
        set_config('enable_seqscan', :seqscan, true);
"""

READY_PARTS = text("""
    SELECT from_id, to_id FROM vector_index_parts WHERE model = :model AND state = 'ready' ORDER BY from_id
""")


def semantic(
    connection: Connection,
    vector: Sequence[float],
    model: str,
    *,
    limit: int,
    filter: Mapping[str, Any] | None = None,
    min_score: float | None = None,
    since: str | None = None,
    until: str | None = None,
    without: str | None = None,
) -> list[Row]:
    """The messages nearest to a vector, best first, each once with its best passage and the cosine similarity as score.

    A vector counts only while its content hash is that of its message, so no edited text is found by its old vector.
    `since` <= created_at < `until`. `without` leaves one message id out. In an open transaction, what it asks of
    PostgreSQL's planner holds until the end, so let it be the last statement there.
    """
    where, values = narrowing(filter, since, until)
    ef_search = max(settings.load().index_ef_search, wanted_of(limit))
    values |= {"query": literal(vector), "model": model, "limit": limit, "without": without, "ef": str(ef_search)}
    parts = ready_parts(connection, model)
    rows = None
    if parts and where and few_match(connection, where, values):
        rows = by_rows(connection, few(where, values), values)
    elif parts:
        rows = by_index(connection, parts, len(vector), where, values)
    if rows is None:
        rows = by_rows(connection, everything(where, values), values)
    for row in rows:
        row["score"] = min(1.0, row["score"])
    return [row for row in rows if min_score is None or row["score"] >= min_score]


def ready_parts(connection: Connection, model: str) -> list[tuple[int, int]]:
    """The ranges [from, to) of a model's vectors that an index covers, ascending."""
    return [(row[0], row[1]) for row in connection.execute(READY_PARTS, {"model": model})]


def literal(vector: Sequence[float]) -> str:
    return "[" + ",".join(f"{number:.7g}" for number in vector) + "]"


def wanted_of(limit: int) -> int:
    return limit * 2 + SPARE


def few_match(connection: Connection, where: Sequence[str], values: Row) -> bool:
    found = connection.execute(
        text(f"SELECT count(*) FROM (SELECT FROM text_messages m WHERE {' AND '.join(where)} LIMIT :most) AS found"),
        values | {"most": FEW + 1},
    ).scalar_one()
    return int(found) <= FEW


def hits(nearest: str) -> str:
    """The statement that makes hits of `nearest`, a SELECT of the best :wanted vectors.

    OFFSET 0 has each message looked up by its id; the planner would rather walk all of them in order than sort these.
    """
    return f"""{SETTINGS}
        WITH nearest AS MATERIALIZED ({nearest}), best AS (
            SELECT DISTINCT ON (n.message_id) n.* FROM nearest n CROSS JOIN LATERAL (
                SELECT FROM text_messages t WHERE t.id = n.message_id AND t.content_hash = n.content_hash OFFSET 0
            ) AS current
            ORDER BY n.message_id, n.distance
        )
        SELECT {HIT}, substr(m.message, b.passage_start + 1, b.passage_end - b.passage_start) AS passage,
            1 - b.distance AS score, (SELECT count(*) FROM nearest) AS seen
        FROM best b CROSS JOIN LATERAL (SELECT * FROM text_messages t WHERE t.id = b.message_id OFFSET 0) AS m
        ORDER BY b.distance, m.id LIMIT :limit
    """


def vectors_of(source: str, distance: str, conditions: Sequence[str]) -> str:
    return f"""
        (SELECT e.message_id, e.passage_start, e.passage_end, e.content_hash, {distance} AS distance
         FROM {source} WHERE {" AND ".join(conditions)} ORDER BY distance LIMIT :wanted)"""


def nearest_that_pass(source: str, distance: str, conditions: Sequence[str], where: Sequence[str]) -> str:
    """As `vectors_of`, of those whose message passes: sorted before the messages are looked up, so that the look-ups
    end with the last that is wanted."""
    return f"""
        (SELECT e.* FROM (
            SELECT e.message_id, e.passage_start, e.passage_end, e.content_hash, {distance} AS distance
            FROM {source} WHERE {" AND ".join(conditions)} ORDER BY distance OFFSET 0) AS e
         CROSS JOIN LATERAL (
            SELECT FROM text_messages m
            WHERE {" AND ".join(["m.id = e.message_id", "m.content_hash = e.content_hash", *where])} OFFSET 0) AS passes
         ORDER BY e.distance LIMIT :wanted)"""


def open_ids(connection: Connection, parts: Sequence[tuple[int, int]]) -> int:
    """How many ids at most lie outside of the parts."""
    last = connection.execute(text("SELECT coalesce(max(id), 0) FROM message_embeddings")).scalar_one()
    return int(last) + 1 - sum(to_id - from_id for from_id, to_id in parts)


def by_index(
    connection: Connection, parts: Sequence[tuple[int, int]], dimensions: int, where: Sequence[str], values: Row
) -> list[Row] | None:
    """What the indexes find, together with an exact scan of all ids outside of them; None: they found too little."""
    # With a filter the message is looked up for each vector that the graph yields, nearest first, until enough pass.
    messages = " JOIN text_messages m ON m.id = e.message_id AND m.content_hash = e.content_hash" if where else ""
    common = ["e.model = :model", *others(values), *where]
    # Written like the expression and the condition of the part's index, or PostgreSQL would not take it.
    indexed = f"e.embedding::halfvec({dimensions}) <=> :query ::halfvec({dimensions})"
    arms = [
        vectors_of(f"message_embeddings e{messages}", indexed, [f"e.id >= {from_id} AND e.id < {to_id}", *common])
        for from_id, to_id in parts
    ]
    # OFFSET 0 has the rows found by their ids alone. The primary key has the model, too, and PostgreSQL would read all
    # of that index to find out which of these few rows are of the one model that nearly all are of.
    rest = f"(SELECT * FROM message_embeddings WHERE {outside(parts)} OFFSET 0) AS e"
    distance = "e.embedding <=> :query ::halfvec"
    joined = bool(where) and open_ids(connection, parts) > MANY_OPEN
    if where and not joined:
        arms.append(nearest_that_pass(rest, distance, ["e.model = :model", *others(values)], where))
    else:
        arms.append(vectors_of(rest + messages, distance, common))
    statement = text(hits(f"SELECT * FROM ({' UNION ALL '.join(arms)}) AS arms ORDER BY distance LIMIT :wanted"))
    values = values | {"seqscan": "on" if joined else "off"}
    wanted = wanted_of(values["limit"])
    for _ in range(2):
        rows = [dict(row) for row in connection.execute(statement, values | {"wanted": wanted}).mappings()]
        if len(rows) >= values["limit"]:
            return without_seen(rows)
        if not rows or rows[0]["seen"] < wanted:
            break
        wanted *= 4
    return None


def outside(parts: Sequence[tuple[int, int]]) -> str:
    """The condition that holds for every id that is in none of the parts, whatever the catalogue says."""
    gaps = [f"id >= {parts[-1][1]}"]
    if parts[0][0] > 1:
        gaps.append(f"id < {parts[0][0]}")
    for (_, end), (start, _) in pairwise(parts):
        if start > end:
            gaps.append(f"id >= {end} AND id < {start}")
    return "(" + " OR ".join(gaps) + ")"


def others(values: Row) -> list[str]:
    return [] if values["without"] is None else ["e.message_id <> :without ::uuid"]


def few(where: Sequence[str], values: Row) -> str:
    """The nearest of all vectors of the messages that match: by message, which is how the primary key begins."""
    conditions = " AND ".join(["e.model = :model", *others(values)])
    return f"""
        SELECT e.message_id, e.passage_start, e.passage_end, e.content_hash,
            e.embedding <=> :query ::halfvec AS distance
        FROM (SELECT m.id, m.content_hash FROM text_messages m WHERE {" AND ".join(where)} LIMIT {FEW + 1}) AS matching
        CROSS JOIN LATERAL (
            SELECT * FROM message_embeddings e
            WHERE e.message_id = matching.id AND e.content_hash = matching.content_hash AND {conditions} OFFSET 0) AS e
        ORDER BY distance LIMIT :wanted"""


def everything(where: Sequence[str], values: Row) -> str:
    source = "message_embeddings e" + (" JOIN text_messages m ON m.id = e.message_id" if where else "")
    return vectors_of(source, "e.embedding <=> :query ::halfvec", ["e.model = :model", *others(values), *where])


def by_rows(connection: Connection, nearest: str, values: Row) -> list[Row]:
    """An exact pass, widened until there are enough messages or no more vectors."""
    statement = text(hits(nearest))
    values = values | {"seqscan": "on"}
    wanted = wanted_of(values["limit"])
    while True:
        rows = [dict(row) for row in connection.execute(statement, values | {"wanted": wanted}).mappings()]
        # Too few, because several passages of one message or outdated vectors were among the nearest: look further.
        if len(rows) >= values["limit"] or not rows or rows[0]["seen"] < wanted:
            return without_seen(rows)
        wanted *= 4


def without_seen(rows: list[Row]) -> list[Row]:
    for row in rows:
        del row["seen"]
    return rows

"""Search by meaning: the messages nearest to a vector, over the parts of the index and what none of them covers.

Three ways, each with `limit` results if that many match: the indexes; an exact pass over the vectors of few matching
messages; an exact pass over everything, if an index gave up too early.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import inf, isnan
from typing import Any

import numpy as np
import orjson
from sqlalchemy import Connection, TextClause, text

from db.index_catalogue import last_id
from db.queries import HIT, Row, narrowing
from settings import Settings

# A filter that at most this many messages pass is answered from just their vectors: 4 microseconds each, which an index
# scan that has to look for them cannot beat.
FEW = 5_000
# With a filter the messages of up to this many open vectors are looked up one by one, the nearest first, until enough
# pass: 40 ms for 20,000, instead of 550 for a join to all messages. If hardly one passes, it is 5 microseconds each.
MANY_OPEN = 200_000
# About twice as many vectors are asked for as hits: some belong to the same message, some to texts edited since.
SPARE = 8
# This many of the nearest a graph is trusted to yield in good order. Somewhere behind them hnsw.max_scan_tuples, which
# counts all that was compared (20,000), ends the walk, and what comes then is whatever the walk happened to pass.
REACH = 2_000

EXACT = "e.embedding <=> :query ::halfvec"

# Sent with each statement, for it alone if no transaction is open. Sorting is made unattractive, or PostgreSQL would
# rather read and sort a part that it believes small than walk its graph. relaxed_order finds more of the nearest than
# strict_order; what comes out is sorted anyway. Beside indexes nothing is read as a whole: before its first ANALYZE
# PostgreSQL takes what lies outside of the parts for a third of the table, a quarter of a second at a million vectors.
# Exception: a filter over a very large open part (MANY_OPEN), whose join needs a sequential scan. For a filter by time
# alone bitmap scans are off too: before the first ANALYZE PostgreSQL expects a third of all messages to match and
# would read them all, instead of walking the index from the newest.
SETTINGS = """
    SELECT set_config('hnsw.ef_search', :ef, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),
        set_config('jit', 'off', true), set_config('enable_sort', 'off', true),
        set_config('enable_seqscan', :seqscan, true), set_config('enable_bitmapscan', :bitmapscan, true);
"""

# A part of which deletions have left fewer vectors than are wanted is read faster without its index.
READY = "FROM vector_index_parts WHERE model = {} AND state = 'ready' AND live_rows >= :least ORDER BY from_id"
READY_PARTS = text(f"SELECT from_id, to_id {READY.format(':model')}")
IN_USE = text(f"""
    SELECT m.name, CASE WHEN m.follow_now THEN m.followed_by END AS coming,
        ARRAY(SELECT ARRAY[from_id, to_id] {READY.format("m.name")}) AS parts
    FROM embedding_models m WHERE m.active
""")


@dataclass(frozen=True)
class InUse:
    """The active model, the one that is about to take its place, and the ready parts of the active one's index."""

    model: str | None
    coming: str | None
    parts: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Asked:
    """What is looked for: `limit` messages `m` under the conditions `where`, by vectors `e` under the conditions `of`;
    and the values that these bind. `of_time`: `where` speaks of times only."""

    limit: int
    where: Sequence[str]
    of: Sequence[str]
    values: Row
    of_time: bool = False


@dataclass(frozen=True)
class Found:
    """The hits among the nearest vectors that were `seen`. Each arm of the statement has yielded all that is nearer
    than its reach: inf if it yielded as many as wanted, -inf if nothing."""

    hits: list[Row]
    seen: int
    reaches: Sequence[float]

    def needed(self, limit: int) -> float:
        """How far an arm has to reach so that it has missed nothing better than these hits. A vector of zeros, whose
        distance is NaN, is farther than any other."""
        last = float(self.hits[-1]["distance"]) if len(self.hits) >= limit else inf
        return inf if isnan(last) else last


def semantic(
    connection: Connection,
    settings: Settings,
    vector: Sequence[float],
    model: str,
    *,
    limit: int,
    filter: Mapping[str, Any] | None = None,
    min_score: float | None = None,
    since: str | None = None,
    until: str | None = None,
    without: str | None = None,
    parts: Sequence[tuple[int, int]] | None = None,
) -> list[Row]:
    """The messages nearest to a vector, best first, each once with its best passage and the cosine similarity as score.

    A vector counts only while its content hash is that of its message, so no edited text is found by its old vector.
    `since` <= created_at < `until`. `without` leaves one message id out. `parts` are those of `in_use` for this limit,
    asked for if they are not given. In an open transaction, what it asks of PostgreSQL's planner holds until the end,
    so let it be the last statement there.
    """
    where, values = narrowing(filter, since, until)
    wanted = wanted_of(limit)
    ef_search = max(settings.index_ef_search, wanted)
    values |= {"query": literal(vector), "model": model, "limit": limit, "without": without, "ef": str(ef_search)}
    of = ["e.model = :model", *([] if without is None else ["e.message_id <> :without ::uuid"])]
    asked = Asked(limit, where, of, values, of_time=bool(where) and not filter)
    if parts is None:
        parts = ready_parts(connection, model, least=wanted)
    if not parts:
        hits = by_rows(connection, everything(asked), asked, wanted)
    elif where and few_match(connection, asked):
        hits = by_rows(connection, few(asked), asked, wanted, in_order=asked.of_time)
    else:
        hits = by_index(connection, parts, len(vector), asked, wanted)
    for hit in hits:
        hit["score"] = min(1.0 - hit.pop("distance"), 1.0)
    least = -inf if min_score is None else min_score
    return [hit for hit in hits if hit["score"] >= least]  # never true of NaN, which a vector of zeros has


def in_use(connection: Connection, limit: int) -> InUse:
    """What a search for `limit` messages has to know first, in one statement."""
    row = connection.execute(IN_USE, {"least": wanted_of(limit)}).one_or_none()
    return InUse(row[0], row[1], [(part[0], part[1]) for part in row[2]]) if row else InUse(None, None, [])


def ready_parts(connection: Connection, model: str, least: int = 0) -> list[tuple[int, int]]:
    """The ranges [from, to) of a model's vectors that an index covers, ascending, if they have at least `least`."""
    return [(row[0], row[1]) for row in connection.execute(READY_PARTS, {"model": model, "least": least})]


def literal(vector: Sequence[float]) -> str:
    """The vector as pgvector reads it."""
    return orjson.dumps(np.asarray(vector, np.float32), option=orjson.OPT_SERIALIZE_NUMPY).decode()


def wanted_of(limit: int) -> int:
    return limit * 2 + SPARE


def few_match(connection: Connection, asked: Asked) -> bool:
    matching = f"SELECT FROM text_messages m WHERE {' AND '.join(asked.where)} LIMIT :most"
    statement = text(f"{SETTINGS if asked.of_time else ''} SELECT count(*) FROM ({matching}) AS found")
    values = asked.values | {"most": FEW + 1, "seqscan": "off", "bitmapscan": "off"}
    return int(connection.execute(statement, values).scalar_one()) <= FEW


@lru_cache(maxsize=128)  # taking it to pieces costs half a millisecond, and only parts and kinds of filters differ
def hits_of(arms: tuple[str, ...]) -> TextClause:
    """The statement that makes hits of the best :wanted vectors of all arms, each a SELECT of its best :wanted. Even if
    it finds no hit, it returns one row that tells what was seen.

    OFFSET 0 has each message looked up by its id; the planner would rather walk all of them in order than sort these.
    """
    numbered = " UNION ALL ".join(f"SELECT {number} AS arm, a.* FROM {arm} AS a" for number, arm in enumerate(arms))
    return text(f"""{SETTINGS}
        WITH arms AS MATERIALIZED ({numbered}), nearest AS MATERIALIZED (
            SELECT * FROM arms ORDER BY distance LIMIT :wanted
        ), best AS (
            SELECT DISTINCT ON (n.message_id) n.* FROM nearest n CROSS JOIN LATERAL (
                SELECT FROM text_messages t WHERE t.id = n.message_id AND t.content_hash = n.content_hash OFFSET 0
            ) AS current
            ORDER BY n.message_id, n.distance
        ), hits AS (
            SELECT {HIT}, substr(m.message, b.passage_start + 1, b.passage_end - b.passage_start) AS passage, b.distance
            FROM best b CROSS JOIN LATERAL (SELECT * FROM text_messages t WHERE t.id = b.message_id OFFSET 0) AS m
            ORDER BY b.distance, m.id LIMIT :limit
        ), seen AS (
            SELECT (SELECT count(*) FROM nearest) AS seen, ARRAY(
                SELECT CASE WHEN count(arm) >= :wanted THEN 'infinity' ELSE coalesce(max(distance), '-infinity') END
                FROM generate_series(0, {len(arms) - 1}) AS number LEFT JOIN arms ON arm = number
                GROUP BY number ORDER BY number
            ) AS reaches
        )
        SELECT * FROM seen LEFT JOIN hits ON TRUE ORDER BY distance, id
    """)


def find(
    connection: Connection, arms: Sequence[str], asked: Asked, wanted: int, *, seqscan: str, bitmapscan: str = "on"
) -> Found:
    values = asked.values | {"wanted": wanted, "seqscan": seqscan, "bitmapscan": bitmapscan}
    rows = [dict(row) for row in connection.execute(hits_of(tuple(arms)), values).mappings()]
    seen, reaches = rows[0]["seen"], rows[0]["reaches"]
    hits = [row for row in rows if row["id"] is not None]
    for hit in hits:
        del hit["seen"], hit["reaches"]
    return Found(hits, seen, reaches)


def vectors_of(source: str, distance: str, conditions: Sequence[str]) -> str:
    return f"""
        (SELECT e.message_id, e.passage_start, e.passage_end, e.content_hash, {distance} AS distance
         FROM {source} WHERE {" AND ".join(conditions)} ORDER BY distance LIMIT :wanted)"""


def nearest_that_pass(source: str, distance: str, conditions: Sequence[str], where: Sequence[str]) -> str:
    """As `vectors_of`, of the vectors whose message passes. They are sorted before the messages are looked up, so that
    the look-ups end with the last vector that is wanted."""
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
    return last_id(connection) + 1 - sum(to_id - from_id for from_id, to_id in parts)


def by_index(
    connection: Connection, parts: Sequence[tuple[int, int]], dimensions: int, asked: Asked, wanted: int
) -> list[Row]:
    """What the indexes find, together with an exact scan of all ids outside of them. It is widened as long as the
    indexes yield as many vectors as that takes; if an index gives up before, everything is searched exactly.

    An index gives up on a filter that few messages near the query pass, or if most of what it holds was deleted.
    """
    while parts and wanted <= REACH:
        found = find_by_index(connection, parts, dimensions, asked, wanted)
        needed = found.needed(asked.limit)
        short = [part for part, reach in zip(parts, found.reaches, strict=False) if reach < needed]
        if short and asked.where and not walked(connection, short, dimensions, asked, needed):
            break
        if short and not asked.where:
            parts = [part for part in parts if part not in short]  # the others are scanned like what is open
        elif len(found.hits) >= asked.limit:
            return found.hits
        else:
            wanted *= 4
    return by_rows(connection, everything(asked), asked, wanted)


def find_by_index(
    connection: Connection, parts: Sequence[tuple[int, int]], dimensions: int, asked: Asked, wanted: int
) -> Found:
    # With a filter the message is looked up for each vector that the graph yields, nearest first, until enough pass.
    messages = " JOIN text_messages m ON m.id = e.message_id AND m.content_hash = e.content_hash" if asked.where else ""
    conditions = [*asked.of, *asked.where]
    arms = [
        vectors_of(f"message_embeddings e{messages}", indexed(dimensions), [within(part), *conditions])
        for part in parts
    ]
    # OFFSET 0 has the rows found by their ids alone. The primary key has the model, too, and PostgreSQL would read all
    # of that index to find which of these few rows are the model's, as nearly all rows are.
    rest = f"(SELECT * FROM message_embeddings WHERE {outside(parts)} OFFSET 0) AS e"
    joined = bool(asked.where) and open_ids(connection, parts) > MANY_OPEN
    if asked.where and not joined:
        arms.append(nearest_that_pass(rest, EXACT, asked.of, asked.where))
    else:
        arms.append(vectors_of(rest + messages, EXACT, conditions))
    return find(connection, arms, asked, wanted, seqscan="on" if joined else "off")


def walked(
    connection: Connection, parts: Sequence[tuple[int, int]], dimensions: int, asked: Asked, needed: float
) -> bool:
    """Whether each part's index was walked as far as needed before it gave up, so that nothing nearer was missed. Often
    the filter is a time that a whole part fails. Asked without the filter: the walk is the same, and short."""
    if needed == inf:
        return False
    arms = [
        f"(SELECT {indexed(dimensions)} AS distance FROM message_embeddings e "
        f"WHERE {' AND '.join([within(part), *asked.of])} ORDER BY distance LIMIT 1 OFFSET {REACH})"
        for part in parts
    ]
    statement = text(f"{SETTINGS} SELECT count(*) FROM ({' UNION ALL '.join(arms)}) AS arms WHERE distance >= :needed")
    values = asked.values | {"needed": needed, "seqscan": "off", "bitmapscan": "on"}
    return int(connection.execute(statement, values).scalar_one()) == len(parts)


def indexed(dimensions: int) -> str:
    """The distance, written like the expression of a part's index, or PostgreSQL would not use the index."""
    return f"e.embedding::halfvec({dimensions}) <=> :query ::halfvec({dimensions})"


def within(part: tuple[int, int]) -> str:
    """Written like the condition of the part's index."""
    return f"e.id >= {part[0]} AND e.id < {part[1]}"


def outside(parts: Sequence[tuple[int, int]]) -> str:
    """The condition that holds for every id outside of the parts, whatever the catalogue says."""
    gaps = [f"id >= {parts[-1][1]}"]
    if parts[0][0] > 1:
        gaps.append(f"id < {parts[0][0]}")
    for (_, end), (start, _) in pairwise(parts):
        if start > end:
            gaps.append(f"id >= {end} AND id < {start}")
    return "(" + " OR ".join(gaps) + ")"


def few(asked: Asked) -> str:
    """The nearest of all vectors of the messages that match; read by message, with which the primary key begins. Twice
    as many as few are read, for what has come to match since they were counted."""
    return f"""
        (SELECT e.message_id, e.passage_start, e.passage_end, e.content_hash, {EXACT} AS distance
        FROM (
            SELECT m.id, m.content_hash FROM text_messages m WHERE {" AND ".join(asked.where)} LIMIT {2 * FEW}
        ) AS matching
        CROSS JOIN LATERAL (
            SELECT * FROM message_embeddings e
            WHERE e.message_id = matching.id AND e.content_hash = matching.content_hash
                AND {" AND ".join(asked.of)} OFFSET 0) AS e
        ORDER BY distance LIMIT :wanted)"""


def everything(asked: Asked) -> str:
    source = "message_embeddings e" + (" JOIN text_messages m ON m.id = e.message_id" if asked.where else "")
    return vectors_of(source, EXACT, [*asked.of, *asked.where])


def by_rows(connection: Connection, nearest: str, asked: Asked, wanted: int, *, in_order: bool = False) -> list[Row]:
    """An exact pass, widened until there are enough messages or no more vectors; `in_order`: by indexes alone."""
    scan = "off" if in_order else "on"
    while True:
        found = find(connection, [nearest], asked, wanted, seqscan=scan, bitmapscan=scan)
        # Too few hits mean that several passages of a message or outdated vectors were among the nearest: look further.
        if len(found.hits) >= asked.limit or found.seen < wanted:
            return found.hits
        wanted *= 4

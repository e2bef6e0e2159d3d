"""What is read for people: messages, search by words, counts. Short explicit SQL that returns dicts; nothing writes.
Search by meaning is in vector_search, what only the console or a trace shows in console_queries and trace_queries.

The APIs run these with the read-only role. Times come as ISO 8601 strings in UTC, made by PostgreSQL, because a row
typed by hand may hold a time that Python has no type for ('infinity').
"""

from collections.abc import Mapping, Sequence
from typing import Any

import simplejson
from sqlalchemy import Connection, text

from db import index_catalogue, reembedding_status, session, text_index, word_matches
from db.sql import ACTIVE
from settings import Settings

Row = dict[str, Any]

RRF_CONSTANT = 60  # Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion": 60 is their value
FUSED = 100  # how many of each ranking are fused
# How many matches of a search for words are ranked. To rank a text is to read and parse it again, 20 microseconds each:
# a word that every second one of a million messages has would take ten seconds.
RANKED = 5_000
# And of how many bytes: a megabyte takes 120 ms, so that 5,000 texts of 100,000 characters would take a minute.
RANKED_BYTES = 10_000_000

# A page ends with the message that brings its texts and metadata to so many bytes: a thousand of the longest texts are
# 200 MB and more, and the API has them in memory several times while it answers. To measure them costs a quarter of a
# millisecond, and so few (UNMEASURED) of the longest, 100,000 characters of four bytes, have no more.
PAGE_BYTES = 8_000_000
UNMEASURED = 20
# As stored, so that no text is read twice; metadata that PostgreSQL has compressed may be a hundred times as much.
BYTES = """octet_length(m.message) + CASE WHEN pg_column_compression(m.metadata) IS NULL
    THEN coalesce(pg_column_size(m.metadata), 0) ELSE octet_length(m.metadata::text) END"""

# OFFSET 0 has both looked up for each message of a page. The planner counts what that costs for the whole table, not
# for the ten rows that are wanted, and would rather read all vectors into a hash: 90 ms with 140,000 of them.
MESSAGE = f"""
    m.id::text AS id, m.source_id, m.message, m.metadata,
    to_json(m.created_at) #>> '{{}}' AS created_at, to_json(m.processed_at) #>> '{{}}' AS processed_at,
    CASE
        WHEN EXISTS (SELECT FROM message_embeddings e WHERE e.message_id = m.id AND e.model = {ACTIVE}
                     AND e.content_hash = m.content_hash OFFSET 0) THEN 'ready'
        WHEN EXISTS (SELECT FROM embedding_failures f WHERE f.message_id = m.id AND f.content_hash = m.content_hash
                     AND f.model = coalesce({ACTIVE}, f.model) OFFSET 0) THEN 'failed'
        ELSE 'pending'
    END AS embedding"""


def message(connection: Connection, message_id: str) -> Row | None:
    """One message by its UUID, in the form of the REST API, or None."""
    row = connection.execute(text(f"SELECT {MESSAGE} FROM text_messages m WHERE m.id = :id ::uuid"), {"id": message_id})
    found = row.mappings().one_or_none()
    return dict(found) if found else None


def newest(
    connection: Connection,
    settings: Settings,
    *,
    limit: int,
    after: tuple[str, str] | None = None,
    words: str | None = None,
) -> Row:
    """A page of messages, newest first: {"messages", "count", "next"}. `words` keeps those that full text finds. A page
    has `limit` messages, or fewer if their texts are long (PAGE_BYTES), but always one.

    `next` is the (created_at, id) of the last message if more follow, else None; as `after` it gives the page behind
    that message. Plan: text_messages_newest in order, or word_matches. In an open transaction the planner settings of
    the latter hold until the end.
    """
    where = ["TRUE"]
    values: Row = {"limit": limit + 1}
    if after is not None:
        where.append("(m.created_at, m.id) < (:created_at ::timestamptz, :id ::uuid)")
        values |= {"created_at": after[0], "id": after[1]}
    before, found = "", f"text_messages m WHERE {' AND '.join(where)}"
    if words is not None:
        words = word_matches.few_dashes(words)
        values |= {"words": words}
        before = f"""{word_matches.hints(settings)}
            WITH page AS MATERIALIZED ({word_matches.newest_ids(settings, words, where, ":limit")})"""
        found = f"page CROSS JOIN LATERAL {word_matches.WHOLE} AS m"
    ordered = "ORDER BY m.created_at DESC NULLS LAST, m.id DESC"
    columns = MESSAGE
    if limit > UNMEASURED:
        columns += ", m.more"
        found = f"""(
            SELECT m.*, sum({BYTES}) OVER earlier AS bytes_before, lead(m.id) OVER earlier IS NOT NULL AS more
            FROM {found} WINDOW earlier AS ({ordered} ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            {ordered} LIMIT :limit) AS m WHERE coalesce(m.bytes_before, 0) < {PAGE_BYTES}"""
    answer = connection.execute(text(f"{before} SELECT {columns} FROM {found} {ordered} LIMIT :limit"), values)
    names = list(answer.keys())  # mappings() would take longer
    rows: list[Row] = [dict(zip(names, row, strict=True)) for row in answer]
    page = rows[:limit]
    more = [row.pop("more", len(rows) > limit) for row in page]
    following = None
    if page and more[-1] and page[-1]["created_at"] is not None:
        following = (page[-1]["created_at"], page[-1]["id"])
    return {"messages": page, "count": len(page), "next": following}


def version(connection: Connection, message_id: str) -> tuple[int, int, int] | None:
    """The version of a stored message, (timestamp, partition, offset), or None if there is none."""
    row = connection.execute(
        text("""
            SELECT version_timestamp, version_partition, version_offset FROM text_messages WHERE id = :id ::uuid
        """),
        {"id": message_id},
    ).one_or_none()
    return (row[0], row[1], row[2]) if row else None


def deletion(connection: Connection, message_id: str) -> tuple[int, int, int] | None:
    """The version of a remembered deletion, or None."""
    row = connection.execute(
        text("""
            SELECT version_timestamp, version_partition, version_offset FROM deleted_messages WHERE id = :id ::uuid
        """),
        {"id": message_id},
    ).one_or_none()
    return (row[0], row[1], row[2]) if row else None


# Not as a WHERE: the planner would go through the primary key by its later columns, and for each row to the table.
EMBEDDED = f"SELECT count(*) FILTER (WHERE passage_number = 0 AND model = {ACTIVE}) FROM message_embeddings"
PENDING = """SELECT coalesce(sum(cardinality(message_ids)), 0)::bigint FROM embedding_jobs
    WHERE NOT deleted AND model IS NULL"""
FAILED = f"SELECT count(*) FROM embedding_failures WHERE model = coalesce({ACTIVE}, model)"


def counts(connection: Connection) -> Row:
    """{"messages", "embeddings", "pending", "failed", "dead_letters"}: embedded messages, those waiting for a vector,
    those that failed, and the dead letters that are open. The first two are None if it takes too long to count them.
    """

    def ask(messages: str, embeddings: str) -> Row:
        found = connection.execute(
            text(f"""
                SELECT ({messages}) AS messages, ({embeddings}) AS embeddings,
                    ({PENDING}) AS pending, ({FAILED}) AS failed,
                    (SELECT count(*) FROM dead_letters WHERE state = 'open') AS dead_letters
            """)
        )
        return dict(found.mappings().one())

    return session.in_time(
        connection,
        lambda _: ask("SELECT count(*) FROM text_messages", EMBEDDED),
        lambda _: ask("SELECT NULL", "SELECT NULL"),
    )


def under_way(connection: Connection) -> Row:
    """{"pending", "failed"} of the counts, which are cheap however many messages there are."""
    return dict(connection.execute(text(f"SELECT ({PENDING}) AS pending, ({FAILED}) AS failed")).mappings().one())


def per_minute(connection: Connection) -> list[Row] | None:
    """How many messages were created in each of the last 60 minutes, oldest first: {"minute", "messages"}. None where
    these are so many that it takes too long."""
    return session.in_time(connection, of_each_minute, lambda _: None)


def of_each_minute(connection: Connection) -> list[Row] | None:
    rows = connection.execute(
        text("""
            SELECT to_json(minute) #>> '{}' AS minute, coalesce(messages, 0) AS messages
            FROM generate_series(date_trunc('minute', now()) - INTERVAL '59 min', now(), INTERVAL '1 min') AS minute
            LEFT JOIN (
                SELECT date_trunc('minute', created_at) AS minute, count(*) AS messages FROM text_messages
                WHERE created_at >= date_trunc('minute', now()) - INTERVAL '59 min'
                    AND created_at < now() + INTERVAL '1 min'
                GROUP BY 1
            ) AS counted USING (minute)
            ORDER BY 1
        """)
    )
    return [dict(row) for row in rows.mappings()]


def sizes(connection: Connection, settings: Settings) -> Row:
    """{"embedded", "index", "reembedding"}: what PostgreSQL has to read whole tables for. None for each that takes too
    long; of the change to another model only its numbers are None then."""

    def embedded(connection: Connection) -> Any:
        return connection.execute(text(EMBEDDED)).scalar_one()

    def index(connection: Connection) -> Any:
        return index_catalogue.status(connection, settings)

    return {
        "embedded": session.in_time(connection, embedded, lambda _: None),
        "index": session.in_time(connection, index, lambda _: None),
        "reembedding": session.in_time(connection, reembedding_status.status, reembedding_status.uncounted),
    }


def status(connection: Connection, counted: Row) -> Row:
    """{"status", "model", "dimensions", "embedded", "pending", "failed", "oldest_pending_seconds", "index",
    "reembedding"}: the change to another model (db.reembedding), or None. `counted` are the sizes."""
    model = connection.execute(text("SELECT name, dimensions FROM embedding_models WHERE active")).one_or_none()
    waiting = connection.execute(
        text(f"""
            SELECT ({PENDING}) AS pending, ({FAILED}) AS failed,
                (SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM embedding_jobs
                 WHERE NOT deleted AND model IS NULL) AS oldest
        """)
    ).one()
    return {
        "status": "catching_up" if waiting.pending else "up_to_date",
        "model": model.name if model else None,
        "dimensions": model.dimensions if model else None,
        "embedded": counted["embedded"],
        "pending": waiting.pending,
        "failed": waiting.failed,
        "oldest_pending_seconds": round(float(waiting.oldest), 3) if waiting.oldest is not None else None,
        "index": counted["index"],
        "reembedding": counted["reembedding"],
    }


def active_model(connection: Connection) -> str | None:
    """The name of the model whose vectors answer searches; None before the first worker has started."""
    return connection.execute(text(ACTIVE)).scalar_one_or_none()


HIT = """m.id::text AS id, m.source_id, m.message, m.metadata, to_json(m.created_at) #>> '{}' AS created_at"""


def narrowing(filter: Mapping[str, Any] | None, since: str | None, until: str | None) -> tuple[list[str], Row]:
    """These filters as conditions on a message `m`, and their values."""
    where: list[str] = []
    values: Row = {}
    if filter:
        where.append("m.metadata @> :filter ::jsonb")
        values["filter"] = simplejson.dumps(filter, use_decimal=True)
    if since is not None:
        where.append("m.created_at >= :since ::timestamptz")
        values["since"] = since
    if until is not None:
        where.append("m.created_at < :until ::timestamptz")
        values["until"] = until
    return where, values


def keyword(
    connection: Connection,
    settings: Settings,
    words: str,
    *,
    limit: int,
    shown: int | None = None,
    filter: Mapping[str, Any] | None = None,
    min_score: float | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[Row]:
    """The messages that hold the words, best first: `score` is ts_rank_cd scaled to 0..1, `passage` the excerpt that
    fits, which only the first `shown` have, for it is costly. Of more matches than RANKED, or than make up
    RANKED_BYTES, only the newest are ranked."""
    where, values = narrowing(filter, since, until)
    words = word_matches.few_dashes(words)
    values |= {"words": words, "limit": limit, "shown": limit if shown is None else shown}
    language, query = settings.keyword_language, word_matches.query(settings)
    statement = f"""{word_matches.hints(settings)}
        WITH page AS MATERIALIZED ({word_matches.newest_ids(settings, words, where, str(RANKED))}), found AS (
            SELECT m.id, ts_rank_cd({text_index.words(language, "m.message")}, {query}, 32) AS score
            FROM (
                SELECT m.id, m.message, sum(octet_length(m.message)) OVER earlier AS bytes_before
                FROM page CROSS JOIN LATERAL {word_matches.WHOLE} AS m WINDOW earlier AS (
                    ORDER BY m.created_at DESC NULLS LAST, m.id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
            ) AS m WHERE coalesce(m.bytes_before, 0) < {RANKED_BYTES} ORDER BY score DESC, m.id LIMIT :limit
        )
        SELECT {HIT}, CASE WHEN row_number() OVER (ORDER BY f.score DESC, m.id) <= :shown
            THEN {text_index.excerpt(language, "m.message", query)} ELSE '' END AS passage, f.score
        FROM found f JOIN text_messages m ON m.id = f.id ORDER BY f.score DESC, m.id"""
    hits = [dict(row) for row in connection.execute(text(statement), values).mappings()]
    return [hit for hit in hits if min_score is None or hit["score"] >= min_score]


def fuse(rankings: Sequence[Sequence[Row]], limit: int) -> list[Row]:
    """Reciprocal rank fusion: a message scores the sum of 1 / (60 + its rank) over the rankings that it is in. A hit
    that only one of them has is among its first `limit`."""
    scores: dict[str, float] = {}
    hits: dict[str, Row] = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            scores[hit["id"]] = scores.get(hit["id"], 0.0) + 1 / (RRF_CONSTANT + rank)
            hits.setdefault(hit["id"], hit)
    best = sorted(scores, key=lambda message_id: (-scores[message_id], message_id))[:limit]
    return [hits[message_id] | {"score": scores[message_id]} for message_id in best]


def first_vector(connection: Connection, message_id: str, model: str) -> list[float] | None:
    """The vector of a message's first passage, or None while it has none for its current text."""
    row = connection.execute(
        text("""
            SELECT e.embedding::text FROM message_embeddings e
            JOIN text_messages m ON m.id = e.message_id AND m.content_hash = e.content_hash
            WHERE e.message_id = :id ::uuid AND e.model = :model ORDER BY e.passage_number LIMIT 1
        """),
        {"id": message_id, "model": model},
    ).scalar_one_or_none()
    return [float(number) for number in row.strip("[]").split(",")] if row is not None else None

"""The calls of the search API: by meaning, by words or both, the neighbours of a message, and how far the index is."""

import logging
import math
import re
import time
from typing import Any

from flask import Response
from sqlalchemy.exc import SQLAlchemyError

from api import schemas, waits
from api.answers import json_answer
from api.lookup import stored
from api.model import Model, query_vector
from api.openapi import Answer, Operation, problem, unavailable
from api.parts import Parts
from api.problems import Problem, Unavailable
from api.schemas import SearchRequest, SimilarQuery
from db import queries, session, vector_search
from db.session import first_line
from embedder import Embedder, EmbedderUnavailable, ModelError, UnembeddableText

log = logging.getLogger(__name__)

MAX_WORDS = 64  # of a keyword search
WORD = re.compile(r"[^\W_]+")
OR = re.compile(r'(?<![^\s"])(or)(?![\w-])', re.IGNORECASE)
SIGNS = re.compile(r"[-!&|()<:]+")  # what stands before a word, where a dash negates it and PostgreSQL skips the rest
MODEL_TRIES = 3

UNKNOWN = {
    "model": None,
    "dimensions": None,
    "embedded": None,
    "pending": None,
    "failed": None,
    "oldest_pending_seconds": None,
    "index": None,
    "reembedding": None,
}


def search(parts: Parts, body: SearchRequest) -> Response:
    return json_answer(find(parts, body))


def find(parts: Parts, asked: SearchRequest) -> dict[str, Any]:
    """What POST /embeddings/search answers. Raises Problem."""
    began = time.perf_counter()
    wanted = asked.limit if asked.mode != "hybrid" else max(asked.limit, queries.FUSED)
    narrowed: dict[str, Any] = {"limit": wanted, "filter": asked.filter, "since": asked.since, "until": asked.until}
    if asked.mode != "hybrid":
        narrowed["min_score"] = asked.min_score
    model, rankings = ranked(parts, asked, narrowed)
    if asked.mode == "hybrid":
        hits = queries.fuse(rankings, asked.limit)
        hits = [hit for hit in hits if asked.min_score is None or hit["score"] >= asked.min_score]
    else:
        (hits,) = rankings
    took = time.perf_counter() - began
    parts.metrics.search_seconds.labels(asked.mode).observe(took)
    return answer(asked.query, asked.mode, model, took, hits)


def ranked(parts: Parts, asked: SearchRequest, narrowed: dict[str, Any]) -> tuple[str | None, list[list[queries.Row]]]:
    """The model that was asked (None: none), and the hits by meaning, by words, or both, in this order.

    A vector is only compared with those of its own model. If another model becomes the active one while the query is
    embedded, it is embedded again. Raises Problem.
    """
    for _ in range(MODEL_TRIES):
        embedder, vector = None, None
        if asked.mode != "keyword":
            with waits.not_counted():
                embedder = parts.model.ready()
                vector = embed(parts.model, embedder, asked.query)
        rankings = []
        with parts.reader.connect() as connection:
            if embedder is not None:
                index = vector_search.in_use(connection, narrowed["limit"])
            if embedder is None or index.model in (None, embedder.model):
                if embedder is not None and index.coming is not None:
                    parts.model.next.prepare(index.coming)
                if asked.mode != "semantic":
                    words = some_words(asked.query)
                    rankings.append(queries.keyword(connection, parts.settings, words, shown=asked.limit, **narrowed))
                if embedder is not None:  # the first of the rankings, whose passages are shown
                    found = (
                        vector_search.semantic(
                            connection, parts.settings, vector, embedder.model, parts=index.parts, **narrowed
                        )
                        if vector
                        else []
                    )
                    rankings.insert(0, found)
                return (embedder.model if embedder is not None else None), rankings
        with waits.not_counted():
            parts.model.follow(index.model)
    raise Unavailable("the model is being changed; mode keyword works meanwhile")


def some_words(query: str) -> str:
    """The query, or the first words of a very long one: PostgreSQL's ranking takes seconds for thousands of words. As
    in PostgreSQL, "snake_case" is two words, an "or" between two is none, also with a comma, and a dash by itself
    belongs to the word behind it. What comes again counts once, unless it stands in quotes: a phrase without it would
    be another one. Behind an "or" it is a word of another alternative."""
    if len(WORD.findall(query)) <= MAX_WORDS:
        return query
    kept: list[str] = []
    known: set[str] = set()
    free, in_quotes, is_or, before = MAX_WORDS, False, True, ""
    for word in OR.sub(r" \1 ", query).split():
        quotes = word.count('"')
        if not in_quotes and SIGNS.fullmatch(word):
            before += word
            continue
        word, before = before + word, ""
        if not in_quotes and not quotes:
            is_or = word.lower() == "or" and not is_or  # at the beginning, or behind another one, it is a word
            if is_or:
                known.clear()
                kept.append(word)
                continue
            if word in known:
                continue
            known.add(word)
        is_or = False
        in_quotes ^= quotes % 2 == 1
        parts = list(WORD.finditer(word))[:free]
        kept.append(word if len(parts) < free else word[: parts[-1].end()])
        free -= len(parts)
        if not free:
            break
    return " ".join(kept)


def embed(model: Model, embedder: Embedder, query: str) -> list[float] | None:
    """The query's vector; None for a query without any meaning (all zero), which is near no text.
    Raises Problem."""
    try:
        with model.places.one():
            vector = query_vector(embedder, query)
    except UnembeddableText as error:
        raise Problem(400, f"query: the model cannot embed this text: {error}") from None
    except (EmbedderUnavailable, ModelError) as error:
        raise Unavailable(f"the embedding model does not work: {error}; mode keyword works without it") from None
    return vector.tolist() if vector.any() else None


def answer(query: str, mode: str, model: str | None, took: float, hits: list[queries.Row]) -> dict[str, Any]:
    results = [
        {name: hit[name] for name in ("id", "source_id", "message", "passage", "metadata", "score", "created_at")}
        for hit in hits
        if math.isfinite(hit["score"])
    ]
    return {
        "query": query,
        "mode": mode,
        "model": model,
        "took_ms": round(took * 1000, 3),
        "count": len(results),
        "results": results,
    }


def similar(parts: Parts, id: str, query: SimilarQuery) -> Response:
    began = time.perf_counter()
    with parts.reader.connect() as connection:
        found = stored(connection, id)
        index = vector_search.in_use(connection, query.limit)
        vector = queries.first_vector(connection, found["id"], index.model) if index.model is not None else None
        if index.model is None or vector is None:
            raise Problem(409, f"this message has no neighbours to tell: its embedding is {found['embedding']}")
        hits = vector_search.semantic(
            connection,
            parts.settings,
            vector,
            index.model,
            limit=query.limit,
            without=found["id"],
            parts=index.parts,
        )
    return json_answer(answer(found["message"], "semantic", index.model, time.perf_counter() - began, hits))


def get_status(parts: Parts) -> Response:
    try:
        with parts.reader.connect() as connection:
            return json_answer(queries.status(connection, parts.sizes.of(connection)))
    except SQLAlchemyError as error:
        if not session.is_outage(error):
            raise
        said = "the database took too long" if session.was_canceled(error) else "the database is away"
        log.warning("GET /status: %s: %s", said, first_line(error))
        return json_answer({"status": "unavailable", **UNKNOWN}, 503)


OPERATIONS = [
    Operation(
        "POST",
        "/embeddings/search",
        search,
        "Search the messages",
        {
            200: Answer("the hits", schemas.SearchAnswer),
            503: unavailable(
                "the database is away, or the model is slow, not loaded, or not that of the stored vectors"
            ),
        },
        body=SearchRequest,
    ),
    Operation(
        "GET",
        "/embeddings/{id}/similar",
        similar,
        "The neighbours of a stored message",
        {
            200: Answer("the neighbours; `query` is the message's own text", schemas.SearchAnswer),
            404: problem("no message with this id is stored"),
            409: problem("the message has no embedding: it is pending, or it failed"),
            503: unavailable("the database is away"),
        },
        query=SimilarQuery,
    ),
    Operation(
        "GET",
        "/status",
        get_status,
        "How far the index is",
        {
            200: Answer("the state of the index", schemas.Status),
            503: Answer("the database is away, or took too long", schemas.Status),
        },
    ),
]

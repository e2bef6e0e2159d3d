"""Messages with vectors around some centres, and the builder, as the tests of the vector index need them."""

import json
import uuid
from collections.abc import Callable, Sequence

import numpy as np
from sqlalchemy import Engine, text

from db import commands, embeddings, index_catalogue, outbox, vector_index, vector_search
from db.embeddings import Embedded, Vectors
from db.index_plan import QUIET_SECONDS
from records import Record
from settings import Settings
from tests.parts import eventually
from tests.samples import LEASE, ask, content_hash, run

MODEL = "clustered-16"
DIMENSIONS = 16
AT_REST = 2 * QUIET_SECONDS
NOW = 1_700_000_000_000


class Stored:
    """Messages with vectors around some centres, as the tests know them; what is asked is checked against numpy."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.rng = np.random.default_rng(5)
        self.centres = self.rng.normal(size=(12, DIMENSIONS))
        self.vectors: dict[str, np.ndarray] = {}
        self.metadata: dict[str, dict[str, int]] = {}
        self.offset = 0
        with engine.begin() as connection:
            embeddings.register_model(connection, MODEL, DIMENSIONS)

    def points(self, count: int) -> np.ndarray:
        points = self.centres[self.rng.integers(0, 12, count)] + 0.5 * self.rng.normal(size=(count, DIMENSIONS))
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        return np.asarray(points.astype(np.float16), dtype=np.float32)

    def add(self, count: int, ids: Sequence[str] | None = None) -> list[str]:
        """Stores messages with their vectors, in batches; an id that is known is edited."""
        ids = list(ids or (str(uuid.uuid4()) for _ in range(count)))
        points = self.points(count)
        for first in range(0, count, 500):
            self.store(ids[first : first + 500], points[first : first + 500])
        return ids

    def store(self, ids: Sequence[str], points: np.ndarray) -> None:
        records, texts = [], []
        for message_id, point in zip(ids, points, strict=True):
            self.offset += 1
            self.vectors[message_id] = point
            self.metadata[message_id] = {"n": self.offset, "tenth": self.offset % 10, "dozen": self.offset // 12}
            texts.append(f"text {self.offset}")
            metadata = json.dumps(self.metadata[message_id])
            records.append(Record(message_id, None, texts[-1], metadata, NOW + self.offset, 0, self.offset, None))
        with self.engine.begin() as connection:
            made = commands.persist(connection, records, reserved_seconds=60)
            jobs = outbox.claim_jobs(connection, made.jobs, LEASE, 60)
        rows = Vectors(
            [uuid.UUID(each).bytes for each in ids],
            [content_hash(each) for each in texts],
            [0] * len(ids),
            [(0, len(each)) for each in texts],
            points,
        )
        with self.engine.begin() as connection:
            embeddings.finish_with_vectors(connection, jobs, LEASE, MODEL, Embedded(rows))

    def delete(self, ids: Sequence[str]) -> None:
        run(self.engine, "DELETE FROM text_messages WHERE id = ANY (CAST(:ids AS uuid[]))", ids=list(ids))
        for each in ids:
            del self.vectors[each]

    def nearest(
        self, query: np.ndarray, limit: int = 10, passes: Callable[[dict[str, int]], bool] = lambda _: True
    ) -> list[str]:
        fitting = [each for each in self.vectors if passes(self.metadata[each])]
        return sorted(fitting, key=lambda each: -self.cosine(each, query))[:limit]

    def cosine(self, message_id: str, query: np.ndarray) -> float:
        vector = self.vectors[message_id].astype(float)
        return float(vector @ query / np.linalg.norm(vector))

    def search(self, query: np.ndarray, limit: int = 10, **narrowed: object) -> list[str]:
        with self.engine.connect() as connection:
            hits = vector_search.semantic(connection, Settings(), query.tolist(), MODEL, limit=limit, **narrowed)  # type: ignore[arg-type]
        scores = [hit["score"] for hit in hits]
        assert scores == sorted(scores, reverse=True)
        found = [str(hit["id"]) for hit in hits]
        assert len(set(found)) == len(found)
        return found

    def recall(self, queries: int = 20) -> float:
        found = wanted = 0
        for query in self.points(queries):
            nearest, hits = self.nearest(query), self.search(query)
            assert len(hits) == len(nearest)
            found += len(set(nearest) & set(hits))
            wanted += len(nearest)
        return found / wanted


def seal(chosen: Settings) -> int | None:
    """What the builder does while texts come in slowly."""
    return vector_index.tend(chosen, rate=1.0, quiet_seconds=0.0)


def rest(chosen: Settings, engine: Engine) -> None:
    """What the builder does once nothing comes in any more, until nothing is left to do."""

    def settled() -> bool:
        vector_index.tend(chosen, rate=0.0, quiet_seconds=AT_REST)
        return bool(status(chosen, engine)["settled"])

    eventually(settled, timeout=60)


def status(chosen: Settings, engine: Engine) -> dict[str, object]:
    with engine.connect() as connection:
        return index_catalogue.status(connection, chosen)


def ranges(engine: Engine) -> list[tuple[int, int]]:
    with engine.connect() as connection:
        return vector_search.ready_parts(connection, MODEL)


def indexes(engine: Engine) -> list[str]:
    return [
        row["relname"]
        for row in ask(engine, "SELECT relname FROM pg_class WHERE relname LIKE 'message_embeddings_part_%'")
    ]


def plan(engine: Engine, condition: str) -> str:
    """How PostgreSQL finds the nearest under this condition, with what db.vector_search sets for its search."""
    query = "[" + ",".join("1" * DIMENSIONS) + "]"
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_sort = off"))
        rows = connection.execute(
            text(f"""
                EXPLAIN SELECT message_id FROM message_embeddings WHERE model = '{MODEL}' AND {condition}
                ORDER BY embedding::halfvec({DIMENSIONS}) <=> CAST('{query}' AS halfvec({DIMENSIONS})) LIMIT 5
            """)
        )
        return "\n".join(rows.scalars())

"""Vectors that were made before for the same text by the same model: reads only."""

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from db.sql import array


class PassageVector(NamedTuple):
    """The vector of one passage of a text; `span` is its start and end in characters."""

    number: int
    span: tuple[int, int]
    vector: NDArray[np.float32]


# A text may have been embedded for many messages: one of them is enough. The condition on the name is that of the index
# message_embeddings_contents.
QUERY = text("""
    SELECT e.content_hash::text, e.passage_number, e.passage_start, e.passage_end, e.embedding::real[]
    FROM unnest(:hashes ::uuid[]) AS wanted (content_hash)
    CROSS JOIN LATERAL (
        SELECT message_id FROM message_embeddings
        WHERE content_hash = wanted.content_hash AND model = :model AND model <> 'hashing-384' LIMIT 1) AS one
    JOIN message_embeddings e ON e.message_id = one.message_id AND e.model = :model
        AND e.content_hash = wanted.content_hash
    ORDER BY e.content_hash, e.passage_number
""")


def vectors_of(connection: Connection, model: str, hashes: Collection[bytes]) -> dict[bytes, list[PassageVector]]:
    """The vectors of texts, by content hash (16 bytes each), in the order of their passages; unknown ones are missing.

    halfvec keeps 11 bits of each number, so the copies are equal to what is stored.
    """
    values = {"model": model, "hashes": array(found.hex() for found in hashes)}
    known: dict[bytes, list[PassageVector]] = {}
    for found, number, start, end, vector in connection.execute(QUERY, values):
        row = PassageVector(number, (start, end), np.asarray(vector, dtype=np.float32))
        known.setdefault(bytes.fromhex(found.replace("-", "")), []).append(row)
    return known

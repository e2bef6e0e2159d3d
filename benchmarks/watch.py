"""Waiting until everything is visible, and when it became so; and whether what is there is what was sent."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import psycopg2
from numpy.typing import NDArray

from benchmarks.contestants import Layout
from benchmarks.processes import Meter
from benchmarks.texts import Text
from embedder import Embedder

LOOK_SECONDS = 0.25
# Less WAL than this in one look means that nobody is writing rows.
QUIET_BYTES = 65_536
COUNT_EVERY_SECONDS = 5.0
COUNT_SHARE = 0.005  # of the time, at most, goes to counting, which takes longer with each row
SAMPLE_SECONDS = 2.0  # a look at the memory of all processes takes some ten milliseconds
VERIFIED_TEXTS = 1_000  # about so many stored vectors are compared with the embedder's own

Connection = psycopg2.extensions.connection


class Unfinished(RuntimeError):
    """What was sent did not become visible in time, or is not what was sent."""


def ask(connection: Connection, query: str, *values: object) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values or None)
        return list(cursor.fetchall())


def number(connection: Connection, query: str, *values: object) -> float:
    found = ask(connection, query, *values)[0][0]
    return float(found) if isinstance(found, int | float) else float(str(found))


def wait_until_visible(
    connection: Connection,
    layout: Layout,
    expected: int,
    *,
    timeout: float,
    meter: Meter,
    alive: Callable[[], str | None],
) -> None:
    """Waits for `expected` vectors, and hardly disturbs: rows are only counted when the server has gone quiet.

    Raises Unfinished.
    """
    began = counted = sampled = time.monotonic()
    position, pause = 0.0, COUNT_EVERY_SECONDS
    while True:
        now = time.monotonic()
        moved = number(connection, "SELECT pg_current_wal_insert_lsn() - '0/0'")
        if moved - position < QUIET_BYTES or now - counted > pause:
            count = number(connection, f"SELECT count(*) FROM {layout.vectors}")
            counted = time.monotonic()
            pause = max(COUNT_EVERY_SECONDS, (counted - now) / COUNT_SHARE)
            if count >= expected:
                return
            if now - began > timeout:
                raise Unfinished(f"only {count:.0f} of {expected} vectors after {timeout:.0f} s")
        position = moved
        if (ended := alive()) is not None:
            raise Unfinished(ended)
        if now - sampled > SAMPLE_SECONDS:
            sampled = now
            meter.sample()
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class Commits:
    """When vectors became visible: times in seconds since 1970, in order, and how many rows each commit brought."""

    at: Sequence[float]
    rows: Sequence[int]

    @property
    def first(self) -> float:
        return self.at[0]

    @property
    def last(self) -> float:
        return self.at[-1]

    @property
    def total(self) -> int:
        return sum(self.rows)

    @property
    def running_rate(self) -> float:
        """Vectors a second from the first visible one to the last. Those of the first commit were made before that, so
        they do not count."""
        return (self.total - self.rows[0]) / (self.last - self.first) if len(self.at) > 1 else float("nan")

    @property
    def second_half_rate(self) -> float:
        """Vectors a second from when half of them were visible: far from the work before the first one was."""
        reached = np.cumsum(self.rows)
        half = int(np.searchsorted(reached, self.total / 2))
        span = self.last - self.at[half]
        return float((self.total - reached[half]) / span) if span > 0 else float("nan")

    def times(self, every: int) -> NDArray[np.float64]:
        """When none was visible, when `every` of them were, twice as many, and so on; in seconds since 1970."""
        reached = np.cumsum(self.rows)
        marks = np.arange(0, self.total + 1, every)
        return np.interp(marks, np.concatenate(([0], reached)), np.concatenate(([self.first], self.at)))

    def rates(self, every: int) -> list[float]:
        """Vectors a second for each `every` of them, in the order in which they came."""
        return [float(every / span) for span in np.diff(self.times(every)) if span > 0]


def commits(connection: Connection, layout: Layout) -> Commits:
    rows = ask(
        connection,
        f"""SELECT extract(epoch FROM at)::float8, count(*)
            FROM (SELECT pg_xact_commit_timestamp(xmin) AS at FROM {layout.vectors})
            AS commits GROUP BY 1 ORDER BY 1""",
    )
    return Commits([float(str(row[0])) for row in rows], [int(str(row[1])) for row in rows])


def committed(connection: Connection, layout: Layout, ids: Sequence[str]) -> dict[str, float]:
    """When the vector of each of these texts was committed, or the last of several: seconds since 1970."""
    rows = ask(
        connection,
        f"""SELECT {layout.vector_id}::text, max(extract(epoch FROM pg_xact_commit_timestamp(xmin)))::float8
            FROM {layout.vectors} WHERE {layout.vector_id} = ANY (%s::{id_type(connection, layout)}[]) GROUP BY 1""",
        list(ids),
    )
    return {str(row[0]): float(str(row[1])) for row in rows}


def expected_checksum(texts: Sequence[Text]) -> int:
    """What `stored_checksum` must give: the sum, modulo 2**64, of the first 8 bytes of md5(id and text)."""
    return sum(int.from_bytes(hashlib.md5(f"{each.id} {each.text}".encode()).digest()[:8]) for each in texts) % 2**64


def stored_checksum(connection: Connection, layout: Layout) -> int:
    key = f"md5({layout.text_id}::text || ' ' || {layout.text_column})"
    half = "('x' || substr({key}, {start}, 8))::bit(32)::bigint"
    high, low = (half.format(key=key, start=start) for start in (1, 9))
    found = ask(connection, f"SELECT sum({high}::numeric * 4294967296 + {low}) FROM {layout.texts}")
    return int(str(found[0][0] or 0)) % 2**64


def verify(
    connection: Connection, layout: Layout, texts: Sequence[Text], embedder: Embedder | None
) -> dict[str, object]:
    """Compares counts and checksums of what is stored with what was sent. Raises Unfinished if they differ.

    Each text is checked by the checksum, and a sample of vectors against the embedder's own: their cosine is at least
    0.999 (a half float has 11 bits).
    """
    counted = {
        "texts": int(number(connection, f"SELECT count(*) FROM {layout.texts}")),
        "messages with a vector": int(
            number(connection, f"SELECT count(DISTINCT {layout.vector_id}) FROM {layout.vectors}")
        ),
    }
    for what, count in counted.items():
        if count != len(texts):
            raise Unfinished(f"{count} {what} where {len(texts)} were sent")
    if stored_checksum(connection, layout) != expected_checksum(texts):
        raise Unfinished("the texts are not those that were sent")
    least = None
    if embedder is not None:
        step = max(1, len(texts) // VERIFIED_TEXTS)
        chosen = {each.id: each.text for each in texts[::step] if len(embedder.passages(each.text)) == 1}
        stored = {
            str(row[0]): np.array([float(part) for part in str(row[1]).strip("[]").split(",")])
            for row in ask(
                connection,
                f"""SELECT {layout.vector_id}::text, embedding::text FROM {layout.vectors}
                    WHERE {layout.vector_id} = ANY (%s::{id_type(connection, layout)}[])""",
                list(chosen),
            )
        }
        own = embedder.embed(list(chosen.values()))
        cosines = [cosine(stored[key], vector) for key, vector in zip(chosen, own, strict=True)]
        least = round(min(cosines), 5)
        if not all(each >= 0.999 for each in cosines):  # false for NaN too
            raise Unfinished(f"a stored vector has a cosine of only {least} with the text's own")
    return {**counted, "checksum": "equal", "least cosine of sampled vectors": least}


def cosine(stored: NDArray[np.float64], unit: NDArray[np.float32]) -> float:
    """The cosine of a stored vector and a unit vector; 0 if the stored one is all zeros."""
    length = np.linalg.norm(stored)
    return float(stored @ unit / length) if length else 0.0


def id_type(connection: Connection, layout: Layout) -> str:
    found = ask(
        connection,
        "SELECT format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
        layout.vectors,
        layout.vector_id,
    )
    return str(found[0][0])

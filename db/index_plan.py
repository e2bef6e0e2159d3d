"""What the vector index needs next: pure decisions on what the catalogue and the counts say. Nothing here touches the
database; db.vector_index does, and carries out what is decided.

Vectors have ascending ids. A part is a range of ids with an HNSW index of its own; what lies above the last part is
open, and scanned exactly. So is a gap, the range of a part whose index was lost, until it is built again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from portions import portions
from settings import Settings

# pgvector's graph in memory while it builds: the vector, and about 760 bytes of links and bookkeeping (m = 16).
GRAPH_BYTES = 760
# No model embeds faster than this on a few cores: it is a burst, and its vectors wait for an index until it is over.
BURST_ROWS_PER_SECOND = 2_000.0
# A burst waits until BURST_SEALS times the sealing size is open. If rows come in LOST_RACE times as fast as an index
# grows, a build would only take a core from the burst and still fall behind: it waits for LOST_RACE_SEALS times the
# size, which is half a second of exact scan.
BURST_SEALS = 20
LOST_RACE = 2.0
LOST_RACE_SEALS = 100
# Below this rate it counts as quiet.
QUIET_ROWS_PER_SECOND = 20.0
QUIET_SECONDS = 10.0
# This many rows may wait beside the text indexes, except in a burst: they cost a search half a millisecond.
WAITING_ROWS = 2_000
# How many parts of a size are merged into one of the next, while rows come in or until everything is due.
FAN = 5
# An open part of a tenth of the sealing size takes half a millisecond to scan: at rest it may stay.
RESTING_SHARE = 0.1
# At rest everything is merged when this share of it is not in the largest part, or when the time since the last build
# is this many times what that build took: a third of one core at most is spent on tidiness.
UNTIDY_SHARE = 0.05
PATIENCE = 3.0
# The open part may grow to twice the sealing size while something is built; we plan for less.
MARGIN = 1.6
ASSUMED_ROWS_PER_SECOND = 1_500.0


@dataclass(frozen=True)
class Limits:
    """`seal_rows` make a part; `part_rows` fit the memory of a build."""

    seal_rows: int
    part_rows: int

    @classmethod
    def of(cls, settings: Settings, dimensions: int) -> "Limits":
        fitting = settings.index_memory_mb * 2**20 // (2 * dimensions + GRAPH_BYTES)
        return cls(settings.index_seal_rows, max(fitting, 1))


@dataclass(frozen=True)
class Part:
    """A part that is ready. Rows: in the index when it was built, and alive when last counted."""

    id: int
    from_id: int
    to_id: int
    built_rows: int
    live_rows: int
    build_seconds: float = 0.0
    age_seconds: float = 0.0  # since it became ready


@dataclass(frozen=True)
class Range:
    """[from_id, to_id), to get one index of about `rows` vectors, in place of the parts that lie in it."""

    from_id: int
    to_id: int
    rows: int


@dataclass(frozen=True)
class Situation:
    """One model's index. `parts` are in the order of their ids and do not overlap.

    `open_rows` are the model's own vectors above the last part, `open_span` those of any model there, which a scan has
    to pass; `next_id` is above every id so far. No vector of the model has an id below `first_id`.
    """

    parts: Sequence[Part]
    open_rows: int
    open_span: int
    next_id: int
    active: bool = True
    first_id: int = 1
    gaps: Sequence[Range] = ()

    @property
    def open_from(self) -> int:
        return self.parts[-1].to_id if self.parts else 1

    @property
    def rows(self) -> int:
        return self.open_rows + sum(part.live_rows for part in self.parts) + sum(gap.rows for gap in self.gaps)

    @property
    def build_rate(self) -> float:
        """Rows a second, as the last large enough build had them."""
        timed = [part for part in self.parts if part.build_seconds > 1 and part.built_rows > 1_000]
        last = min(timed, key=lambda part: part.age_seconds, default=None)
        return last.built_rows / last.build_seconds if last else ASSUMED_ROWS_PER_SECOND


def due(now: Situation, limits: Limits, rate: float, quiet_seconds: float) -> Range | None:
    """What to build next, or None. `rate` is how many vectors a second come in, `quiet_seconds` for how long hardly any
    have."""
    if quiet_seconds >= QUIET_SECONDS:
        return tidy(now, limits, patient=True)
    return seal(now, limits, rate) or fill(now, limits, rate) or merge(now, limits, rate)


def is_settled(now: Situation, limits: Limits) -> bool:
    """Whether nothing would be left to do if no more vectors came."""
    return tidy(now, limits, patient=False) is None


def is_quick(now: Situation, limits: Limits) -> bool:
    """Whether a search would be as fast as it can be while vectors come in slowly: nothing has to be indexed."""
    return seal(now, limits, 0.0) is None and fill(now, limits, 0.0) is None


def seal(now: Situation, limits: Limits, rate: float) -> Range | None:
    """The open part, once it is large enough; during a burst only when a search has too much of it to scan."""
    open_size = now.open_span if now.active else now.open_rows
    enough = limits.seal_rows
    if rate > BURST_ROWS_PER_SECOND:
        enough *= LOST_RACE_SEALS if rate > LOST_RACE * now.build_rate else BURST_SEALS
    if open_size < enough or is_small(now, limits):
        return None
    return first_rows(Range(now.open_from, now.next_id, now.open_rows), limits, now.first_id)


def fill(now: Situation, limits: Limits, rate: float) -> Range | None:
    """The first gap. A burst has the cores for itself; a table below the sealing size needs no index."""
    if not now.gaps or rate > BURST_ROWS_PER_SECOND or now.rows < limits.seal_rows:
        return None
    return first_rows(now.gaps[0], limits, now.first_id)


def first_rows(whole: Range, limits: Limits, first_id: int) -> Range:
    """As much of a range without an index as fits one build, by the density of its ids. It begins where the range does,
    because a search scans whatever lies below the first part, but its vectors begin at `first_id`."""
    if whole.rows <= limits.part_rows:
        return whole
    begin = max(whole.from_id, min(first_id, whole.to_id))
    ids = max(1, (whole.to_id - begin) * limits.part_rows // whole.rows)
    return Range(whole.from_id, min(begin + ids, whole.to_id), limits.part_rows)


def holes(parts: Sequence[Part]) -> list[tuple[int, int]]:
    """The ranges [from, to) that lie below the first part and between two of them."""
    ends = [1, *(part.to_id for part in parts)]
    return [(end, part.from_id) for end, part in zip(ends, parts, strict=False) if end < part.from_id]


def merge(now: Situation, limits: Limits, rate: float) -> Range | None:
    """While rows come in: FAN neighbours of a size become one, from the end, if that can be done before the open part
    is too large. So a row is built into an index once for each size, and there are fewer than FAN parts of each."""
    for size in range(1, 12):
        of_size = list(tail_of_size(now.parts, size, limits))
        rows = sum(part.live_rows for part in of_size)
        makes_the_next = rows >= smallest_of(size, limits)
        if len(of_size) < FAN or rows > limits.part_rows or not (makes_the_next or len(of_size) > 2 * FAN):
            continue
        if fits_in_between(now, limits, rate, rows):
            return Range(of_size[0].from_id, of_size[-1].to_id, rows)
    for part in now.parts:
        if is_shrunk(part) and fits_in_between(now, limits, rate, part.live_rows):
            return Range(part.from_id, part.to_id, part.live_rows)
    return None


def fits_in_between(now: Situation, limits: Limits, rate: float, rows: int) -> bool:
    """Whether so many rows are built before the open part has become too large."""
    return now.open_rows + rate * rows / now.build_rate < MARGIN * limits.seal_rows


def smallest_of(size: int, limits: Limits) -> float:
    """Rows that a part of the next size has at least; some of what was merged may have been deleted."""
    return 0.8 * limits.seal_rows * float(FAN) ** size


def tail_of_size(parts: Sequence[Part], size: int, limits: Limits) -> list[Part]:
    """The last parts that are not of a larger size; a size is FAN times the one before."""
    found: list[Part] = []
    for part in reversed(parts):
        if part.live_rows >= smallest_of(size, limits):
            break
        found.insert(0, part)
    return found


def tidy(now: Situation, limits: Limits, *, patient: bool) -> Range | None:
    """At rest: as few parts as the memory of a build allows, and hardly an open one.

    Neighbours that fit one build together are merged, the oldest first. A table below the sealing size has no index.
    """
    if now.rows < limits.seal_rows:
        return None
    waiting = Range(now.open_from, now.next_id, now.open_rows)
    # Built alone: what does not fit one build, and a range of vectors that are mostly another model's.
    if now.open_rows > limits.part_rows or now.open_span >= max(limits.seal_rows, 2 * now.open_rows):
        return first_rows(waiting, limits, now.first_id)
    for gap in now.gaps:
        if gap.rows > limits.part_rows:
            return first_rows(gap, limits, now.first_id)
    pieces = [Range(part.from_id, part.to_id, part.live_rows) for part in now.parts]
    pieces = sorted([*pieces, *now.gaps], key=lambda piece: piece.from_id)
    if now.open_rows:
        pieces.append(waiting)
    for neighbours in portions(([piece.rows for piece in pieces], limits.part_rows)):
        group = pieces[neighbours]
        whole = Range(group[0].from_id, group[-1].to_id, sum(piece.rows for piece in group))
        if worth(now, limits, group, whole, patient=patient):
            return whole
    return None


def worth(now: Situation, limits: Limits, group: Sequence[Range], whole: Range, *, patient: bool) -> bool:
    """Whether building a group (again) is worth it: not for a single part as it is, and not for a small gain."""
    built = [part for part in now.parts if whole.from_id <= part.from_id < whole.to_id]
    waiting = group[-1].rows if group[-1].from_id == now.open_from else 0
    if not built or any(whole.from_id <= gap.from_id < whole.to_id for gap in now.gaps):
        return True  # what has no index, of a table that deserves one
    if len(built) == 1 and waiting < RESTING_SHARE * limits.seal_rows and not is_shrunk(built[0]):
        return False
    outside = whole.rows - max(part.live_rows for part in built)
    if outside >= UNTIDY_SHARE * whole.rows or any(map(is_shrunk, built)):
        return True
    youngest = min(built, key=lambda part: part.age_seconds)
    slowest = max(part.build_seconds for part in built)
    return not patient or youngest.age_seconds > PATIENCE * slowest


def is_shrunk(part: Part) -> bool:
    """Whether more than half of it has been deleted: its index then finds too little among what is left."""
    return part.live_rows < part.built_rows / 2


def is_useless(now: Situation, limits: Limits) -> bool:
    """Whether so little is left that an exact scan needs no index."""
    return bool(now.parts) and is_small(now, limits)


def is_small(now: Situation, limits: Limits) -> bool:
    return now.rows < limits.seal_rows / 2


def gives_way(now: Situation, limits: Limits, rate: float, building: Range, elapsed: float) -> bool:
    """Whether a build of parts that exist already is to be broken off, because rows come in faster than it would end.

    Sealing the open part never gives way: it is what is needed then.
    """
    if rate <= QUIET_ROWS_PER_SECOND or not any(part.from_id == building.from_id for part in now.parts):
        return False
    left = max(0.0, building.rows / now.build_rate - elapsed)
    if rate > BURST_ROWS_PER_SECOND:
        return left > 2.0
    return now.open_rows + rate * left > 2 * limits.seal_rows

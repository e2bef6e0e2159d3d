"""What the vector index needs next, decided from counts alone."""

from dataclasses import replace

import pytest

from db.index_plan import (
    FAN,
    Limits,
    Part,
    Range,
    Situation,
    due,
    gives_way,
    is_quick,
    is_settled,
    is_useless,
)
from settings import Settings

LIMITS = Limits(seal_rows=1_000, part_rows=30_000)
BUSY, QUIET = 0.0, 60.0  # seconds without any vectors to speak of
NOBODY, MODEL, BURST, FLOOD = 0.0, 100.0, 2_500.0, 7_000.0  # vectors a second


def situation(*sizes: int, open_rows: int = 0, span: int | None = None, age: float = 1e6) -> Situation:
    """Parts of these sizes, one behind the other, and an open one."""
    parts, start = [], 1
    for number, size in enumerate(sizes):
        parts.append(Part(number + 1, start, start + size, size, size, size / 2_000, age))
        start += size
    span = open_rows if span is None else span
    return Situation(parts, open_rows, span, start + span)


def everything(now: Situation) -> Range:
    return Range(1, now.next_id, now.rows)


def test_a_small_table_has_no_index() -> None:
    for rows in (0, 1, 999):
        now = situation(open_rows=rows)
        assert due(now, LIMITS, MODEL, BUSY) is None
        assert due(now, LIMITS, NOBODY, QUIET) is None
        assert is_settled(now, LIMITS)


def test_the_open_part_is_sealed_when_it_is_large_enough() -> None:
    assert due(situation(1_000, open_rows=999), LIMITS, MODEL, BUSY) is None
    assert due(situation(1_000, open_rows=1_000), LIMITS, MODEL, BUSY) == Range(1_001, 2_001, 1_000)


def test_a_burst_is_indexed_when_it_is_over() -> None:
    now = situation(open_rows=15_000)
    assert due(now, LIMITS, BURST, BUSY) is None
    assert due(now, LIMITS, NOBODY, BUSY) == everything(now)


def test_a_burst_that_does_not_end_is_indexed_all_the_same() -> None:
    now = situation(open_rows=20_000)
    assert due(now, LIMITS, BURST, BUSY) == everything(now)
    now = situation(open_rows=60_000)
    assert due(now, LIMITS, BURST, BUSY) == Range(1, 30_001, 30_000)


def test_a_burst_that_no_build_keeps_up_with_is_indexed_only_when_scanning_it_takes_long() -> None:
    assert due(situation(open_rows=99_999), LIMITS, FLOOD, BUSY) is None
    assert due(situation(open_rows=100_000), LIMITS, FLOOD, BUSY) == Range(1, 30_001, 30_000)


def test_vectors_of_another_model_in_the_open_part_are_not_scanned_for_ever() -> None:
    now = situation(5_000, open_rows=12, span=1_200)
    assert due(now, LIMITS, MODEL, BUSY) == due(now, LIMITS, NOBODY, QUIET) == Range(5_001, 6_201, 12)
    inactive = replace(now, active=False)
    assert due(inactive, LIMITS, MODEL, BUSY) is None


def test_neighbours_of_a_size_are_merged_while_rows_come_in() -> None:
    few = situation(20_000, *[1_000] * (FAN - 1))
    assert due(few, LIMITS, MODEL, BUSY) is None
    enough = situation(20_000, *[1_000] * FAN)
    assert due(enough, LIMITS, MODEL, BUSY) == Range(20_001, 20_001 + FAN * 1_000, FAN * 1_000)


def test_parts_that_deletions_have_left_small_are_merged_all_the_same_once_there_are_many() -> None:
    many = situation(*[300] * (2 * FAN + 1))
    assert due(situation(*[300] * 2 * FAN), LIMITS, MODEL, BUSY) is None
    assert due(many, LIMITS, MODEL, BUSY) == everything(many)


def test_what_does_not_fit_the_memory_of_a_build_is_not_merged() -> None:
    assert due(situation(*[LIMITS.part_rows // FAN] * FAN), LIMITS, 10.0, BUSY) is not None
    assert due(situation(*[LIMITS.part_rows // FAN + 1] * FAN), LIMITS, 10.0, BUSY) is None


def test_a_merge_that_would_take_too_long_is_not_begun() -> None:
    now = situation(*[4_000] * FAN)
    assert due(now, LIMITS, 10.0, BUSY) == Range(1, FAN * 4_000 + 1, FAN * 4_000)
    assert due(now, LIMITS, 1_000.0, BUSY) is None


def test_the_number_of_parts_stays_small_while_rows_come_in() -> None:
    parts: list[Part] = []
    most = 0
    next_id = 1
    for number in range(200):  # 200,000 rows, in pieces of the sealing size
        next_id += 1_000
        while True:
            opened = next_id - (parts[-1].to_id if parts else 1)
            now = Situation(parts, opened, opened, next_id)
            wanted = due(now, Limits(1_000, 1_000_000), 10.0, BUSY)
            if wanted is None:
                break
            kept = [part for part in parts if not wanted.from_id <= part.from_id < wanted.to_id]
            new = Part(1000 + number, wanted.from_id, wanted.to_id, wanted.rows, wanted.rows, wanted.rows / 2_000, 10)
            parts = sorted([*kept, new], key=lambda part: part.from_id)
        most = max(most, len(parts))
    assert sum(part.live_rows for part in parts) == 200_000
    assert most <= 4 * (FAN - 1) + 1


def test_at_rest_everything_becomes_one_part() -> None:
    now = situation(10_000, 3_000, 1_000, open_rows=500)
    assert not is_settled(now, LIMITS)
    assert due(now, LIMITS, NOBODY, QUIET) == everything(now)
    assert is_settled(situation(14_500), LIMITS)
    assert is_settled(situation(14_500, open_rows=99), LIMITS)
    assert not is_settled(situation(14_500, open_rows=100), LIMITS)


def test_at_rest_there_are_as_many_parts_as_memory_makes_them() -> None:
    now = situation(28_000, 29_000, 4_000, open_rows=1_500)
    assert due(now, LIMITS, NOBODY, QUIET) == Range(57_001, 62_501, 5_500)
    assert is_settled(situation(28_000, 29_000, 5_500), LIMITS)


def test_a_little_untidiness_waits_for_a_while() -> None:
    fresh = situation(25_000, 200, age=5.0)
    assert due(fresh, LIMITS, NOBODY, QUIET) is None
    assert due(situation(25_000, 200, age=100.0), LIMITS, NOBODY, QUIET) == Range(1, 25_201, 25_200)


def test_a_part_that_has_lost_half_its_rows_is_built_again() -> None:
    shrunk = Part(1, 1, 10_001, built_rows=10_000, live_rows=4_999, build_seconds=5, age_seconds=1)
    now = Situation([shrunk], 0, 0, 10_001)
    assert due(now, LIMITS, NOBODY, QUIET) == due(now, LIMITS, 10.0, BUSY) == Range(1, 10_001, 4_999)
    halved = Situation([replace(shrunk, live_rows=5_001)], 0, 0, 10_001)
    assert due(halved, LIMITS, NOBODY, QUIET) is None
    assert is_settled(halved, LIMITS)


def test_what_is_left_of_a_table_needs_no_index() -> None:
    part = Part(1, 1, 10_001, built_rows=10_000, live_rows=200)
    assert is_useless(Situation([part], 299, 299, 10_300), LIMITS)
    assert not is_useless(Situation([part], 300, 300, 10_301), LIMITS)
    assert not is_useless(Situation([], 0, 0, 1), LIMITS)


def test_few_vectors_among_many_of_another_model_get_no_index_that_is_useless_at_once() -> None:
    assert due(situation(open_rows=499, span=1_200), LIMITS, MODEL, BUSY) is None
    assert due(situation(open_rows=500, span=1_200), LIMITS, MODEL, BUSY) is not None


def test_a_first_part_ends_where_the_model_has_so_many_vectors() -> None:
    """A second set begins far above the first one; below its first part nothing is left for searches to scan."""
    now = Situation([], 60_000, 1_060_000, 1_060_001, active=False, first_id=1_000_001)
    assert due(now, LIMITS, MODEL, BUSY) == due(now, LIMITS, NOBODY, QUIET) == Range(1, 1_030_001, 30_000)


def with_gap(rows: int, *sizes: int) -> Situation:
    """The first range is a gap, and parts follow."""
    whole = situation(rows, *sizes)
    return replace(whole, parts=whole.parts[1:], gaps=[Range(1, rows + 1, rows)])


def test_a_gap_is_filled() -> None:
    now = with_gap(20_000, 25_000, 1_000)
    assert due(now, LIMITS, MODEL, BUSY) == due(now, LIMITS, NOBODY, QUIET) == Range(1, 20_001, 20_000)
    assert not is_settled(now, LIMITS)
    assert not is_quick(now, LIMITS)
    assert due(now, LIMITS, BURST, BUSY) is None
    assert due(with_gap(100, 899), LIMITS, MODEL, BUSY) is None, "a small table has no index"


def test_a_gap_that_does_not_fit_one_build_is_filled_in_pieces() -> None:
    now = with_gap(45_000, 25_000)
    assert due(now, LIMITS, MODEL, BUSY) == due(now, LIMITS, NOBODY, QUIET) == Range(1, 30_001, 30_000)


def test_at_rest_a_gap_is_merged_with_its_neighbours() -> None:
    now = with_gap(5_000, 10_000)
    assert due(now, LIMITS, NOBODY, QUIET) == Range(1, 15_001, 15_000)


def test_a_merge_gives_way_to_what_comes_in_and_a_seal_does_not() -> None:
    now = situation(20_000, 1_000, open_rows=500)
    merge, seal = Range(1, 21_001, 21_000), Range(21_001, 21_501, 500)
    assert gives_way(now, LIMITS, 1_000.0, merge, elapsed=0.0)
    assert gives_way(now, LIMITS, BURST, merge, elapsed=0.0)
    assert not gives_way(now, LIMITS, 1_000.0, merge, elapsed=10.4)
    assert not gives_way(now, LIMITS, NOBODY, merge, elapsed=0.0)
    rest = situation(20_000, open_rows=3_000)
    assert not gives_way(rest, LIMITS, NOBODY, everything(rest), elapsed=0.0), "it would be begun again, and so on"
    assert not gives_way(now, LIMITS, BURST, seal, elapsed=0.0)


@pytest.mark.parametrize(("dimensions", "rows"), [(384, 350_000), (1_536, 140_000), (3_072, 78_000)])
def test_a_part_fits_the_memory_of_its_build(dimensions: int, rows: int) -> None:
    assert Limits.of(Settings(), dimensions).part_rows == pytest.approx(rows, rel=0.02)

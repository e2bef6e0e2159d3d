from hypothesis import given
from hypothesis import strategies as st

from portions import portions

LIMITS = st.integers(1, 60)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), max_size=40), LIMITS, st.integers(1, 5))
def test_portions_are_the_longest_runs_within_every_limit(
    items: list[tuple[int, int]], most: int, most_others: int
) -> None:
    weights, others = [item[0] for item in items], [item[1] for item in items]
    cut = list(portions((weights, most), (iter(others), most_others)))
    assert [item for portion in cut for item in items[portion]] == items

    def fits(first: int, end: int) -> bool:
        return sum(weights[first:end]) <= most and sum(others[first:end]) <= most_others

    for portion in cut:
        assert portion.stop - portion.start == 1 or fits(portion.start, portion.stop)
        assert portion.stop == len(items) or not fits(portion.start, portion.stop + 1)


def test_nothing_has_no_portions() -> None:
    assert list(portions(([], 1))) == []

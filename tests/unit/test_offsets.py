"""The commit rule, against a model: never beyond what is finished, always up to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition

from bridge.consumer import batches
from bridge.offsets import Offsets

ONE = TopicPartition("t", 0)
TWO = TopicPartition("t", 1)


def test_only_the_finished_run_from_the_front_is_committed() -> None:
    offsets = Offsets()
    first, second, third = (offsets.begin(ONE, offset) for offset in (10, 20, 30))
    offsets.finish(third)
    offsets.finish(second)
    assert offsets.committable() == {}
    offsets.finish(first)
    assert offsets.committable() == {ONE: 30}


def test_partitions_do_not_hold_each_other_back() -> None:
    offsets = Offsets()
    offsets.begin(ONE, 10)
    offsets.finish(offsets.begin(TWO, 5))
    assert offsets.committable() == {TWO: 5}


def test_a_confirmed_commit_is_not_made_again() -> None:
    offsets = Offsets()
    offsets.finish(offsets.begin(ONE, 10))
    offsets.committed(offsets.committable())
    assert offsets.committable() == {}


def test_a_commit_that_is_confirmed_after_its_partition_was_taken_away_is_made_again_when_that_is_back() -> None:
    offsets = Offsets()
    offsets.finish(offsets.begin(ONE, 10))
    sent = offsets.committable()
    offsets.forget([ONE])
    offsets.committed(sent)
    offsets.finish(offsets.begin(ONE, 10))
    assert offsets.committable() == {ONE: 10}


def test_a_partition_that_was_taken_away_is_forgotten_with_what_is_under_way() -> None:
    offsets = Offsets()
    run = offsets.begin(ONE, 10)
    offsets.forget([ONE])
    offsets.finish(run)
    assert offsets.committable() == {}
    again = offsets.begin(ONE, 10)  # it came back, and starts at the commit
    assert offsets.uncommitted == 1
    offsets.finish(again)
    assert offsets.committable() == {ONE: 10}


def test_a_run_of_an_earlier_assignment_does_not_finish_the_same_one_of_a_later() -> None:
    offsets = Offsets()
    old = offsets.begin(ONE, 10)
    offsets.forget([ONE])
    offsets.begin(ONE, 10)
    offsets.finish(old)
    assert offsets.committable() == {}


def test_a_position_is_committed_only_when_nothing_is_under_way() -> None:
    offsets = Offsets()
    run = offsets.begin(ONE, 10)
    offsets.skip_to(ONE, 12)
    assert offsets.committable() == {}
    offsets.finish(run)
    offsets.skip_to(ONE, 12)
    assert offsets.committable() == {ONE: 12}
    offsets.skip_to(ONE, 3)
    assert offsets.committable() == {ONE: 12}


def test_handing_over_backwards_is_a_bug() -> None:
    offsets = Offsets()
    offsets.begin(ONE, 10)
    with pytest.raises(ValueError, match="offset 10 handed over after 10"):
        offsets.begin(ONE, 10)


@given(st.data())
def test_the_committed_offset_is_the_first_unfinished_one(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    order = data.draw(st.permutations(range(count)))
    offsets = Offsets()
    runs = [offsets.begin(ONE, (number + 1) * 10) for number in range(count)]
    finished: set[int] = set()
    for number in order:
        offsets.finish(runs[number])
        finished.add(number)
        expected = next((place for place in range(count) if place not in finished), count) * 10
        assert offsets.committable().get(ONE, 0) == expected


class Sized:
    def __init__(self, size: int) -> None:
        self.key = None
        self.headers: list[tuple[str, bytes]] = []
        self.value = bytes(size)


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 10), st.integers(1, 60))
def test_batches_keep_order_and_bounds(sizes: list[int], most: int, most_bytes: int) -> None:
    records = [Sized(size) for size in sizes]
    cut = batches(records, most, most_bytes)
    assert [record for batch in cut for record in batch] == records
    for batch in cut:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(len(record.value) for record in batch) <= most_bytes


def test_a_commit_has_the_epoch_of_the_record_before_it() -> None:
    offsets = Offsets()
    assert offsets.epoch(ONE) == -1
    first, second = offsets.begin(ONE, 10, 3), offsets.begin(ONE, 20, 4)
    offsets.finish(second)
    assert offsets.epoch(ONE) == -1, "nothing may be committed yet"
    offsets.finish(first)
    assert (offsets.committable(), offsets.epoch(ONE)) == ({ONE: 20}, 4)
    offsets.skip_to(ONE, 20)
    assert offsets.epoch(ONE) == 4
    offsets.skip_to(ONE, 21)
    assert (offsets.committable(), offsets.epoch(ONE)) == ({ONE: 21}, -1), "that of the marker before it is not known"
    offsets.skip_to(ONE, 22, 5)
    assert (offsets.committable(), offsets.epoch(ONE)) == ({ONE: 22}, 5)
    offsets.forget([ONE])
    assert offsets.epoch(ONE) == -1

"""The commit rule: of each partition, only the run of finished hand-overs from the front is committed. Pure
bookkeeping.

A hand-over that is still under way holds back all later offsets of its partition, however many of them are finished; so
after a crash everything not known to be durable is read again, and nothing is skipped.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from kafka import TopicPartition


@dataclass(eq=False)
class Run:
    """A run of records of one partition that were handed over together; `next_offset` is the one after its last, whose
    leader epoch is `epoch`, or -1 if that is not known."""

    partition: TopicPartition
    next_offset: int
    epoch: int = -1
    finished: bool = False


class Offsets:
    """Which offsets may be committed, for the partitions that this consumer holds."""

    def __init__(self) -> None:
        self._runs: dict[TopicPartition, deque[Run]] = {}
        self._reached: dict[TopicPartition, int] = {}
        self._epochs: dict[TopicPartition, int] = {}
        self._committed: dict[TopicPartition, int] = {}

    def begin(self, partition: TopicPartition, next_offset: int, epoch: int = -1) -> Run:
        """Notes that the records before `next_offset` were handed over; called in the order of the log."""
        run = Run(partition, next_offset, epoch)
        runs = self._runs.setdefault(partition, deque())
        if runs and runs[-1].next_offset >= next_offset:
            raise ValueError(f"{partition}: offset {next_offset} handed over after {runs[-1].next_offset}")
        runs.append(run)
        return run

    def finish(self, run: Run) -> None:
        """Notes that the effect of a run is durable; the runs from the front that are finished may be committed."""
        run.finished = True
        runs = self._runs.get(run.partition)
        while runs and runs[0].finished:
            last = runs.popleft()
            self._reached[run.partition], self._epochs[run.partition] = last.next_offset, last.epoch

    def skip_to(self, partition: TopicPartition, offset: int, epoch: int = -1) -> None:
        """Lets a position be committed that no record reaches (behind a transaction marker), when nothing is under
        way."""
        if not self._runs.get(partition) and offset > self._reached.get(partition, -1):
            self._reached[partition], self._epochs[partition] = offset, epoch

    def committable(self) -> dict[TopicPartition, int]:
        """By partition, the next offset to be read, if it has moved since the last commit."""
        return {
            partition: offset for partition, offset in self._reached.items() if self._committed.get(partition) != offset
        }

    def epoch(self, partition: TopicPartition) -> int:
        """The leader epoch of the record before the offset that may be committed; -1 if it is not known."""
        return self._epochs.get(partition, -1)

    def committed(self, offsets: dict[TopicPartition, int]) -> None:
        """Notes a commit that the broker has confirmed."""
        for partition, offset in offsets.items():
            if partition in self._reached:
                self._committed[partition] = offset

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops what is known of partitions that were taken away: whoever has them now starts at the commit."""
        for partition in partitions:
            self._runs.pop(partition, None)
            self._reached.pop(partition, None)
            self._epochs.pop(partition, None)
            self._committed.pop(partition, None)

    @property
    def uncommitted(self) -> int:
        """How many runs are under way, or wait behind one that is."""
        return sum(map(len, self._runs.values()))

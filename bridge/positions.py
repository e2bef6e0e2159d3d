"""Where reading starts and where it goes on when the log is not what it was: made again, cut off, or cleared by
retention before it was read.

Each of these is said loudly, and nothing is skipped in silence. Kafka's own answer, `auto_offset_reset`, says nothing,
and does not notice a topic that was made again and has grown past the committed offset.
"""

import logging
from collections.abc import Callable, Iterable, Set
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.structs import OffsetAndMetadata

log = logging.getLogger(__name__)

# What a consumer with auto_offset_reset="none" raises out of poll, for `Positions.mend`.
OUT_OF_PLACE = (NoOffsetForPartitionError, OffsetOutOfRangeError, LogTruncationError)
ASK_MS = 2_000


class Positions:
    """The positions of one consumer in one topic; `forget` is told of partitions whose records are read anew."""

    def __init__(self, consumer: KafkaConsumer, topic: str, forget: Callable[[set[TopicPartition]], None]) -> None:
        self.consumer = consumer
        self.topic = topic
        self.forget = forget
        self.topic_id = ""  # the broker's id of the topic that is being read; brokers before Kafka 2.8 have none
        self.unchecked: set[TopicPartition] = set()
        self.done: dict[TopicPartition, int] = {}  # what was committed before the partition is read again

    def look(self) -> None:
        """Notices that the topic was deleted and made again while it is read. Costs no request: the client's metadata
        say so."""
        found = self.consumer._cluster.topic_id(self.topic)
        if found is None or str(found) == self.topic_id:
            return
        if self.topic_id:
            log.error(
                "the topic %s was deleted and made again (id %s, was %s): it is read from its beginning; records of "
                "the old one that were not read yet are lost",
                self.topic,
                found,
                self.topic_id,
            )
            self.restart(self.consumer.assignment())
        self.topic_id = str(found)

    def check(self) -> None:
        """Compares the topic with the one that the offsets of new partitions were committed for.

        Until that is known, nothing may be committed here: a commit would mark those offsets as today's topic's. If the
        partition has had another leader since, the client is made to ask Kafka whether the record before the offset is
        still the one that was read. Raises KafkaError.
        """
        self.unchecked &= self.consumer.assignment()
        if not self.topic_id:
            if self.consumer._cluster.partitions_for_topic(self.topic) is None:
                return  # another member may have been told of the topic sooner, and gives out its partitions
            self.look()  # the id comes with the partitions, if there is one
        for part in list(self.unchecked):
            self.done.pop(part, None)  # it may have been cut off or made again meanwhile
            committed = self.consumer.committed(part, metadata=True, timeout_ms=ASK_MS)
            if self.is_of_another_topic(committed):
                log.error(
                    "%s/%d: offset %d was committed for a topic of this name that is gone (id %s, now %s): the new one "
                    "is read from its beginning",
                    part.topic,
                    part.partition,
                    committed.offset,
                    committed.metadata,
                    self.topic_id,
                )
                self.restart({part})
            elif committed is not None and committed.leader_epoch >= 0 and self.mine([part]):
                self.start_at(part, committed)
            self.unchecked.discard(part)

    def is_of_another_topic(self, committed: OffsetAndMetadata | None) -> bool:
        """Whether an offset was committed for a topic of this name that is gone."""
        return bool(committed and committed.metadata and self.topic_id and committed.metadata != self.topic_id)

    def start_at(self, part: TopicPartition, committed: OffsetAndMetadata) -> None:
        """Tells the client the leader epoch of the committed offset, without which it has started. If the leader is a
        later one, the client then asks Kafka by itself. What it has read so far may be other records than those
        meant."""
        if committed.offset == position_of(self.consumer, part).offset or committed.leader_epoch < leader_epoch(
            self.consumer, part
        ):
            self.consumer._subscription.seek(part, committed)
            self.forget({part})

    def mend(self, error: Exception) -> None:
        """Finds a new position if the old one is not in the log. Raises KafkaError."""
        if isinstance(error, NoOffsetForPartitionError):
            self.begin(error.args[0])
        elif isinstance(error, LogTruncationError):
            for part, divergent in error.divergent_offsets.items():
                self.truncated(part, divergent)
        else:
            for part, offset in error.args[0].items():
                self.out_of_range(part, offset)

    def begin(self, parts: Iterable[TopicPartition]) -> None:
        """Starts at the beginning of partitions for which nothing was ever committed."""
        for part in self.mine(parts):
            self.consumer.seek_to_beginning(part)

    def out_of_range(self, part: TopicPartition, offset: int) -> None:
        first = self.consumer.beginning_offsets([part])[part]
        last = self.consumer.end_offsets([part])[part]
        if offset < first:
            self.say_removed(part, offset, first)
            for mine in self.mine([part]):  # what is under way lies before, and is still committed in its order
                self.consumer.seek(mine, first)
        else:
            log.error(
                "%s/%d: the log ends at offset %d, before the committed %d: it was cut off or made again, and is read "
                "from its beginning",
                part.topic,
                part.partition,
                last,
                offset,
            )
            self.restart({part})

    def say_removed(self, part: TopicPartition, offset: int, first: int) -> None:
        """Names the records that were to be read and have left the log. Only those that were never read are lost."""
        unread = max(offset, min(first, self.done.get(part, offset)))
        if offset < unread:
            log.warning(
                "%s/%d: retention removed %d records, offsets %d to %d, before they were read again; they had their "
                "effect before the rewind",
                part.topic,
                part.partition,
                unread - offset,
                offset,
                unread - 1,
            )
        if unread < first:
            log.error(
                "%s/%d: LOST %d records, offsets %d to %d: retention removed them before they were read; give the "
                "topic a longer retention.ms, or the pipeline more workers",
                part.topic,
                part.partition,
                first - unread,
                unread,
                first - 1,
            )

    def truncated(self, part: TopicPartition, divergent: Any) -> None:
        if divergent is not None and position_of(self.consumer, part).offset <= divergent.offset:
            return  # it was found at a position that was given up meanwhile, as that in a topic which was made again
        log.error("%s/%d: Kafka has lost records that were read already", part.topic, part.partition)
        if divergent is None:
            self.restart({part})
        elif self.mine([part]):
            self.go_back(part, divergent.offset)
            self.done.pop(part, None)  # other records stand there now

    def go_back(self, part: TopicPartition, wished: int) -> int | None:
        """Reads a partition of ours again from the wished offset, or from the committed one if that is earlier: what
        lies between may be under way here and nowhere else. Returns where reading goes on, None for the beginning.
        Raises KafkaError."""
        committed = self.consumer.committed(part, metadata=True, timeout_ms=ASK_MS)
        if committed is None or self.is_of_another_topic(committed):
            self.restart({part})
            return None
        offset = max(0, min(wished, int(committed.offset)))
        self.done[part] = max(self.done.get(part, 0), int(committed.offset))
        self.consumer.seek(part, offset)
        self.forget({part})  # last: if the seek failed, the next commit would skip what was forgotten
        return offset

    def restart(self, parts: set[TopicPartition]) -> None:
        """Reads partitions from their beginning. That stores no row twice, and makes no newer row older."""
        self.forget(parts)
        for part in parts:
            self.done.pop(part, None)
        drop_fetched(self.consumer, parts)
        self.begin(parts)

    def mine(self, parts: Iterable[TopicPartition]) -> set[TopicPartition]:
        assigned: set[TopicPartition] = self.consumer.assignment()
        return assigned & set(parts)


def drop_fetched(consumer: KafkaConsumer, parts: Set[TopicPartition]) -> None:
    """Drops what the client has fetched of partitions and not returned, such as while they are paused. It goes by the
    offset alone: at the beginning of a topic made again, it would return the first records of the one before."""
    fetcher = consumer._fetcher
    for fetched in fetcher._completed_fetches.copy():  # the client's own thread adds to it
        if fetched.topic_partition in parts:
            fetcher._completed_fetches.remove(fetched)
    for part in parts:
        fetcher._paused_completed_fetches.pop(part, None)


def position_of(consumer: KafkaConsumer, part: TopicPartition) -> OffsetAndMetadata:
    """Where a partition of ours is read next, with the epoch of the record before; both -1 if that is not known."""
    state = consumer._subscription.assignment.get(part)
    nowhere = OffsetAndMetadata(-1, "", -1)
    return nowhere if state is None or state.position is None else state.position


def leader_epoch(consumer: KafkaConsumer, part: TopicPartition) -> int:
    """How often the partition has had a new leader, as far as the client knows; -1 if it does not know."""
    epoch = consumer._cluster.leader_epoch_for_partition(part)
    return -1 if epoch is None else int(epoch)

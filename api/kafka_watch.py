"""Asking Kafka whether it is there and has the topic, and how far the bridge is. Nothing is written."""

import threading
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError

from api import kafka_client
from settings import Settings

Found = TypeVar("Found")


class Position(NamedTuple):
    """How far the consumer group is in a partition: what is committed, and where the committed records end."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        return max(0, self.end - self.committed)


class KafkaWatch:
    """One connection, made at the first question and again after each failure. Safe for threads, which take turns."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._admin: KafkaAdminClient | None = None

    def check(self) -> None:
        """Raises KafkaError when Kafka or the topic is not there."""
        self._ask(self._partitions)

    def lag(self) -> int:
        """Records of the topic that the consumer group has yet to commit. Raises KafkaError."""
        return sum(position.lag for position in self.positions().values())

    def positions(self) -> dict[int, Position]:
        """By partition of the topic, in order. Raises KafkaError."""
        return self._ask(self._positions)

    def _ask(self, question: Callable[[KafkaAdminClient], Found]) -> Found:
        with self._lock:
            if self._admin is None:
                self._admin = kafka_client.connect(KafkaAdminClient, self.settings, client_id="api-watch")
            try:
                return question(self._admin)
            except BaseException:
                admin, self._admin = self._admin, None
                admin.close()
                raise

    def _partitions(self, admin: KafkaAdminClient) -> list[TopicPartition]:
        (topic,) = admin.describe_topics([self.settings.kafka_topic])
        if topic["error_code"]:
            raise KafkaError(f"Kafka has no topic {self.settings.kafka_topic}")
        return [TopicPartition(topic["name"], each["partition_index"]) for each in topic["partitions"]]

    def _positions(self, admin: KafkaAdminClient) -> dict[int, Position]:
        partitions = self._partitions(admin)
        latest, earliest = OffsetSpec.LATEST, OffsetSpec.EARLIEST
        ends = admin.list_partition_offsets(dict.fromkeys(partitions, latest), isolation_level="read_committed")
        group = self.settings.kafka_group_id
        committed = admin.list_group_offsets({group: partitions}).get(group, {})
        starts = admin.list_partition_offsets(dict.fromkeys(partitions, earliest))
        # What retention removed unread does not count as lag.
        done = {
            each: max(starts[each].offset, committed[each].offset if each in committed else -1) for each in partitions
        }
        return {each.partition: Position(done[each], ends[each].offset) for each in sorted(partitions)}

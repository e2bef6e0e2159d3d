"""Which partition a key goes to: the same as with every other Kafka client, three times as fast as kafka-python's own.

That goes byte by byte, and sorts the partitions for each record, which was a third of the work of `produce -`.
"""

import struct
from functools import lru_cache
from typing import Any

from kafka.partitioner import StickyPartitioner

SEED = 0x9747B28C
FACTOR = 0x5BD1E995
WORD = 0xFFFFFFFF


class KeyPartitioner(StickyPartitioner):  # type: ignore[misc]
    """murmur2 of the key, as the Java client has it; records without a key fill one batch after the other."""

    def partition(
        self,
        topic: str,
        key: object,
        serialized_key: bytes | None,
        value: object,
        serialized_value: object,
        cluster: Any,
    ) -> int | None:
        if serialized_key is None:
            chosen: int | None = super().partition(topic, key, serialized_key, value, serialized_value, cluster)
            return chosen
        # Partitions are numbered from 0 without gaps.
        return (murmur2(serialized_key) & 0x7FFFFFFF) % len(cluster.partitions_for_topic(topic))


def murmur2(key: bytes) -> int:
    """The 32-bit MurmurHash2 of Kafka's clients (org.apache.kafka.common.utils.Utils.murmur2), unsigned."""
    length = len(key)
    hashed = SEED ^ length
    for word in words(length >> 2).unpack_from(key):
        word = (word * FACTOR) & WORD
        word = ((word ^ (word >> 24)) * FACTOR) & WORD
        hashed = ((hashed * FACTOR) & WORD) ^ word
    rest = length & 3
    if rest:
        hashed = ((hashed ^ int.from_bytes(key[length - rest :], "little")) * FACTOR) & WORD
    hashed = ((hashed ^ (hashed >> 13)) * FACTOR) & WORD
    return hashed ^ (hashed >> 15)


@lru_cache(maxsize=256)
def words(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}I")

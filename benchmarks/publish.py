"""Sending records to Kafka: a whole topic beforehand, or at a given rate with the time of each."""

import time
from collections.abc import Iterable, Sequence

from kafka import KafkaProducer

from benchmarks.texts import Text
from settings import Settings


def preload(settings: Settings, topic: str, texts: Iterable[Text]) -> int:
    """Sends all texts, keyed by id, and returns how many once Kafka has them."""
    producer = KafkaProducer(**settings.kafka_client(), linger_ms=20, batch_size=131_072, acks=1)
    refused: list[BaseException] = []
    sent = 0
    for each in texts:
        producer.send(topic, each.record(), key=each.id.encode()).add_errback(refused.append)
        sent += 1
    producer.flush(timeout=120)
    producer.close()
    if refused:
        raise RuntimeError(f"{len(refused)} of {sent} records were not taken by Kafka: {refused[0]}")
    return sent


class Pacer:
    """Sends texts at an even rate, whatever becomes of them (an open loop), and notes when each was sent."""

    def __init__(self, settings: Settings, topic: str, rate: float) -> None:
        self.topic = topic
        self.rate = rate
        self.sent_at: dict[str, float] = {}
        self.producer = KafkaProducer(**settings.kafka_client(), linger_ms=0, acks=1)
        self.producer.partitions_for(topic)

    def run(self, texts: Sequence[Text]) -> None:
        began = time.monotonic()
        for number, each in enumerate(texts):
            pause = began + number / self.rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            self.sent_at[each.id] = time.time()
            self.producer.send(self.topic, each.record(), key=each.id.encode())
        self.producer.flush(timeout=30)

    def close(self) -> None:
        self.producer.close()

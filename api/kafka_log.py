"""Appending to the log: the text API's side of Kafka.

Every wait has an end. After the first failure appending fails at once, until a look-out in the background has a working
producer again: nobody has to wait for a time-out to learn what is already known.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError

import kafka_clients
from api import kafka_client
from api.kafka_client import BLOCK_MS
from kafka_clients import BROKER_MAX_BYTES, TOO_LARGE
from settings import Settings

log = logging.getLogger(__name__)

DELIVERY_MS = 4_000  # from handing a record over to its acknowledgement, retries included
LOOK_OUT_SECONDS = 0.5
# A batch of one record has about 100 around it. The limit is shown, so it is a round number.
MAX_RECORD_BYTES = BROKER_MAX_BYTES - 588


class KafkaAway(Exception):
    """Kafka did not take the records in time; some of them may have arrived all the same."""


class RecordTooLarge(Exception):
    """The broker refuses a record of this size."""


class Appended(NamedTuple):
    """Where a record stands in the log. Compares like the versions in the database."""

    timestamp: int
    partition: int
    offset: int


class KafkaLog:
    """Appends records to the topic, through one producer for the whole process. Safe for threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._away: str | None = None
        self._closed = threading.Event()
        self._looking_out: threading.Thread | None = None

    @property
    def away(self) -> str | None:
        """Why appending fails at the moment; None while it works, and before the first try."""
        return self._away

    def append(
        self, records: Sequence[tuple[str, bytes | None]], headers: Sequence[tuple[str, bytes]] = ()
    ) -> list[Appended]:
        """Appends (key, value) records in this order and returns when all are acknowledged (acks=all).

        Raises KafkaAway within about BLOCK_MS + DELIVERY_MS, at once while Kafka is known to be away; RecordTooLarge.
        """
        producer = self.open()
        deadline = time.monotonic() + (BLOCK_MS + DELIVERY_MS) / 1000
        try:
            futures = [
                producer.send(self.settings.kafka_topic, key=key.encode(), value=value, headers=list(headers))
                for key, value in records
            ]
            done = [future.get(timeout=max(0.0, deadline - time.monotonic())) for future in futures]
        except TOO_LARGE as error:
            raise RecordTooLarge(str(error)) from None
        except (KafkaError, ValueError) as error:  # ValueError: the topic's partitions are gone
            raise self._lost(producer, error) from None
        return [Appended(each.timestamp, each.partition, each.offset) for each in done]

    def open(self) -> KafkaProducer:
        """The producer. Made at the first call, which may take BLOCK_MS. Raises KafkaAway."""
        with self._lock:
            if self._producer is None and self._away is None:
                try:
                    self._producer = self._connect()
                except (KafkaError, OSError) as error:
                    raise self._note_outage(error, None) from None
            if self._producer is None:
                raise KafkaAway(self._away)
            return self._producer

    def try_to_open(self) -> None:
        with contextlib.suppress(KafkaAway):
            self.open()

    def close(self) -> None:
        """Ends the producer and the look-out."""
        self._closed.set()
        look_out = self._looking_out
        if look_out is not None:
            look_out.join()
        with self._lock:
            producer, self._producer, self._away = self._producer, None, "this process is ending"
        if producer is not None:
            close_quietly(producer)

    def _connect(self) -> KafkaProducer:
        """A producer that knows the topic."""
        producer = kafka_client.connect(
            KafkaProducer,
            self.settings,
            client_id="text-api",
            acks="all",
            max_block_ms=BLOCK_MS,
            delivery_timeout_ms=DELIVERY_MS,
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
        )
        try:
            producer.partitions_for(self.settings.kafka_topic)
        except BaseException:
            close_quietly(producer)
            raise
        return producer

    def _lost(self, producer: KafkaProducer, error: Exception) -> KafkaAway:
        with self._lock:
            if self._producer is producer:
                return self._note_outage(error, producer)
        return KafkaAway(str(error))

    def _note_outage(self, error: Exception, old: KafkaProducer | None) -> KafkaAway:
        """With the lock held. If no look-out can be started, the next call tries for itself."""
        why = str(error) or type(error).__name__
        log.warning("Kafka does not take records: %s", why)
        look_out = threading.Thread(target=self._look_out, args=(old,), name="kafka look-out", daemon=True)
        try:
            look_out.start()
        except RuntimeError as problem:  # the process may have no more threads
            log.error("nobody looks out for Kafka: %s", problem)
        else:
            self._looking_out, self._producer, self._away = look_out, None, why
        return KafkaAway(why)

    def _look_out(self, old: KafkaProducer | None) -> None:
        while not self._closed.wait(LOOK_OUT_SECONDS):
            try:
                producer = self._connect()
            except Exception as error:  # whatever it is: without the look-out nothing would be appended ever again
                why = str(error) or type(error).__name__
                if not isinstance(error, KafkaError | OSError) and why != self._away:
                    log.error("looking out for Kafka failed", exc_info=error)
                self._away = why
                continue
            with self._lock:
                self._producer, self._away = producer, None
            log.warning("Kafka takes records again")
            break
        if old is not None:
            close_quietly(old)


def close_quietly(producer: KafkaProducer) -> None:
    try:
        kafka_clients.close(producer, seconds=DELIVERY_MS / 1000)
    except KafkaError as error:
        log.debug("closing a producer: %s", error)

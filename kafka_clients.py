"""Making clients of kafka-python, for the packages that each have their own and do not import each other."""

import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from kafka import KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors
from kafka.errors import (
    BrokerResponseError,
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RetriableError,
    UnknownError,
)
from kafka.net.compat import KafkaNetClient
from kafka.producer.transaction_manager import TransactionManager, TransactionState

from settings import Settings, kafka_address

Client = TypeVar("Client")

LISTENS_SECONDS = 1.0

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)  # for the topic, for its segments
# With which a broker refuses a record for good, such as one without a key for a topic that is compacted.
REFUSALS = frozenset(
    each
    for each in vars(kafka_errors).values()
    if isinstance(each, type) and issubclass(each, BrokerResponseError) and not issubclass(each, RetriableError)
)
REJOIN_POLL_MS = 2_000  # a poll that waits for a rebalance to end
# A broker's message.max.bytes, unless it was changed: so much a batch may have.
BROKER_MAX_BYTES = 1_048_588


def connect(client: Callable[..., Client], settings: Settings, **options: Any) -> Client:
    """A client with the addresses and the security of the settings. Raises KafkaError, at once if nobody listens.

    It never makes the broker create a topic, which would have the broker's defaults instead of what bridge.topics gives
    it: kafka-python 3.0 takes `allow_auto_create_topics` and loses it (net/manager.py makes a ClusterMetadata without).
    A client whose first connection fails leaves no sockets or thread behind, as kafka-python's own would: each try
    during an outage would cost a long-lived process one more. And a producer outlives a record that a broker refuses:
    an idempotent one, the default, would fail all later records with that error too. It also outlives a record that was
    not taken in time, where the default would wait for an id for ever.
    """
    if not any(listens(server) for server in settings.kafka_servers):
        raise KafkaConnectionError(f"nobody listens at {', '.join(settings.kafka_servers)}")
    made: list[KafkaNetClient] = []

    def remember(**configuration: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**configuration))
        made[-1].cluster.config["allow_auto_create_topics"] = False
        return made[-1]

    try:
        connected = client(**settings.kafka_client(), **options, kafka_client=remember)
        manager = getattr(connected, "_transaction_manager", None)
        if manager is not None:
            # The broker misses the number of the refused batch. As after any such gap, the producer goes on in its next
            # epoch; no other record is lost with it, since each partition has one batch in flight at a time.
            manager._NEEDS_EPOCH_BUMP_ERRORS = manager._NEEDS_EPOCH_BUMP_ERRORS | REFUSALS
            manager.reset_producer_id = partial(ask_for_another_id, manager)
        return connected
    except BaseException:
        for each in made:
            each.close()
        raise


def close(producer: KafkaProducer, *, seconds: float) -> None:
    """Ends a producer within about so many seconds, with the records that are left then. kafka-python's own would raise
    over these, and leave its thread and its sockets behind; and over a batch that is cut in two meanwhile, because the
    broker finds it too large (producer/future.py, rebind)."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        try:
            producer.close(timeout=left)
            return
        except UnknownError:
            continue
        except KafkaTimeoutError:
            break
    producer._closed = True  # else its __del__ tries again, and complains
    producer._sender.force_close()


def has_failed(producer: KafkaProducer) -> bool:
    """Whether a producer takes nothing any more: kafka-python asks no second time where Kafka was silent, or gone, just
    when it was asked for the producer's id."""
    manager = getattr(producer, "_transaction_manager", None)
    return manager is not None and bool(manager.has_fatal_error())


def begin_anew(producer: KafkaProducer) -> None:
    """Lets a producer send again that has failed."""
    if has_failed(producer):
        producer._transaction_manager.reset_producer_id()


def ask_for_another_id(manager: TransactionManager) -> None:
    """Gives up the producer's id, and has its thread ask for another one.

    kafka-python 3.0 gives it up after a record that was tried and not acknowledged in time, and remains READY, in which
    state it asks for none: nothing is sent any more, and nothing fails either (producer/sender.py, run_once).
    """
    with manager._lock:
        TransactionManager.reset_producer_id(manager)
        manager._current_state, manager._last_error = TransactionState.UNINITIALIZED, None


def member_poll_ms(consumer: KafkaConsumer, timeout_ms: int) -> int:
    """For how long to poll a consumer that may be in a group: `timeout_ms`, or longer during a rebalance.

    kafka-python 3.0 completes a join only inside a poll that waits for it. A poll that gives up earlier leaves the join
    half done; the next poll either sends another join or, if the cause of the rejoin is gone, forgets it. Then the
    member has no partitions, sends no heartbeats, and all its commits are refused, for as long as it lives
    (coordinator/base.py, join_group_async).
    """
    coordinator = consumer._coordinator
    if coordinator.rejoining and not coordinator.need_rejoin():
        coordinator.request_rejoin()
    return max(timeout_ms, REJOIN_POLL_MS) if coordinator.need_rejoin() else timeout_ms


def is_fenced(consumer: KafkaConsumer) -> bool:
    """Whether another member has taken the static id of this one, for good.

    kafka-python 3.0 only logs that a heartbeat was told so. It sends no other, reads on, and polls without a pause, on
    a whole core and with some hundred megabytes, until a commit is refused: for hours if there is nothing to commit
    (coordinator/base.py, _do_heartbeat).
    """
    coordinator = consumer._coordinator
    with coordinator._lock:  # a join makes it stable and lets it send heartbeats under the same lock
        return bool(coordinator.stable() and not coordinator.rejoining and not coordinator._heartbeat_enabled)


def listens(server: str) -> bool:
    """Whether anybody takes a connection at host:port; much cheaper than a client."""
    try:
        with socket.create_connection(kafka_address(server), timeout=LISTENS_SECONDS):
            return True
    except OSError:
        return False

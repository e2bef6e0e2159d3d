"""Celery's Redis transport with one stall less: an acknowledgement that Redis did not take gives its place back."""

from kombu.transport import redis, virtual


class QoS(redis.QoS):  # type: ignore[misc]
    """Counts the messages in hand, like kombu's own.

    In kombu 5.7 (transport/redis.py) an `ack` or `reject` that fails at Redis leaves its message in that count; with
    one message fetched ahead the worker then takes nothing for ever, although it is connected again. The message
    itself comes back after the visibility time-out, which does no harm.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except BaseException:
            virtual.QoS.ack(self, delivery_tag)
            raise


def install() -> None:
    """Makes every Redis connection of this process count so."""
    redis.Channel.QoS = QoS

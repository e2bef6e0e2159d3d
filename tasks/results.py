"""Celery's Redis results, without the subscription: whoever wants a result reads it (bridge/hand_over.py).

The backend of Celery 5.7 subscribes to a channel for each task that is sent, for somebody who may wait for it. Nobody
reads that connection here, so what it holds would grow with each task; and with Redis away each send would try to
subscribe for 19 s before it fails. AsyncResult.get(), and with it `celery result` and Flower, looks every half second.
"""

from typing import Any

from celery.backends.base import SyncBackendMixin
from celery.backends.redis import RedisBackend


class PolledRedisBackend(SyncBackendMixin, RedisBackend):  # type: ignore[misc]
    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Subscribes to no channel."""

    def _set(self, key: str, value: bytes | str, expires: int | None = None) -> None:
        """Stores the result, and publishes it on no channel."""
        self.client.set(key, value, ex=expires or self.expires)

    def on_connection_error(self, max_retries: int | None, exc: Exception, intervals: Any, retries: int) -> Any:
        """Celery's own tries twenty times, for a hundred seconds where Redis is silent. A worker that is to end does
        not: whoever waits for the result has a lease on it."""
        from celery.worker import state  # a worker's alone

        if state.should_stop is not None and state.should_stop is not False:
            raise exc
        return super().on_connection_error(max_retries, exc, intervals, retries)

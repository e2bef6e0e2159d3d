"""What a worker process holds between tasks: its database engine and its embedder.

Made at first use, in the process that uses it: connections and models do not survive a fork.
"""

import logging
from functools import cache

from sqlalchemy import Engine

import settings
from db import commands, session
from embedder import Embedder, ModelError, load_provider

log = logging.getLogger(__name__)


@cache
def engine() -> Engine:
    return session.connect_engine(settings.load().database_url(), "worker")


@cache
def side_engine() -> Engine:
    """For a thread beside the tasks, which must not wait for theirs, nor they for it."""
    return session.connect_engine(settings.load().database_url(), "worker, aside")


@cache
def embedder() -> Embedder:
    """The provider of the settings. Raises ModelError when the stored vectors are of another model."""
    provider = load_provider(settings.load())
    with engine().begin() as connection:
        active = commands.register_model(connection, provider.model, provider.dimensions)
    if active != provider.model:
        raise ModelError(
            f"the vectors in the database are of {active}, the provider makes {provider.model}: "
            f"set EMBEDDING_PROVIDER back, or run `python -m db reembed` to make them all anew"
        )
    return provider


def backoff(attempt: int) -> float:
    """Seconds to wait before the next try after an outage: 0.25, 0.5, 1, then 2, so that work is back soon after it."""
    return min(2.0, 0.25 * float(2 ** min(attempt, 8)))

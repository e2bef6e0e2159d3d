"""What a worker process holds between tasks: its database engine and its embedder.

Made at first use, in the process that uses it: connections and models do not survive a fork.
"""

import logging
from functools import cache

from sqlalchemy import Engine

import settings
from db import outbox, providers, session
from embedder import Embedder, ModelError, load_provider

log = logging.getLogger(__name__)

# A connection that was in use so recently is not asked for a sign of life: where it has gone, the task is tried again.
TRUSTED_SECONDS = 1.0


@cache
def engine() -> Engine:
    return session.connect_engine(settings.load().database_url(), "worker", trusted_seconds=TRUSTED_SECONDS)


@cache
def side_engine() -> Engine:
    """For a thread beside the tasks, which must not wait for theirs, nor they for it."""
    return session.connect_engine(settings.load().database_url(), "worker, aside")


# By model name: the active model's provider, and that of the one that is on its way.
loaded: dict[str, Embedder] = {}


@cache
def embedder() -> Embedder:
    """The active model's provider: that of the settings, or the one that was chosen instead by `python -m db reembed`.
    Whoever learns that the active model has changed clears the cache.

    Raises ModelError when the stored vectors are of another model.
    """
    with engine().begin() as connection:
        stored = providers.active(connection)
    chosen, said = providers.settings_for(settings.load(), stored)
    if said is not None:
        log.warning("%s", said)
    provider = None
    if stored is not None and providers.recorded(chosen) == stored.settings:
        provider = loaded.get(stored.name)
    provider = provider or load_provider(chosen)
    misfit = providers.misfit(stored, provider.model, provider.dimensions)
    if misfit is not None:
        raise ModelError(misfit)
    with engine().begin() as connection:
        active = outbox.register_model(connection, provider.model, provider.dimensions, providers.recorded(chosen))
    if active != provider.model:
        raise ModelError(
            f"the vectors in the database are of {active}, the provider makes {provider.model}: "
            f"set EMBEDDING_PROVIDER back, or run `python -m db reembed` to make them all anew"
        )
    loaded.clear()
    loaded[provider.model] = provider
    return provider


def second_embedder(model: str) -> Embedder:
    """The provider of a model that is made beside the active one. Raises ModelError, EmbedderUnavailable,
    InvalidSetting."""
    if model in loaded:
        return loaded[model]
    with engine().begin() as connection:
        stored, active = providers.named(connection, model), providers.active(connection)
    if stored is None or stored.settings is None:
        raise ModelError(f"the database does not know the model {model} any more")
    provider = load_provider(providers.with_recorded(settings.load(), stored.settings))
    if (provider.model, provider.dimensions) != (model, stored.dimensions):
        raise ModelError(
            f"the provider of {model}, with {stored.dimensions} dimensions, makes {provider.model} with "
            f"{provider.dimensions} here"
        )
    for other in [name for name in loaded if active is None or name != active.name]:
        del loaded[other]
    loaded[model] = provider
    return provider

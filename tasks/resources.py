"""What a worker process holds between tasks: its database engine and its embedder.

Made at first use, in the process that uses it: connections and models do not survive a fork.
"""

from functools import cache
from typing import NamedTuple

from sqlalchemy import Engine

import settings
from db import embeddings, providers, session
from db.providers import Recorded
from embedder import Embedder, ModelError, load_provider
from tasks import active_model

# A connection that was in use so recently is not asked for a sign of life: if it is gone, the task is tried again.
TRUSTED_SECONDS = 1.0


@cache
def engine() -> Engine:
    return session.connect_engine(settings.load().database_url(), "worker", trusted_seconds=TRUSTED_SECONDS)


@cache
def side_engine() -> Engine:
    """For the threads beside the tasks: neither must wait for a connection that the other uses."""
    return session.connect_engine(settings.load().database_url(), "worker, aside")


class Loaded(NamedTuple):
    """A provider, and the settings that made it, as they are recorded."""

    provider: Embedder
    settings: Recorded


# By model name: the active model's provider, and that of the one that is on its way.
loaded: dict[str, Loaded] = {}


@cache
def embedder() -> Embedder:
    """The active model's provider: that of the settings, or the one that was chosen instead by `python -m db reembed`.
    Whoever learns that the active model has changed clears the cache.

    Raises ModelError when the stored vectors are of another model.
    """
    with engine().begin() as connection:
        stored = providers.active(connection)

    def known_or_loaded(chosen: settings.Settings) -> Embedder:
        known = loaded.get(stored.name) if stored is not None else None
        if known is not None and known.settings == providers.recorded(chosen):
            return known.provider
        return load_provider(chosen)

    provider, chosen = active_model.provider_of(stored, settings.load(), known_or_loaded)
    wanted = providers.recorded(chosen)
    with engine().begin() as connection:
        active = embeddings.register_model(connection, provider.model, provider.dimensions, wanted)
    if active != provider.model:
        raise ModelError(
            f"the vectors in the database are of {active}, the provider makes {provider.model}: "
            f"set EMBEDDING_PROVIDER back; with that running, `python -m db reembed --provider` makes them all anew"
        )
    loaded.clear()
    loaded[provider.model] = Loaded(provider, wanted)
    return provider


def forget_if_switched(model: str) -> None:
    """Clears the cache if another model than this one is the active one by now: a provider that no longer answers makes
    no vector over which one would learn that."""
    with engine().begin() as connection:
        active = providers.active(connection)
    if active is not None and active.name != model:
        embedder.cache_clear()


def second_embedder(model: str) -> Embedder:
    """The provider of a model that is made beside the active one. Raises ModelError, EmbedderUnavailable,
    InvalidSetting."""
    with engine().begin() as connection:
        stored, active = providers.named(connection, model), providers.active(connection)
    known = loaded.get(model)
    # A change may have been given up, and begun again with another address.
    if known is not None and (stored is None or known.settings == stored.settings):
        return known.provider
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
    loaded[model] = Loaded(provider, stored.settings)
    return provider

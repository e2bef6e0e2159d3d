"""The model that will soon be the active one, loaded ahead, so that no search waits for it after the switch."""

import logging
import threading
from collections.abc import Callable

from db import providers
from db.providers import Recorded, StoredModel
from embedder import Embedder, load_provider
from settings import Settings

log = logging.getLogger(__name__)


class NextModel:
    """`stored` asks the database for a model by its name. Safe for threads; one of them loads."""

    def __init__(self, settings: Settings, stored: Callable[[str], StoredModel | None]) -> None:
        self._settings = settings
        self._stored = stored
        self._lock = threading.Lock()
        self._name: str | None = None  # which was asked for, whether or not it could be loaded
        self._loaded: tuple[Embedder, Recorded] | None = None  # with the settings that made it

    def prepare(self, name: str) -> None:
        """Begins to load a model, once for its name. Returns at once."""
        with self._lock:
            if self._name == name:
                return
            threading.Thread(target=self._load, args=(name,), name="load the next model", daemon=True).start()
            self._name = name  # not before: without a thread it would never be loaded ahead

    def _load(self, name: str) -> None:
        try:
            stored = self._stored(name)
            if stored is None or stored.settings is None:
                return
            embedder = load_provider(providers.with_recorded(self._settings, stored.settings))
            embedder.embed(["warm up"])
        except Exception as error:  # whatever a model's library raises: the model is tried again when it is needed
            log.warning("the model %s, which is to be the next one, cannot be loaded", name, exc_info=error)
        else:
            self._loaded = embedder, stored.settings

    def provider_of(self, stored: StoredModel | None) -> Embedder | None:
        """The provider of this model, if it is the one that was prepared, and with the same settings."""
        if stored is None or self._loaded is None:
            return None
        embedder, made_by = self._loaded
        return embedder if embedder.model == stored.name and made_by == stored.settings else None

    def forget(self) -> None:
        with self._lock:
            self._name = self._loaded = None

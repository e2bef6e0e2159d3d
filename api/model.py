"""The embedding model of the search API: loaded in the background, so that the API answers its health meanwhile, and
again when the database's active model is another one (db.reembedding)."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from api.problems import Unavailable
from db import providers
from db.providers import Recorded, StoredModel
from db.session import first_line
from embedder import Embedder, ModelError, load_provider
from settings import REMOTE_PROVIDERS, Settings

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0  # a search that comes while the model is loaded waits so long: loading takes a second or two
AGAIN_SECONDS = 5.0  # after a failure
BEING_LOADED = "it is being loaded"
# Searches that may wait at once for a model that answers over the network: the other half of gunicorn's threads answers
# all that needs no model.
PLACES = 8
PLACE_SECONDS = 1.0  # what a search waits for a place; whoever has had one for longer says that the model is slow


class Model:
    """The active model's provider: that of the settings, or the one that was chosen instead by command.

    `stored` asks the database for a model: the active one, or one by its name. Safe for threads; one of them loads.
    """

    def __init__(
        self, settings: Settings, stored: Callable[[str | None], StoredModel | None] = lambda _name: None
    ) -> None:
        self.settings = settings
        self._stored = stored
        self._next: tuple[Embedder, Recorded] | None = None
        self._prepared: str | None = None
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._failure: str | None = None
        self._finished = threading.Event()
        self._loading = False
        self._failed_at = 0.0
        self._loaded_at = 0.0
        self._loaded_for: str | None = None
        self._is_remote = settings.embedding_provider in REMOTE_PROVIDERS  # the model in use, or being loaded
        self._places = threading.Semaphore(PLACES)
        self._is_slow = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among those who wait for the model. Raises Unavailable where none gets free in a moment, and at once
        while the model is slow.

        A model that computes here keeps the processor busy, not the threads: for that there is always one.
        """
        if not self._is_remote:
            yield
            return
        if not self._places.acquire(timeout=0 if self._is_slow else PLACE_SECONDS):
            self._is_slow = True
            raise Unavailable(
                "the embedding model answers slowly, and as many searches as may wait for it do; "
                "mode keyword works meanwhile"
            )
        began = time.monotonic()
        try:
            yield
        finally:
            self._is_slow = time.monotonic() - began > PLACE_SECONDS
            self._places.release()

    def load(self) -> None:
        """Begins to load the model where that is not under way, done, or has only just failed. Returns at once."""
        with self._lock:
            just_failed = self._failure is not None and time.monotonic() - self._failed_at < AGAIN_SECONDS
            if self._embedder is not None or self._loading or just_failed:
                return
            self._loading = True
            self._finished.clear()
            threading.Thread(target=self._load, name="load the model", daemon=True).start()

    def _load(self) -> None:
        embedder, failure = None, None
        try:
            embedder = self._provider()
            embedder.embed(["warm up"])
        except Exception as error:  # whatever a model's library raises, /health and the log say it
            log.error("the model cannot be loaded", exc_info=error)
            embedder, failure = None, f"{type(error).__name__}: {error}"
        with self._lock:
            self._embedder, self._failure = embedder, failure
            self._next = self._prepared = None
            self._failed_at = self._loaded_at = time.monotonic()
            self._loading = False
        self._finished.set()

    def _provider(self) -> Embedder:
        try:
            stored = self._stored(None)
        except SQLAlchemyError as error:
            log.warning("which model is the active one is not known: %s", first_line(error))
            stored = None
        chosen, said = providers.settings_for(self.settings, stored)
        self._is_remote = chosen.embedding_provider in REMOTE_PROVIDERS
        if stored is not None and self._next is not None:
            embedder, made_by = self._next
            if embedder.model == stored.name and made_by == stored.settings:
                return embedder
        if said is not None:
            log.warning("%s", said)
        provider = load_provider(chosen)
        misfit = providers.misfit(stored, provider.model, provider.dimensions)
        if misfit is not None:
            raise ModelError(misfit)
        return provider

    def prepare(self, name: str) -> None:
        """Begins to load a model that will soon be the active one. Returns at once."""
        with self._lock:
            if self._prepared == name:
                return
            self._prepared = name
        threading.Thread(target=self._prepare, args=(name,), name="load the next model", daemon=True).start()

    def _prepare(self, name: str) -> None:
        try:
            stored = self._stored(name)
            if stored is None or stored.settings is None:
                return
            embedder = load_provider(providers.with_recorded(self.settings, stored.settings))
            embedder.embed(["warm up"])
        except Exception as error:  # whatever a model's library raises: it is tried again when it is needed
            log.warning("the model %s, which is to be the next one, cannot be loaded", name, exc_info=error)
        else:
            self._next = embedder, stored.settings

    def follow(self, active: str | None) -> None:
        """Sees to it that the provider is that of the active model; waits a little for it. Raises Unavailable."""
        with self._lock:
            if self._embedder is None or active is None or self._embedder.model == active:
                return
            just_tried = time.monotonic() - self._loaded_at < AGAIN_SECONDS and self._loaded_for == active
            if not self._loading and not just_tried:
                self._loading = True
                self._loaded_for = active
                self._finished.clear()
                threading.Thread(target=self._load, name="load the model", daemon=True).start()
        mismatch = self.mismatch(active) if self._is_settled() else BEING_LOADED
        if mismatch is not None:
            raise Unavailable(f"{mismatch}; mode keyword works meanwhile")

    def _is_settled(self) -> bool:
        """Whether nothing is being loaded any more; waits a little for it. Raises Unavailable."""
        if self._finished.is_set():
            return True
        with self.place():
            return self._finished.wait(WAIT_SECONDS)

    def problem(self) -> str | None:
        """Why there is no model yet, or None when there is one."""
        self.load()
        if self._embedder is not None:
            return None
        return self._failure or BEING_LOADED

    def mismatch(self, active: str | None) -> str | None:
        """Why the provider cannot ask for the stored vectors, which `active` has made; None where it can.

        No active model means that no vector was made yet: there is nothing that could not fit.
        """
        if self._embedder is None or active is None or active == self._embedder.model:
            return None
        return (
            f"the stored vectors are of the model {active}, this API has {self._embedder.model}: "
            "set EMBEDDING_PROVIDER back, or run `python -m db reembed`"
        )

    def ready(self) -> Embedder:
        """The provider; waits a little for one that is being loaded. Raises Unavailable."""
        self.load()
        self._is_settled()
        if self._embedder is None:
            raise Unavailable(
                f"the embedding model is not there: {self._failure or BEING_LOADED}; mode keyword works without it"
            )
        return self._embedder


def query_vector(embedder: Embedder, query: str) -> NDArray[np.float32]:
    """The vector of a query; of one longer than a passage, the mean of its passages. All zero for one without words."""
    passages = [query[start:end] for start, end in embedder.passages(query)] or [query]
    mean: NDArray[np.float32] = np.asarray(embedder.embed(passages), dtype=np.float32).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length else mean

"""The embedding model of the search API: loaded in the background, so that the API answers its health meanwhile, and
again when the database's active model is another one (db.reembedding)."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from api.model_places import Places
from api.next_model import NextModel
from api.problems import Unavailable
from db.providers import StoredModel
from db.session import first_line
from embedder import Embedder, load_provider
from settings import REMOTE_PROVIDERS, Settings
from tasks import active_model

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0  # for which a search waits while the model is being loaded, which takes a second or two
AGAIN_SECONDS = 5.0  # after a failure
BEING_LOADED = "it is being loaded"


class Model:
    """The active model's provider: that of the settings, or the one that was chosen instead by command.

    `stored` asks the database for a model: the active one, or one by its name. Safe for threads; one of them loads.
    """

    def __init__(
        self, settings: Settings, stored: Callable[[str | None], StoredModel | None] = lambda _name: None
    ) -> None:
        self.settings = settings
        self.places = Places(limited=settings.embedding_provider in REMOTE_PROVIDERS)
        self.next = NextModel(settings, stored)
        self._stored = stored
        self._lock = threading.Lock()
        self._settled = threading.Event()  # cleared while a model is being loaded
        self._settled.set()
        self._embedder: Embedder | None = None
        self._failure: str | None = None
        self._tried_at = 0.0  # when the last try to load it ended
        self._followed: str | None = None  # the active model for which it was last loaded anew

    def load(self) -> None:
        """Begins to load the model, unless that is under way, done, or has only just failed. Returns at once."""
        with self._lock:
            just_failed = self._failure is not None and self._has_just_tried()
            if self._embedder is None and not just_failed:
                self._begin_to_load()

    def follow(self, active: str | None) -> None:
        """Sees to it that the provider is that of the active model; waits a little for it. Raises Unavailable."""
        with self._lock:
            if self._embedder is None or active is None or self._embedder.model == active:
                return
            if not (self._has_just_tried() and self._followed == active) and self._begin_to_load():
                self._followed = active
        mismatch = self.mismatch(active) if self._wait_until_settled() else BEING_LOADED
        if mismatch is not None:
            raise Unavailable(f"{mismatch}; mode keyword works meanwhile")

    def _has_just_tried(self) -> bool:
        return time.monotonic() - self._tried_at < AGAIN_SECONDS

    def _begin_to_load(self) -> bool:
        """With the lock held. False if that is already under way."""
        if not self._settled.is_set():
            return False
        threading.Thread(target=self._load, name="load the model", daemon=True).start()
        self._settled.clear()  # not before: without a thread it would be loaded for ever
        return True

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
            self._tried_at = time.monotonic()
            self.next.forget()
            self._settled.set()

    def _provider(self) -> Embedder:
        try:
            stored = self._stored(None)
        except SQLAlchemyError as error:
            log.warning("which model is the active one is not known: %s", first_line(error))
            stored = None

        def load(chosen: Settings) -> Embedder:
            self.places.limited = chosen.embedding_provider in REMOTE_PROVIDERS  # also for waits for the loading
            return self.next.provider_of(stored) or load_provider(chosen)

        return active_model.provider_of(stored, self.settings, load)[0]

    def _wait_until_settled(self) -> bool:
        """Whether nothing is being loaded any more; waits a little for it. Raises Unavailable."""
        if self._settled.is_set():
            return True
        with self.places.one():
            return self._settled.wait(WAIT_SECONDS)

    def problem(self) -> str | None:
        """Why there is no model yet, or None when there is one."""
        self.load()
        if self._embedder is not None:
            return None
        return self._failure or BEING_LOADED

    def mismatch(self, active: str | None) -> str | None:
        """Why the provider cannot ask for the stored vectors, which `active` has made; None if it can.

        No active model means that no vector was made yet: there is nothing that could not fit.
        """
        if self._embedder is None or active is None or active == self._embedder.model:
            return None
        return (
            f"the stored vectors are of the model {active}, this API has {self._embedder.model}: "
            "set EMBEDDING_PROVIDER back; with that running, `python -m db reembed --provider` makes the change"
        )

    def ready(self) -> Embedder:
        """The provider; waits a little for one that is being loaded. Raises Unavailable."""
        self.load()
        self._wait_until_settled()
        if self._embedder is None:
            raise Unavailable(
                f"the embedding model is not there: {self._failure or BEING_LOADED}; mode keyword works without it"
            )
        return self._embedder


def query_vector(embedder: Embedder, query: str) -> NDArray[np.float32]:
    """The vector of a query: if it is longer than a passage, the mean of its passages. All zero if it has no words."""
    passages = [query[start:end] for start, end in embedder.passages(query)] or [query]
    mean: NDArray[np.float32] = np.asarray(embedder.embed(passages), dtype=np.float32).mean(axis=0)
    length = float(np.linalg.norm(mean))
    return mean / length if length else mean

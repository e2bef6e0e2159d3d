"""The embedding model of the search API: loaded in the background, so that the API answers its health meanwhile."""

import logging
import threading
import time

import numpy as np
from numpy.typing import NDArray

from api.problems import Unavailable
from embedder import Embedder, load_provider
from settings import Settings

log = logging.getLogger(__name__)

WAIT_SECONDS = 5.0  # a search that comes while the model is loaded waits so long: loading takes a second or two
AGAIN_SECONDS = 5.0  # after a failure
BEING_LOADED = "it is being loaded"


class Model:
    """The provider of the settings. Safe for threads; one of them loads it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._embedder: Embedder | None = None
        self._failure: str | None = None
        self._finished = threading.Event()
        self._loading = False
        self._failed_at = 0.0

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
            embedder = load_provider(self.settings)
            embedder.embed(["warm up"])
        except Exception as error:  # whatever a model's library raises, /health and the log say it
            log.error("the model cannot be loaded", exc_info=error)
            embedder, failure = None, f"{type(error).__name__}: {error}"
        with self._lock:
            self._embedder, self._failure = embedder, failure
            self._failed_at = time.monotonic()
            self._loading = False
        self._finished.set()

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
        self._finished.wait(WAIT_SECONDS)
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

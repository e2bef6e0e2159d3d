"""What every embedding provider offers, and the three ways in which one can fail.

Nothing here knows a model. The providers are in the modules beside this one, each in a file of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

# Importing numpy takes 80 ms, which `python -m embedder.build_minilm` should not pay when the model is there already.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Span = tuple[int, int]
"""Start and end of a passage in its text, in characters, end exclusive."""


class UnembeddableText(Exception):
    """One text can never be embedded, however often it is tried; `index` is its place in the texts that were given.

    Its neighbours are fine: leave it out and embed the rest again.
    """

    def __init__(self, reason: str, index: int) -> None:
        super().__init__(reason)
        self.index = index


class EmbedderUnavailable(Exception):
    """The provider cannot be used now, whatever the text: try the same again.

    `retry_after` is how many seconds the provider asked to be left alone, or None if it did not say. `said` are its
    own words about the texts: they may quote one, so they are no part of the reason, which logs have.
    """

    def __init__(self, reason: str, retry_after: float | None = None, said: str = "") -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.said = said


class ModelError(Exception):
    """The model itself is wrong: missing or damaged files, another number of dimensions than expected.

    Trying again does not help; the message says what does, with the command if there is one.
    """


class Embedder(Protocol):
    """Turns texts into vectors whose dot product is the texts' cosine similarity.

    Made by `load_provider`, in the process that uses it (after a fork, not before). All methods may be called from
    several threads at once.
    """

    @property
    def model(self) -> str:
        """Name stored with every vector; vectors of different names must never be compared."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        ...

    @property
    def worth_keeping(self) -> bool:
        """Whether making a vector costs more than looking up whether it was made before."""
        ...

    @property
    def batch_max(self) -> int | None:
        """The most texts to pass to `embed` at once, which a remote provider sends in one request: of several requests,
        one that failed would lose the vectors of those before it. None: no limit."""
        ...

    def passages(self, text: str) -> list[Span]:
        """Where to cut a text so that each piece fits the model's window, as spans of characters in order.

        Together the spans cover the text without a gap: the first starts at 0, each starts at or before the end of the
        one before it (a longer text's passages overlap, and are cut at ends of sentences if there are any), the
        last ends at len(text). A text that fits gives [(0, len(text))], and for a common short text that costs less
        than a microsecond. The empty text gives [(0, 0)].

        May raise UnembeddableText for a string that is not valid Unicode, as `embed` does.
        """
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector for each text, in the order given: float32, shape (len(texts), dimensions), rows of length 1.

        Any number of texts, none included; the memory taken besides the answer does not grow with it. The vector of a
        text does not depend on the texts embedded with it, up to rounding. A text longer than the window is cut off
        there: ask `passages` first.

        Raises UnembeddableText (with the index of the first such text; nothing is returned for the others),
        EmbedderUnavailable, ModelError.
        """
        ...


def encode_all(texts: Sequence[str]) -> list[bytes]:
    """Each text in UTF-8. Raises UnembeddableText for the first that has no UTF-8: JSON's escapes allow such a text."""
    try:
        return [text.encode() for text in texts]
    except UnicodeEncodeError:
        for index, text in enumerate(texts):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise UnembeddableText("the text is not valid Unicode: it has a lone surrogate", index) from None
        raise

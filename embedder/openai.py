"""The provider that asks any OpenAI-compatible endpoint: OpenAI, vLLM, llama.cpp, Ollama and others.

Here is what is asked and answered; http_endpoint.py has the connection, and what each status of an answer means.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedder.http_endpoint import Broken, Endpoint, Refused, in_full
from embedder.passages import split_characters
from embedder.protocol import EmbedderUnavailable, ModelError, UnembeddableText, encode_all
from settings import Settings, check_openai

if TYPE_CHECKING:
    from embedder.protocol import Span, Vectors

# An empty input is an error to the API; a blank passage of a long text should not fail its message.
BLANK = "."
PROBE = "probe"
# A text that the endpoint has failed over is sent again this often, after this pause, before the fault is the text's.
# The tries follow each other directly: of two servers that take turns, one may be ill.
TRIES_AGAIN = 2
PAUSE_SECONDS = 1.0


class OpenAIEmbedder:
    """Vectors of the model that OPENAI_MODEL names. `connect` makes one."""

    worth_keeping = True

    def __init__(self, endpoint: Endpoint, settings: Settings) -> None:
        self.endpoint = endpoint
        self.name = settings.openai_model
        self.batch_max = settings.openai_batch_max
        self.window = settings.openai_passage_chars
        self.asked = int(settings.openai_dimensions) if settings.openai_dimensions else None
        # A quarter as long as numbers in JSON. Most servers that do not know base64 answer with numbers.
        self.as_base64 = True
        self.dimensions = self.asked or 0
        # Shortened vectors do not compare with whole ones.
        self.model = f"{self.name}@{self.asked}" if self.asked else self.name

    @classmethod
    def connect(cls, settings: Settings) -> OpenAIEmbedder:
        """Asks for one vector, so that a wrong address, key or model shows at once, and the dimensions are known.

        Raises EmbedderUnavailable, ModelError, InvalidSetting.
        """
        check_openai(settings)
        endpoint = Endpoint(
            settings.openai_base_url, "embeddings", settings.openai_api_key, settings.openai_timeout_seconds
        )
        embedder = cls(endpoint, settings)
        try:
            vectors = embedder._first_request()
        except Refused as error:
            raise ModelError(f"{embedder.endpoint} does not embed: {error}") from None
        embedder.dimensions = vectors.shape[1]
        return embedder

    def _first_request(self) -> Vectors:
        try:
            return self._probe(PROBE)
        except Refused:  # as LiteLLM does for Ollama, Vertex and Bedrock, which have numbers only
            self.as_base64 = False
            return self._probe(PROBE)

    def _probe(self, text: str) -> Vectors:
        """The vector of a text of ours: what is said of it quotes nobody's, so logs may have it."""
        try:
            return self._request([text])
        except (Refused, EmbedderUnavailable) as error:
            error.args, error.said = (in_full(error),), ""
            raise

    def passages(self, text: str) -> list[Span]:
        return split_characters(text, self.window, self.window // 8)

    def embed(self, texts: Sequence[str]) -> Vectors:
        encode_all(texts)
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for first in range(0, len(texts), self.batch_max):
            part = texts[first : first + self.batch_max]
            vectors[first : first + len(part)] = self._embed(part, first)
        return vectors

    def _embed(self, texts: Sequence[str], first: int) -> Vectors:
        """The vectors of texts that fit into one request; or by several, if the endpoint refuses that one, or has no
        vector for a text, or fails over one."""
        try:
            return self._request([text if text.strip() else BLANK for text in texts])
        except (Refused, Broken) as error:
            if isinstance(error, Broken) or len(texts) == 1:
                self._check_that_it_takes_others()
            if len(texts) == 1:
                return self._embed_again(texts[0], first, error)
        middle = len(texts) // 2
        return np.concatenate([self._embed(texts[:middle], first), self._embed(texts[middle:], first + middle)])

    def _embed_again(self, text: str, place: int, error: Refused | Broken) -> Vectors:
        """The vector of a text that the endpoint has failed over, if it answers now. Raises UnembeddableText if it
        does not, and for a text that was refused."""
        if isinstance(error, Broken):
            time.sleep(PAUSE_SECONDS)
            for _ in range(TRIES_AGAIN):
                try:
                    return self._request([text if text.strip() else BLANK])
                except (Refused, Broken) as again:
                    error = again
            self._check_that_it_takes_others()
        raise UnembeddableText(f"{self.endpoint} has no vector for the text: {in_full(error)}", place) from None

    def _check_that_it_takes_others(self) -> None:
        """Raises EmbedderUnavailable for an endpoint that has no vector for any text: that is no text's fault. It is
        asked for a text that no cache in front of it has."""
        try:
            self._probe(f"{PROBE} {secrets.token_hex(4)}")
        except Refused as error:
            raise EmbedderUnavailable(f"{self.endpoint} has no vector for any text: {error}") from None

    def _request(self, texts: list[str]) -> Vectors:
        question: dict[str, Any] = {"model": self.name, "input": texts}
        if self.as_base64:
            question["encoding_format"] = "base64"
        if self.asked:
            question["dimensions"] = self.asked
        vectors = read_vectors(self.endpoint.post(question), len(texts), self.endpoint)
        if self.dimensions and vectors.shape[1] != self.dimensions:
            raise ModelError(
                f"{self.endpoint} gives vectors of {vectors.shape[1]} dimensions where {self.dimensions} are expected: "
                f"set OPENAI_DIMENSIONS or OPENAI_MODEL back, or make all vectors anew with `python -m db reembed`"
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not lengths.all():
            raise Refused("it gives a vector that is no numbers, or of length zero")
        unit: Vectors = vectors / lengths
        return unit


def read_vectors(answer: bytes, count: int, endpoint: Endpoint) -> Vectors:
    """The vectors of an answer, in the order of the question. Raises EmbedderUnavailable if it has none, and Refused if
    it has null for one."""
    try:
        rows: list[Any] = [None] * count
        for item in json.loads(answer)["data"]:
            vector, place = item["embedding"], item["index"]
            if vector is None:
                raise Refused("it gives null instead of a vector")
            if place < 0 or rows[place] is not None:
                raise ValueError(f"a second vector, or none, for text {place}")
            if isinstance(vector, str):
                rows[place] = np.frombuffer(base64.b64decode(vector, validate=True), dtype="<f4")
            else:
                rows[place] = np.array(vector, dtype=np.float32)
        if any(row is None or row.ndim != 1 or not len(row) for row in rows):
            raise ValueError("not a vector for each text")
        return np.stack(rows)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
        wrong = endpoint.shown(f"{type(error).__name__}: {error}")  # which may quote what is no number
        said = f"{wrong}, in: {endpoint.reason(answer)}"
        raise EmbedderUnavailable(f"{endpoint} answers HTTP 200, but gives no embeddings", said=said) from None

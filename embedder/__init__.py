"""Embedding providers behind one protocol: `load_provider(settings)`.

A provider's own libraries are imported when it is chosen.
"""

import os

from embedder.protocol import Embedder, EmbedderUnavailable, ModelError, Span, UnembeddableText
from settings import Settings, wrong_choice

__all__ = ["Embedder", "EmbedderUnavailable", "ModelError", "Span", "UnembeddableText", "load_provider"]

# ONNX Runtime's builds tell Microsoft about models and machine, unless it is off before the library is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load_provider(settings: Settings) -> Embedder:
    """The provider that EMBEDDING_PROVIDER names, ready to embed. Load it in the process that uses it, after any fork.

    Raises ModelError, EmbedderUnavailable (a remote provider does not answer), InvalidSetting.
    """
    match settings.embedding_provider:
        case "minilm":
            from embedder.minilm import MiniLM

            return MiniLM(settings.embedding_threads)
        case "hashing":
            from embedder.hashing import HashingEmbedder

            return HashingEmbedder(settings.hashing_microseconds)
        case "openai":
            from embedder.openai import OpenAIEmbedder

            return OpenAIEmbedder.connect(settings)
        case "fastembed":
            from embedder.fastembed import FastEmbedEmbedder

            return FastEmbedEmbedder(settings.fastembed_model, settings.fastembed_folder, settings.embedding_threads)
        case other:
            raise wrong_choice("embedding_provider", other)

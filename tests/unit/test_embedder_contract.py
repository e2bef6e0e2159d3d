"""The contract of the embedding providers: every one passes it, whatever it embeds with."""

import importlib.util
import json
import shutil
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embedder import Embedder, UnembeddableText, load_provider
from embedder.minilm_files import TOKENIZER
from settings import InvalidSetting, Settings
from tests.embedder_parts import embedding_server, int8_model

LONG_TEXTS = {
    "sentences": "Kafka keeps a log. It has partitions, and each has offsets! Who reads them? " * 1300,
    "no spaces": "x" * 100_000,
    "digits": "0123456789" * 10_000,
    "punctuation": "!" * 100_000,
    "Chinese": "今天天气很好。我们去公园散步吧！" * 6_250,
    "Chinese without sentences": "漢字" * 50_000,
    "Korean": "안녕하세요 세계 " * 11_000,
    "emoji": "😀👩‍👩‍👧‍👦🇳🇴" * 9_000,
    "white space": " \t" * 50_000,
    "new lines": "\n" * 100_000,
    "control characters": "\x01\x02 \x7f\x85" * 20_000,
    "one long line": "word " * 20_000,
    "combining marks": "e\u0301\u0302 " * 25_000,
    "Arabic": "السلام عليكم ورحمة الله وبركاته. " * 3_000,
}
ODD_TEXTS = [
    *LONG_TEXTS.values(), "", " ", "\n", "\x00", "\x00\x01\x02", "a\x00b", "\u200b", "\ufeff", "\uffff", "\U0010ffff",
    "!", "a", "é", "😀", "漢", "한", "İ", "ﬃ", "NULL", "'; --", "[CLS] [SEP] [PAD] [MASK]", "##ing",
]  # fmt: skip


@pytest.fixture(
    scope="module",
    params=["hashing", pytest.param("minilm", marks=pytest.mark.model), "openai", "fastembed"],
)
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    match request.param:
        case "minilm":
            int8_model()
            yield load_provider(Settings(embedding_provider="minilm"))
        case "openai":
            with embedding_server() as server:
                yield load_provider(server.settings())
        case "fastembed":
            if importlib.util.find_spec("fastembed") is None:
                pytest.skip("fastembed is not installed: it is an extra")
            folder = tmp_path_factory.mktemp("fastembed")
            bag_of_words_model(folder)
            yield load_provider(
                Settings(
                    embedding_provider="fastembed",
                    fastembed_model="sentence-transformers/all-MiniLM-L6-v2",
                    fastembed_folder=str(folder),
                )
            )
        case other:
            yield load_provider(Settings(embedding_provider=other))


def bag_of_words_model(folder: Path) -> None:
    """A model in the form that fastembed loads: a random vector for each word piece."""
    shutil.copy(int8_model() / TOKENIZER, folder / TOKENIZER)
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 128, "pad_token": "[PAD]"}))
    (folder / "special_tokens_map.json").write_text("{}")
    table = np.random.default_rng(0).standard_normal((30_522, 384)).astype(np.float32)
    names = ("input_ids", "attention_mask", "token_type_ids")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])],
        "bag of words",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in names],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["texts", "tokens", 384])],
        [numpy_helper.from_array(table, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))


def assert_unit(vectors: np.ndarray, count: int, provider: Embedder) -> None:
    assert vectors.shape == (count, provider.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_provider_says_what_it_is(provider: Embedder) -> None:
    assert provider.model
    assert isinstance(provider.dimensions, int)
    assert provider.dimensions > 0


def test_no_texts_give_no_vectors(provider: Embedder) -> None:
    assert_unit(provider.embed([]), 0, provider)


def test_one_text_gives_one_vector_of_length_one(provider: Embedder) -> None:
    assert_unit(provider.embed(["Hello, Kafka"]), 1, provider)


def test_a_thousand_texts_keep_their_order(provider: Embedder) -> None:
    texts = [f"number {n} of a series" + " of words" * (n % 3) for n in range(1_000)]
    vectors = provider.embed(texts)
    assert_unit(vectors, len(texts), provider)
    for row in (0, 1, 2, 499, 998, 999):
        assert provider.embed([texts[row]])[0] @ vectors[row] > 0.9999
    assert vectors[0] @ vectors[1] < 0.9999


def test_texts_may_come_in_any_sequence(provider: Embedder) -> None:
    assert np.array_equal(provider.embed(("a b", "c")), provider.embed(["a b", "c"]))


def test_the_same_text_gives_the_same_vector(provider: Embedder) -> None:
    texts = ["The quick brown fox", "jumps", "over the lazy dog"]
    assert np.array_equal(provider.embed(texts), provider.embed(texts))


def test_a_vector_does_not_depend_on_the_neighbours(provider: Embedder) -> None:
    texts = ["short", "a somewhat longer text than that", "x" * 500, "short", "many words " * 100, "ok"]
    together = provider.embed(texts)
    alone = np.concatenate([provider.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert np.array_equal(together[0], together[3])


def test_texts_that_share_words_are_nearer(provider: Embedder) -> None:
    one, two, three = provider.embed(["red apples and pears", "apples and red cherries", "install the network driver"])
    assert one @ two > one @ three + 0.1
    assert one @ two > two @ three + 0.1


def test_any_text_can_be_embedded(provider: Embedder) -> None:
    vectors = provider.embed(ODD_TEXTS)
    assert_unit(vectors, len(ODD_TEXTS), provider)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff" + "long enough to be looked at " * 500], ids=["short", "long"])
def test_what_is_no_unicode_is_named(provider: Embedder, text: str) -> None:
    with pytest.raises(UnembeddableText, match="not valid Unicode") as caught:
        provider.embed(["fine", "é漢😀", text, "fine too"])
    assert caught.value.index == 2
    with pytest.raises(UnembeddableText) as caught:
        provider.embed([*[""] * 2_000, text])
    assert caught.value.index == 2_000


@pytest.mark.parametrize("text", ["", "a", "Hello, Kafka", "Größe", "한국어", "a line\nand another. And a third."])
def test_a_short_text_is_one_passage(provider: Embedder, text: str) -> None:
    assert provider.passages(text) == [(0, len(text))]


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_passages_cover_a_long_text(provider: Embedder, name: str) -> None:
    text = LONG_TEXTS[name]
    spans = provider.passages(text)
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start <= end < next_end
    assert all(start < end for start, end in spans)


@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_passage_needs_no_further_cutting(provider: Embedder, name: str) -> None:
    text = LONG_TEXTS[name]
    spans = provider.passages(text)
    for start, end in [*spans[:5], *spans[-5:]]:
        assert provider.passages(text[start:end]) == [(0, end - start)]


def test_passages_overlap_and_end_where_sentences_do(provider: Embedder) -> None:
    text = LONG_TEXTS["sentences"]
    spans = provider.passages(text)
    assert len(spans) > 10
    for start, end in spans[:-1]:
        assert text[start:end].rstrip()[-1] in ".!?"
        assert text[start].isupper()
    assert all(after < end for (_, end), (after, _) in pairwise(spans))


def test_threads_may_share_a_provider(provider: Embedder) -> None:
    texts = [[f"thread {thread} text {number}" for number in range(20)] for thread in range(6)]
    expected = [provider.embed(part) for part in texts]
    failures: list[BaseException] = []

    def embed_again(thread: int) -> None:
        try:
            for _ in range(5):
                assert np.array_equal(provider.embed(texts[thread]), expected[thread])
                assert provider.passages(LONG_TEXTS["sentences"][:5_000])
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the test's
            failures.append(error)

    threads = [threading.Thread(target=embed_again, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures


def test_an_unknown_provider_is_named() -> None:
    with pytest.raises(
        InvalidSetting, match="EMBEDDING_PROVIDER='word2vec': takes minilm, hashing, openai or fastembed"
    ):
        load_provider(Settings(embedding_provider="word2vec"))

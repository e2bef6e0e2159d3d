"""The search API on the running pipeline, call by call as the contract has them."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.pipeline import Pipeline

HIT = {"id", "source_id", "message", "passage", "metadata", "score", "created_at"}
ANSWER = {"query", "mode", "model", "took_ms", "count", "results"}


@pytest.fixture(scope="module")
def word() -> str:
    return f"w{uuid.uuid4().hex}"


@pytest.fixture
def stored(pipeline: Pipeline, word: str) -> dict[str, str]:
    """Three texts that share a word of their own, by source id; sent once for the module."""
    texts = {
        f"cat-{word}": (f"{word} the cat sat on the mat", {"kind": "animal", "legs": 4}),
        f"dog-{word}": (f"{word} a dog barked at the postman", {"kind": "animal", "tags": ["loud"]}),
        f"car-{word}": (f"{word} engines and wheels", {"kind": "thing"}),
    }
    found = {}
    for source_id, (text, metadata) in texts.items():
        if pipeline.message(source_id) is None:
            pipeline.send(text, id=source_id, metadata=metadata)
        found[source_id] = pipeline.wait_until_ready(source_id)["id"]
    return found


def search(pipeline: Pipeline, **body: object) -> dict[str, Any]:
    answer = pipeline.http.post(f"{pipeline.search_api}/embeddings/search", json=body, timeout=15)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def sources(answer: dict[str, Any]) -> list[str]:
    return [hit["source_id"].partition("-")[0] for hit in answer["results"] if hit["source_id"]]


def test_a_semantic_search(pipeline: Pipeline, stored: dict[str, str], word: str) -> None:
    answer = search(pipeline, query=f"{word} the cat sat on the mat", limit=3)
    assert set(answer) == ANSWER
    assert (answer["mode"], answer["count"]) == ("semantic", 3)
    assert answer["model"].startswith("hashing")
    assert answer["took_ms"] > 0
    best = answer["results"][0]
    assert set(best) == HIT
    assert best["id"] == stored[f"cat-{word}"]
    assert best["score"] == pytest.approx(1, abs=0.001)
    assert best["passage"] == best["message"]
    scores = [hit["score"] for hit in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len({hit["id"] for hit in answer["results"]}) == 3


def test_a_keyword_search_finds_words_only(pipeline: Pipeline, stored: dict[str, str], word: str) -> None:
    answer = search(pipeline, query=f"{word} cats", mode="keyword")
    assert (sources(answer), answer["mode"], answer["model"]) == (["cat"], "keyword", None)
    assert 0 < answer["results"][0]["score"] <= 1
    assert search(pipeline, query=f"{word} submarine", mode="keyword")["results"] == []


def test_a_hybrid_search_fuses_both(pipeline: Pipeline, stored: dict[str, str], word: str) -> None:
    answer = search(pipeline, query=f"{word} wheels", mode="hybrid", limit=5)
    assert answer["mode"] == "hybrid"
    assert sources(answer)[0] == "car"
    assert 0 < answer["results"][0]["score"] < 0.04


@pytest.mark.parametrize("mode", ["semantic", "keyword", "hybrid"])
def test_filters_narrow_every_mode(pipeline: Pipeline, stored: dict[str, str], word: str, mode: str) -> None:
    def found(**narrowed: object) -> set[str]:
        return set(sources(search(pipeline, query=word, mode=mode, limit=100, **narrowed)))

    assert found(filter={"kind": "animal"}) >= {"cat", "dog"}
    assert "car" not in found(filter={"kind": "animal"})
    assert found(filter={"kind": "animal", "tags": ["loud"]}) == {"dog"}
    assert found(filter={"legs": 4.0}) == {"cat"}
    assert found(filter={"kind": "nothing"}) == set()
    assert found(filter={}) >= {"cat", "dog", "car"}
    assert found(since="2001-01-01", until="9999-12-31T23:59:59Z") >= {"cat", "dog", "car"}
    assert found(until="2001-01-01T00:00:00+02:00") == set()
    assert found(min_score=1000) == set()


def test_the_neighbours_of_a_message(pipeline: Pipeline, stored: dict[str, str], word: str) -> None:
    for form in (f"cat-{word}", stored[f"cat-{word}"]):
        answer = pipeline.http.get(f"{pipeline.search_api}/embeddings/{form}/similar?limit=2", timeout=15)
        assert answer.status_code == 200
        assert set(answer.json()) == ANSWER
        assert answer.json()["count"] == 2
        assert stored[f"cat-{word}"] not in {hit["id"] for hit in answer.json()["results"]}
    assert pipeline.http.get(f"{pipeline.search_api}/embeddings/{word}/similar", timeout=15).status_code == 404


@pytest.mark.parametrize("query", [" ", "?!", "😀", "the", "x" * 10_000, "word " * 2_000, "((( & | !"])
@pytest.mark.parametrize("mode", ["semantic", "keyword", "hybrid"])
def test_any_query_has_an_answer(pipeline: Pipeline, query: str, mode: str) -> None:
    assert search(pipeline, query=query, mode=mode)["query"] == query


def test_status(pipeline: Pipeline, stored: dict[str, str]) -> None:
    status = pipeline.http.get(f"{pipeline.search_api}/status", timeout=15).json()
    assert set(status) == {
        "status",
        "model",
        "dimensions",
        "embedded",
        "pending",
        "failed",
        "oldest_pending_seconds",
        "index",
        "reembedding",
    }
    assert status["reembedding"] is None
    assert status["status"] in ("up_to_date", "catching_up")
    assert status["embedded"] >= 3
    assert set(status["index"]) == {
        "kind",
        "vectors",
        "indexed",
        "open",
        "unindexed",
        "settled",
        "parts",
        "building",
    }
    assert status["index"]["vectors"] >= 3
    assert status["index"]["settled"], "so few vectors need no index"


def test_health_checks_the_model_too(pipeline: Pipeline) -> None:
    health = pipeline.http.get(f"{pipeline.search_api}/health", timeout=15)
    assert health.status_code == 200
    assert health.json()["checks"] == {"database": "ok", "kafka": "ok", "broker": "ok", "model": "ok"}


def test_searches_at_once_do_not_mix(pipeline: Pipeline, stored: dict[str, str], word: str) -> None:
    def first(source_id: str) -> str:
        text = {"cat": "the cat sat on the mat", "dog": "a dog barked at the postman", "car": "engines and wheels"}
        answer = requests.post(
            f"{pipeline.search_api}/embeddings/search",
            json={"query": f"{word} {text[source_id]}", "limit": 1},
            timeout=20,
        )
        return sources(answer.json())[0]

    asked = ["cat", "dog", "car"] * 12
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(first, asked)) == asked

"""The answers of the REST APIs as people read them: tables on a terminal, tab-separated lines in a pipe."""

from collections.abc import Mapping, Sequence
from typing import Any

from clients import json_form
from clients.terminal import lines, on_terminal, pairs, say, snippet, table

BARS = "▁▂▃▄▅▆▇█"


def health(answer: Mapping[str, Any]) -> None:
    checks = answer.get("checks") or {}
    pairs([("status", answer.get("status")), *checks.items()])


def unhealthy(answer: Mapping[str, Any]) -> str:
    failing = [f"{name}: {found}" for name, found in (answer.get("checks") or {}).items() if found != "ok"]
    return "; ".join(failing) or str(answer.get("status") or "unavailable")


def messages(answer: Mapping[str, Any]) -> None:
    found = answer["messages"]
    if on_terminal():
        rows = [(short_time(row["created_at"]), known_as(row), row["embedding"], row["message"]) for row in found]
        table(["created (UTC)", "id", "embedding", "message"], rows, wide="message")
    else:
        lines((known_as(row), row["created_at"], row["embedding"], snippet(row["message"])) for row in found)
    if not found:
        say("no messages")
    if answer.get("next"):
        say(f"more: --cursor {answer['next']}")


def created(answer: Mapping[str, Any]) -> None:
    if answer.get("status") == "accepted":
        pairs([("id", answer.get("id")), ("status", "accepted: Kafka has it, it is stored as soon as its turn comes")])
    else:
        message(answer)


def message(answer: Mapping[str, Any]) -> None:
    names = ["id", "source_id", "created_at", "processed_at", "embedding", "metadata", "message"]
    pairs([(name, json_text(answer[name])) for name in names if answer.get(name) is not None])


def hits(answer: Mapping[str, Any]) -> None:
    found = answer["results"]
    if on_terminal():
        rows = [(f"{row['score']:.3f}", known_as(row), row.get("passage") or row["message"]) for row in found]
        table(["score", "id", "text"], rows, right=["score"], wide="text")
    else:
        lines((f"{row['score']:.3f}", known_as(row), snippet(row.get("passage") or row["message"])) for row in found)
    if not found:
        say("nothing found")
    elif on_terminal():
        say(f"{answer['count']} found in {answer['took_ms']} ms ({answer['mode']}, {answer['model']})")


def stats(answer: Mapping[str, Any]) -> None:
    counted = answer.get("per_minute")
    minutes = [int(minute["messages"]) for minute in counted or []]
    fields = [(name, json_text(value)) for name, value in answer.items() if name != "per_minute"]
    drawn = f"  {spark(minutes)}" if on_terminal() else ""
    pairs([*fields, ("last_hour", json_text(None) if counted is None else f"{sum(minutes)}{drawn}")])


def spark(numbers: Sequence[int]) -> str:
    """Numbers as a row of bars, the largest at full height."""
    top = max(numbers, default=0) or 1
    return "".join(BARS[-(-number * (len(BARS) - 1) // top)] for number in numbers)


def known_as(row: Mapping[str, Any]) -> str:
    """The id by which its sender knows a message; every call takes it."""
    return str(row.get("source_id") or row["id"])


def short_time(iso: str | None) -> str:
    return (iso or "")[:19].replace("T", " ")


def json_text(value: object) -> str:
    """A value as it is typed: texts bare, everything else as JSON."""
    return value if isinstance(value, str) else json_form.dump(value)

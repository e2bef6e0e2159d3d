"""`cli.py trace`: how a story and its durations read, and that a record's words stay words."""

from typing import Any

import pytest

from clients import trace

PLACE = {"topic": "text-messages", "partition": 2, "offset": 1041}
BASE: dict[str, Any] = {
    "id": "1f0e1ab6-0f2e-5e0a-9d0e-000000000001",
    "source_id": "note-1",
    "state": "searchable",
    "record": {
        **PLACE,
        "timestamp": None,
        "in_log": True,
        "key": "k",
        "value_bytes": 1,
        "headers": [],
        "problem": None,
    },
    "steps": [
        {"step": "logged", "at": "2026-01-31T12:00:00.123+00:00", "seconds": None},
        {"step": "stored", "at": "2026-01-31T12:00:00.135+00:00", "seconds": 0.012},
        {"step": "embedded", "at": "2026-01-31T12:00:02.135+00:00", "seconds": 2.0},
    ],
    "embedding": {"model": "m", "passages": 2, "index_part": 7},
    "job": None,
    "failure": None,
    "superseded_by": None,
    "dead_letters": [],
}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0123, "+12.3 ms"), (-0.5, "-500.0 ms"), (2.5, "+2.50 s"), (185, "+3 min 5 s"), (7260, "+2 h 1 min")],
)
def test_a_duration_in_its_unit(seconds: float, said: str) -> None:
    assert trace.duration(seconds) == said


def test_the_story_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    trace.show(BASE)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "note-1 = 1f0e1ab6-0f2e-5e0a-9d0e-000000000001: found by search",
        "   2026-01-31 12:00:00.123  in Kafka: text-messages:2:1041, key k, 1 bytes",
        "                  +12.0 ms  stored",
        "                   +2.00 s  embedded by m: 2 passages, index part 7",
        "                   +2.01 s  in all",
    ]


def test_no_record_commands_the_terminal_or_adds_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "\x1b[2J\nforged: yes\r\u202e"
    letter = {**PLACE, "reason": "invalid-json", "detail": nasty, "state": "open"}
    record = {**BASE["record"], "key": nasty, "headers": [{"name": nasty, "value": nasty}], "problem": nasty}
    trace.show({**BASE, "source_id": nasty, "record": record, "dead_letters": [letter], "state": "dead_letter",
                "steps": [*BASE["steps"], {"step": "dead_letter", "at": None, "seconds": None}]})  # fmt: skip
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\r", "\u202e"}
    assert not [line for line in shown.splitlines() if line.startswith("forged")]


def test_a_row_typed_by_hand_and_a_text_that_was_there(capsys: pytest.CaptureFixture[str]) -> None:
    trace.show({**BASE, "record": None, "steps": BASE["steps"][1:]})
    trace.show({**BASE, "steps": [BASE["steps"][0], {**BASE["steps"][1], "seconds": -60.0}]})
    shown = capsys.readouterr().out
    assert "typed into the database" in shown
    assert "-60.00 s  stored: the same text was there already" in shown

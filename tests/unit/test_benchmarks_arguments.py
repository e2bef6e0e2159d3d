"""What cannot be meant is refused when it is read: after that, servers are started and hours may pass."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import tables
from benchmarks.report import plain


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["throughput", "--of", "lena"], "'lena' is none of shipped,"),
        (["throughput", "--of", "lean,lean"], "twice"),
        (["throughput", "--runs", "0"], "0 is less than 1"),
        (["throughput", "--stub", "-1"], "-1 is no amount"),
        (["throughput", "--stub", "nan"], "nan is no amount"),
        (["minilm", "--workers", "many"], "invalid whole value"),
        (["restart", "--parts", "nosuch"], "'nosuch' is none of all,bridge,"),
        (["freshness", "--plan", "hashing"], "invalid plans value"),
        (["freshness", "--plan", "openai:50"], "'openai' is none of hashing,minilm"),
        (["freshness", "--plan", "hashing:1", "--seconds", "0.5"], "sends no text"),
        (["backlog", "--records", "10", "--every", "5"], "fewer than 4 times that"),
        (["search", "--rows", "10000,0"], "0 is less than 1"),
        (["search", "--ingest", "0"], "0 is not more than 0"),
        (["scaling", "--workers", "1,"], "invalid wholes value"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    with pytest.raises(SystemExit):
        command.chosen(arguments)
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "", '{"cases": [', "[]", "{}", '{"cases": [1]}'])
def test_an_output_that_cannot_be_added_to_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    file = tmp_path / "r.json"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    with pytest.raises(SystemExit):
        command.chosen(["minilm", "--output", str(file)])
    assert str(file) in capsys.readouterr().err


def test_an_output_below_a_file_is_refused_and_one_in_a_folder_to_be_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for option in ("--output", "--plot"):
        with pytest.raises(SystemExit):
            command.chosen(["minilm", option, str(tmp_path / "file" / "r.json")])
    [(_, given)] = command.chosen(["minilm", "--output", str(tmp_path / "a" / "b" / "r.json")])
    assert given.output == tmp_path / "a" / "b" / "r.json"


def test_what_is_no_number_is_null_in_the_json() -> None:
    held = {"a": [float("nan"), 1.5, float("inf")], "b": (2, None, "x"), "c": True}
    assert plain(held) == {"a": [None, 1.5, None], "b": [2, None, "x"], "c": True}


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("performance.md", "scaling.md"):
        (tmp_path / name).write_text(f"{tables.BEGIN}\nold\n{tables.END}\n")
    monkeypatch.setattr(tables, "DOCS", tmp_path)
    return tmp_path


def test_a_page_that_a_run_has_nothing_for_stays_as_it_is(pages: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = {"machine": {"cores": 2, "memory GB": 8.0}, "versions": {"python": "3.11"}}
    case = {"case": "throughput", "title": "texts", "given": {"stub": 21}, "command": "c", "ended": "2026-01-02 03:04"}
    more = {"commit": "a", "processor": "p", "figures": {}, "ratios": [], "notes": [], "details": {}, **place}
    (pages / "r.json").write_text(json.dumps({"cases": [{**case, **more}]}))
    tables.main([str(pages / "r.json")])
    assert "### throughput: texts" in (pages / "performance.md").read_text()
    assert "\nold\n" in (pages / "scaling.md").read_text()
    assert "scaling.md stays as it is" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["nosuch.json"]])
def test_the_tables_answer_what_is_no_run(pages: Path, arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        tables.main(arguments)
    assert "\nold\n" in (pages / "performance.md").read_text()

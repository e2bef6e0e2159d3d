"""What is kept of a run: the JSON, which grows case by case, and the pages that get their figures from it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from benchmarks import __main__ as command
from benchmarks import report, servers
from benchmarks import tables as docs
from benchmarks.bench import Bench
from benchmarks.report import Outcome, Results
from benchmarks.watch import Unfinished
from settings import ROOT
from stack import StackError


@pytest.fixture
def no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` without Kafka, PostgreSQL and Valkey."""

    @contextlib.contextmanager
    def started() -> Iterator[Any]:
        yield SimpleNamespace(settings=None)

    monkeypatch.setattr(servers, "started", started)
    monkeypatch.setattr(report, "versions", lambda _servers: {"python": "x"})
    monkeypatch.setattr(report, "postgres_settings", lambda _servers: {"fsync": "on"})


def run_with(monkeypatch: pytest.MonkeyPatch, run: Callable[[Bench, Any], Outcome]) -> None:
    """Every case does this."""
    real = command.case

    def case(name: str) -> Any:
        return SimpleNamespace(**{**vars(real(name)), "run": run})

    monkeypatch.setattr(command, "case", case)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Unfinished("lost 3 texts"), "lost 3 texts"),
        (StackError("no wheel"), "no wheel"),
        (requests.HTTPError("503"), "HTTPError: 503 (in run, test_benchmarks_results.py:"),
        (KeyError("id"), "KeyError: 'id' (in run, "),
    ],
)
def test_a_case_that_fails_ends_no_other_and_what_it_had_found_is_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_servers: None,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    def run(bench: Bench, given: Any) -> Outcome:
        outcome = bench.begin("a case", f"number {next(bench.numbers)}", given)
        outcome.add("us", **{"running /s": 5.0})
        raise error

    run_with(monkeypatch, run)
    file = tmp_path / "r.json"
    assert command.main(["--quick", "--output", str(file)]) == 1
    cases = json.loads(file.read_text())["cases"]
    assert len(cases) == len(command.CASES)
    for case in cases:
        assert case["failed"].startswith(told)
        assert case["figures"]["us"]["running /s"]["median"] == 5.0
        assert "output" not in case["given"]
    said = capsys.readouterr().out
    assert f"throughput failed: {told}" in said
    assert f"written to {file}" in said
    assert "Failed: " + told in docs.tables({**RUN, "cases": cases})


def test_a_case_that_fails_before_it_has_begun_leaves_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_servers: None
) -> None:
    def run(_bench: Bench, _given: Any) -> Outcome:
        raise StackError("the model is missing")

    run_with(monkeypatch, run)
    file = tmp_path / "r.json"
    assert command.main(["minilm", "--output", str(file)]) == 1
    (case,) = json.loads(file.read_text())["cases"]
    assert (case["case"], case["failed"]) == ("minilm", "the model is missing")
    assert "Failed: the model is missing" in docs.tables({**RUN, "cases": [case]})


def test_rounds_that_were_measured_before_an_interruption_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_servers: None
) -> None:
    def run(bench: Bench, given: Any) -> Outcome:
        bench.begin("minilm", "title", given).add("us", **{"running /s": 5.0})
        raise KeyboardInterrupt

    run_with(monkeypatch, run)
    file = tmp_path / "r.json"
    with pytest.raises(KeyboardInterrupt):
        command.main(["minilm", "--output", str(file)])
    (case,) = json.loads(file.read_text())["cases"]
    assert (case["failed"], list(case["figures"])) == ("interrupted", ["us"])


def test_a_reader_that_has_enough_loses_no_result(tmp_path: Path) -> None:
    """As `make bench | head -1` has: what is shown goes nowhere, and what is kept is kept."""
    program = """
import contextlib, sys, types
from benchmarks import __main__ as command, report, servers

servers.started = lambda: contextlib.nullcontext(types.SimpleNamespace(settings=None))
report.versions = report.postgres_settings = lambda _servers: {}
def run(bench, given):
    bench.begin("minilm", "title", given).add("us", rate=5.0)
real = command.case
command.case = lambda name: types.SimpleNamespace(**{**vars(real(name)), "run": run})
sys.exit(command.main(["minilm", "--output", sys.argv[1]]))
"""
    file = tmp_path / "r.json"
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run([sys.executable, "-c", program, str(file)], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert ended.returncode == 0, ended.stderr
    assert "failed" not in json.loads(file.read_text())["cases"][0]


def test_a_failure_leaves_an_earlier_success_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_servers: None
) -> None:
    file = tmp_path / "r.json"

    def add(rate: float, failed: str | None = None) -> list[Any]:
        outcome = Outcome("case", "title", {})
        outcome.add("us", rate=rate)
        Results(file, "benchmarks case", None).add(outcome, failed)  # type: ignore[arg-type]
        assert [each.name for each in tmp_path.iterdir()] == ["r.json"]
        return [each["figures"]["us"]["rate"]["median"] for each in json.loads(file.read_text())["cases"]]

    assert add(1) == [1]
    assert add(2, "lost") == [1, 2]
    assert add(3, "lost") == [1, 3]
    assert add(4) == [4]


def test_a_success_takes_the_place_of_a_failure_that_had_no_title_yet(tmp_path: Path, no_servers: None) -> None:
    file = tmp_path / "r.json"
    for title, failed in (("what it is about", "no model"), ("5,000 texts", None)):
        Results(file, "benchmarks minilm", None).add(Outcome("minilm", title, {"runs": 1}), failed)  # type: ignore[arg-type]
    assert [case["title"] for case in json.loads(file.read_text())["cases"]] == ["5,000 texts"]


def test_what_is_measured_is_written_after_each_case(tmp_path: Path, no_servers: None) -> None:
    results = Results(tmp_path / "deep" / "r.json", "benchmarks throughput", None)  # type: ignore[arg-type]
    outcome = Outcome("throughput", "title", {"records": 1})
    outcome.add("us", **{"running /s": 5.0})
    results.add(outcome)
    said = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert said["cases"][0]["figures"]["us"]["running /s"]["median"] == 5.0
    assert said["cases"][0]["machine"]["cores"] == os.cpu_count()
    assert said["cases"][0]["versions"]["python"] == "x"
    assert said["cases"][0]["postgresql settings"] == {"fsync": "on"}

    # A later run adds to the file, and measures a case again.
    for case, rate in (("backlog", 1.0), ("throughput", 7.0)):
        later = Results(results.path, f"benchmarks {case}", None)  # type: ignore[arg-type]
        outcome = Outcome(case, "title", {"records": 1})
        outcome.add("us", **{"running /s": rate})
        later.add(outcome)
    cases = {case["case"]: case for case in json.loads(results.path.read_text())["cases"]}
    assert list(cases) == ["backlog", "throughput"]
    assert cases["throughput"]["figures"]["us"]["running /s"]["median"] == 7.0
    assert cases["throughput"]["command"] == "benchmarks throughput"
    assert cases["throughput"]["processor"] == cases["throughput"]["machine"]["processor"]


def test_what_was_measured_with_other_arguments_is_another_figure(tmp_path: Path, no_servers: None) -> None:
    file = tmp_path / "r.json"
    for plan in ("hashing:50", "minilm:50", "hashing:50"):
        Results(file, f"benchmarks freshness --plan {plan}", None).add(  # type: ignore[arg-type]
            Outcome("freshness", "in ms", {"plan": plan, "runs": 1})
        )
    cases = json.loads(file.read_text())["cases"]
    assert [case["given"]["plan"] for case in cases] == ["minilm:50", "hashing:50"]


def test_a_file_of_before_keeps_what_it_says_of_its_cases(tmp_path: Path, no_servers: None) -> None:
    file = tmp_path / "r.json"
    file.write_text(json.dumps(RUN))
    Results(file, "benchmarks search", None).add(Outcome("search", "rows", {}))  # type: ignore[arg-type]
    said = json.loads(file.read_text())
    assert {**said, "cases": said["cases"][:-1]} == RUN
    written = docs.tables(said)
    assert "8.0 GB, python 3.11\n" in written
    assert "python x" in written


RUN: dict[str, Any] = {
    "machine": {"cores": 2, "processor": "a processor", "memory GB": 8.0},
    "versions": {"python": "3.11", "commit": "abc"},
    "cases": [
        {
            "case": "throughput",
            "command": "benchmarks throughput",
            "ended": "2026-01-02 03:04:05 +0000",
            "commit": "abc",
            "processor": "a processor",
            "given": {"stub": 0},
            "title": "texts",
            "figures": {"like Pathway": {"running /s": {"median": 5.0, "least": 4.0, "most": 6.0, "rounds": 3}}},
            "ratios": [{"figure": "running /s", "of": "a", "to": "b", "aim": "1.2", "median": 1.5, "rounds": 1}],
            "notes": ["a note"],
            "details": {
                "rounds": [
                    {"contestant": "like Pathway", "cpu seconds a 100,000": {"bridge": seconds}}
                    for seconds in (1.0, 2.0, 8.0)
                ]
            },
        },
        {
            "case": "minilm",
            "command": "benchmarks minilm",
            "ended": "2026-01-02 03:04:05 +0000",
            "commit": "abc",
            "processor": "another one",
            "given": {},
            "title": "real texts",
            "figures": {"floor: the model alone": {"running /s": {"median": 100.0, "rounds": 1}}},
            "ratios": [],
            "notes": [],
            "details": {},
        },
    ],
}


def test_the_docs_get_their_tables_from_a_run() -> None:
    written = docs.tables(RUN)
    assert "| like Pathway | 5 (4 to 6) |" in written
    assert "| a / b | running /s | 1.5 | 1.2 |" in written
    assert "`benchmarks throughput`, 2026-01-02, commit abc, a processor" in written
    page = f"before {docs.BEGIN} old {docs.END} after"
    assert docs.filled(page, "new") == f"before {docs.BEGIN}\nnew\n{docs.END} after"
    with pytest.raises(ValueError, match="the page has no"):
        docs.filled("no marks", "new")


def test_the_docs_name_a_version_with_a_case_only_where_the_cases_differ() -> None:
    first, second = ({**case, "machine": RUN["machine"]} for case in RUN["cases"])
    first["versions"] = {"python": "3.11", "kafka": "4.3", "commit": "a"}
    second["versions"] = {"python": "3.11", "kafka": "4.4", "commit": "b"}
    lines = docs.tables({"cases": [first, second]}).splitlines()
    assert lines[0].startswith("2 cores, 8.0 GB. Median")
    assert "Versions: python 3.11." in lines
    assert "`benchmarks throughput`, 2026-01-02, commit abc, a processor, kafka 4.3" in lines
    assert "`benchmarks minilm`, 2026-01-02, commit abc, another one, kafka 4.4" in lines


def test_the_cost_of_a_unit_makes_cores_at_each_rate() -> None:
    written = docs.costs(RUN).splitlines()
    assert "| bridge | 2 | 50,000 |" in written  # the median of three rounds
    assert "| bridge | 0.2 | 2 | 20 |" in written
    assert "| the model, MiniLM int8 on these cores | 200 | 2,000 | 20,000 |" in written


@pytest.mark.parametrize("page", ["performance.md", "scaling.md"])
def test_the_pages_have_the_marks_that_the_tables_go_between(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert docs.filled(text, "x") != text


def test_the_folder_of_results_keeps_only_the_reference_run_in_git() -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "benchmarks/results/2026-01-01.json", "benchmarks/results/reference.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ignored.returncode == 128:
        pytest.skip("no git checkout")
    assert ignored.stdout.split() == ["benchmarks/results/2026-01-01.json"]

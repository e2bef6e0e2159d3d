"""The benchmarks' own arithmetic: what they send, how they count, and what the command line makes of its arguments.

That the cases run is seen by `make bench ARGS=--quick`, which takes minutes.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import contestants, floors, processes, texts, watch
from benchmarks.cases import backlog, freshness, quality, scaling, search, throughput
from benchmarks.report import Outcome, Ratio, as_json, cell, ratio_values, spread, tables
from benchmarks.watch import Commits
from settings import ROOT, Settings
from stack import StackError


def test_made_up_texts_are_the_same_every_time_and_none_is_there_twice() -> None:
    first, again = list(texts.made_up(500)), list(texts.made_up(500))
    assert first == again
    assert len({each.id for each in first}) == len({each.text for each in first}) == 500
    assert not {each.id for each in first} & {each.id for each in texts.made_up(500, seed=1)}


def test_the_kept_command_names_no_file_of_this_machine() -> None:
    given = ["minilm", "--runs", "2", "--output", "/somewhere/here", "--plot=there", "--quick"]
    assert command.kept_command(given) == ["minilm", "--runs", "2", "--quick"]


def test_a_missing_development_package_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    monkeypatch.delitem(sys.modules, "benchmarks.cases.freshness")
    with pytest.raises(StackError, match=r"the package requests is missing; `make install`"):
        command.chosen(["freshness"])


def test_a_text_becomes_the_record_that_the_contract_wants() -> None:
    (text,) = texts.made_up(1)
    assert json.loads(text.record()) == {"id": text.id, "text": text.text}


def test_the_checksum_sees_a_lost_a_doubled_and_a_changed_text() -> None:
    sent = list(texts.made_up(50))
    expected = watch.expected_checksum(sent)
    assert expected == watch.expected_checksum(sent[::-1])
    changed = [sent[0]._replace(text="another"), *sent[1:]]
    for other in (sent[1:], [*sent, sent[0]], changed):
        assert watch.expected_checksum(other) != expected


def test_the_running_rate_leaves_out_what_came_with_the_first_commit() -> None:
    assert Commits([10.0, 11.0, 12.0], [500, 100, 100]).running_rate == 100
    assert math.isnan(Commits([10.0], [500]).running_rate)


def test_the_rate_of_the_second_half_leaves_out_what_was_there_when_half_of_them_were() -> None:
    """The first half may have been made while nothing was visible yet."""
    assert Commits([10.0, 10.1, 20.0, 25.0], [200, 300, 250, 250]).second_half_rate == pytest.approx(500 / 14.9)
    assert Commits([10.0, 11.0, 13.0], [700, 100, 100]).second_half_rate == pytest.approx(200 / 3)
    assert math.isnan(Commits([10.0, 11.0], [100, 900]).second_half_rate)


@pytest.mark.parametrize("theirs", ["Pathway", throughput.PATHWAY2])
def test_both_forms_are_compared_with_pathway_on_one_thread_and_on_all_cores(theirs: str) -> None:
    for figure in ("running /s", "second half /s", "with start /s"):
        compared = {each.of for each in throughput.RATIOS if (each.figure, each.to) == (figure, theirs)}
        assert compared == {
            "like Pathway",
            "like Pathway, 2 embed workers",
            "as shipped",
            "as shipped, 2 workers a queue",
        }
    assert "pathway2" in command.read("throughput", []).of.split(",")


def test_rates_are_taken_over_equal_numbers_of_vectors() -> None:
    found = Commits([1.0, 2.0, 3.0, 5.0, 7.0], [100, 100, 100, 100, 100])
    rates = found.rates(100)
    assert rates[-1] == pytest.approx(50)
    assert rates[1] == pytest.approx(100)


def test_a_figure_is_shown_with_its_spread_and_a_round_that_gave_none_is_left_out() -> None:
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "least": 1.0, "most": 3.0, "rounds": 3}
    assert spread([math.nan, math.inf]) == {}
    assert spread([math.inf, 2.0, -math.inf]) == {"median": 2.0, "least": 2.0, "most": 2.0, "rounds": 1}
    assert cell([1234.5]) == "1,234"
    assert cell([1.0, 2.0, 3.0]) == "2  (1 to 3)"


def test_a_ratio_compares_rounds_that_stood_beside_each_other() -> None:
    outcome = Outcome("case", "title", {}, ratios=[Ratio("rate", "a", "b", "2")])
    for ours, theirs in ((100.0, 50.0), (30.0, 10.0), (math.nan, 10.0), (math.inf, 10.0)):
        outcome.add("a", rate=ours)
        outcome.add("b", rate=theirs)
    assert ratio_values(outcome, outcome.ratios[0]) == [2.0, 3.0]
    assert len(tables(outcome)) == 2
    said = as_json(outcome)
    assert said["ratios"] == [
        {"figure": "rate", "of": "a", "to": "b", "aim": "2", "median": 2.5, "least": 2.0, "most": 3.0, "rounds": 2}
    ]
    json.dumps(said)


def test_every_case_has_what_the_command_needs() -> None:
    for name in command.CASES:
        module = command.case(name)
        assert module.ABOUT
        given = command.read(name, [])
        assert given.quick is False
        assert callable(module.run)


def test_quick_sets_small_sizes_and_what_is_said_beside_it_holds() -> None:
    whole, small = command.read("throughput", []), command.read("throughput", ["--quick"])
    assert small.records < whole.records
    assert small.runs == 1
    assert command.read("throughput", ["--quick", "--records", "7"]).records == 7
    assert command.read("throughput", ["--runs", "5"]).runs == 5


def test_a_case_that_is_not_there_is_answered_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.chosen(["thruput"])
    assert "throughput" in capsys.readouterr().err


def test_no_case_means_all_of_them() -> None:
    assert [name for name, _ in command.chosen(["--quick"])] == list(command.CASES)


def test_nearest_is_exact() -> None:
    rng = np.random.default_rng(1)
    vectors, queries = rng.normal(size=(200, 8)), rng.normal(size=(60, 8))
    found = search.nearest(queries, vectors, 5)
    for query, places in zip(queries, found, strict=True):
        assert set(places) == set(np.argsort(-(vectors @ query))[:5])


def test_a_search_is_told_with_the_rows_that_there_are_each_number_once() -> None:
    assert search.held_sizes([10_000, 50_000], 200_000) == [10_000, 50_000]
    assert search.held_sizes([1_000, 10_000, 50_000], 1_414) == [1_000, 1_414]
    with pytest.raises(watch.Unfinished, match="--queries"):
        search.held_sizes([1_000], -20)


def test_recall_and_hits() -> None:
    assert search.recall([["a", "x"], ["c", "d"]], [{"a", "b"}, {"c", "d"}]) == 0.75
    assert quality.hits([[3, 0], [4, 5]], [0, 1]) == 0.5


def test_recall_while_texts_come_in_counts_only_what_was_there_before() -> None:
    held = [texts.Text("a", ""), texts.Text("b", "")]
    assert search.recall_of_held([["new", "a"]], [{"a", "b"}], held) == 1.0
    assert search.recall_of_held([["b", "a"]], [{"a"}], held) == 0.5


def test_percentiles_go_into_the_table() -> None:
    outcome = Outcome("case", "title", {})
    freshness.add(outcome, "a", [float(number) for number in range(101)])
    assert outcome.figures["a"]["p50 ms"] == [50.0]
    assert outcome.figures["a"]["p99 ms"] == [99.0]


def test_the_plot_of_scaling_is_relative_to_one_worker() -> None:
    outcome = Outcome("scaling", "title", {})
    for count, embedded in ((1, 95.0), (1, 105.0), (4, 380.0), (4, 400.0)):  # two rounds: the median is between them
        outcome.add(scaling.label("embed", count), **{"embedded /s": embedded, "stored /s": 1.0})
        outcome.add(scaling.label("persist", count), **{"embedded /s": 1.0, "stored /s": embedded})
    lines = scaling.plot(outcome, [1, 4])["lines"]
    assert lines == {
        "embed, remote model": [[1, 1.0], [4, 3.9]],
        "persist, remote database": [[1, 1.0], [4, 3.9]],
        "ideal": [[1, 1.0], [4, 4.0]],
    }


def test_the_cost_of_a_backlog_leaves_out_the_steps_at_its_ends() -> None:
    found = backlog.cost_figures(np.array([9.0, 2.0, 2.0, 3.0, 2.0, 0.5]))
    assert found == {"CPU most of average": pytest.approx(3 / 2.25), "CPU last but one of second": 1.0}


def test_a_rate_that_goes_up_and_down_is_even_over_two_steps() -> None:
    found = backlog.evenness([30.0, 15.0, 30.0, 15.0])
    assert found == {
        "first /s": 30.0,
        "last /s": 15.0,
        "least of average": pytest.approx(2 / 3),
        "last of first": 0.5,
        "last two of first two": 1.0,
    }


def test_a_rate_that_only_the_machine_changes_is_counted_in_windows() -> None:
    rates = floors.steady_rates(processes=2, windows=3, seconds=0.1)
    assert len(rates) == 3
    assert min(rates) > 0


def test_the_plot_of_a_backlog_has_the_medians_of_all_rounds() -> None:
    assert backlog.line([[10.0, 20.0], [30.0, 20.0], [20.0, 50.0, 7.0]], 100) == [[100, 20.0], [200, 20.0], [300, 7.0]]


def test_only_settings_that_the_product_has_are_changed() -> None:
    assert contestants.known({"kafka_topic": "x", "no_such_setting": 1}) == {"kafka_topic": "x"}


def test_the_contestants_take_turns_in_going_first() -> None:
    from benchmarks.bench import turns

    entered = [contestants.pathway(), contestants.script()]
    assert [each.name for _, each in turns(entered, 2)] == ["Pathway", "30-line script", "30-line script", "Pathway"]


def test_the_script_is_as_short_as_it_is_called() -> None:
    """Its lines of code, less the imports: what a user would write is no straw man, and no pipeline either."""
    lines = (ROOT / "benchmarks" / "peers" / "script_peer.py").read_text().splitlines()
    code = [line for line in lines[1:] if line.strip() and not line.startswith(("import", "from"))]
    assert len(code) <= 36


def test_processor_time_and_memory_of_a_family_are_seen(tmp_path: Path) -> None:
    busy = """
import os, time
if os.fork() == 0:
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    os._exit(0)
os.wait()
time.sleep(60)
"""
    running = processes.Running(
        "busy", [sys.executable, "-c", busy], environment=os.environ, folder=tmp_path, log=tmp_path / "log"
    )
    try:
        meter = processes.Meter({"busy": running.pid})
        deadline = time.monotonic() + 30
        while meter.spent["busy"] < 0.25 and time.monotonic() < deadline:
            meter.sample()
            time.sleep(0.02)
        # The child has ended, or is about to: its time stays with its parent's.
        assert meter.spent["busy"] >= 0.25
        assert meter.largest_mb["busy"] > 1
    finally:
        running.kill()
    assert running not in processes.RUNNING
    assert not running.alive


def test_the_remote_embedder_answers_the_provider_and_takes_its_time(tmp_path: Path) -> None:
    from benchmarks.servers import free_ports
    from embedder.openai import OpenAIEmbedder
    from stack import probes
    from tests.parts import eventually

    (port,) = free_ports(1)
    program = str(ROOT / "benchmarks" / "peers" / "embedding_endpoint.py")
    running = processes.Running(
        "endpoint", [sys.executable, program, str(port), "150"], environment={}, folder=tmp_path, log=tmp_path / "log"
    )
    try:
        eventually(lambda: probes.tcp("127.0.0.1", port) is None)
        provider = OpenAIEmbedder.connect(Settings(openai_base_url=f"http://127.0.0.1:{port}/v1", openai_batch_max=2))
        assert provider.dimensions == scaling.DIMENSIONS
        began = time.monotonic()
        vectors = provider.embed(["a", "b", "c"])
        assert time.monotonic() - began >= 0.3  # two requests
        assert vectors.shape == (3, scaling.DIMENSIONS)
    finally:
        running.kill()


def test_the_distance_hands_everything_on_in_order_and_late(tmp_path: Path) -> None:
    import socket
    import threading

    from benchmarks.servers import free_ports
    from stack import probes
    from tests.parts import eventually

    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def echo() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    while taken := peer.recv(65_536):
                        peer.sendall(taken)

        threading.Thread(target=echo, daemon=True).start()
        program = str(ROOT / "benchmarks" / "peers" / "distance.py")
        target = str(server.getsockname()[1])
        running = processes.Running(
            "distance",
            [sys.executable, program, str(port), target, "100"],
            environment={},
            folder=tmp_path,
            log=tmp_path / "log",
        )
        try:
            eventually(lambda: probes.tcp("127.0.0.1", port) is None)
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                began = time.monotonic()
                sent = os.urandom(300_000)
                threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
                got = b""
                while len(got) < len(sent):
                    got += client.recv(65_536)
                assert got == sent
                assert time.monotonic() - began >= 0.1
        finally:
            running.kill()

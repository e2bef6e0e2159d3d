"""`python -m db reembed`: what it takes, what it asks before it deletes, and how it tells the state."""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest

from db import reembed_command
from db.reembed_command import dropped_by, told
from db.reembedding import Change
from settings import ROOT, InvalidSetting, Settings

NOWHERE = Settings(database_port=1, embedding_provider="hashing")
RUNNING = Change("running", "new", None, False, None, False, 1.0)
STATE = {
    "state": "embedding",
    "model": "new",
    "dimensions": 8,
    "from_model": "old",
    "undoing": False,
    "done": 3,
    "failed": 0,
    "total": 9,
    "started_at": "2026-01-01T00:00:00+00:00",
    "problem": None,
}
UNCOUNTED = {"done": None, "failed": None, "total": None}


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m db")
    reembed_command.add_to(parser.add_subparsers())
    return parser.parse_args(["reembed", *arguments])


def test_help_names_every_action(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for action in reembed_command.ACTIONS:
        assert f"\n  {action} " in shown
    assert "exit codes" in shown


@pytest.mark.parametrize("arguments", [["pause"], ["--set"], ["--unknown"]])
def test_wrong_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--provider", "nonsense"],
        ["--set", "bad"],
        ["--set", "FOO=1"],
        ["--set", "OPENAI_DIMENSIONS=-3"],
        ["--provider", "openai", "--set", "OPENAI_DIMENSIONS=-3"],
    ],
)
def test_so_does_a_provider_that_cannot_be_whether_the_database_is_there_or_not(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert reembed_command.run(parse(*arguments), NOWHERE) == 2
    said = capsys.readouterr().err
    assert said.startswith("db: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("says", ["db.schema.current = lambda _: 4", "db.reembedding_status.status = lambda _: None"])
def test_an_answer_that_cannot_be_written_is_a_failure(says: str, where: str, unbuffered: str) -> None:
    words = ["current"] if "current" in says else ["reembed", "status", "--json"]
    code = (
        "import contextlib, sys; import db.__main__, db.schema, db.reembed_command, db.reembedding_status; "
        "db.reembed_command.connected = lambda _: contextlib.nullcontext(); "
        f"{says}; sys.argv[1:] = {words}; sys.exit(db.__main__.main())"
    )
    answer = shell(f"{shlex.join([sys.executable, '-c', code])} {where}", PYTHONUNBUFFERED=unbuffered)
    assert answer.returncode == 1
    assert answer.stderr.startswith("db: standard output cannot be written: ")
    assert answer.stderr.count("\n") == 1


def test_a_reader_who_has_enough_is_no_failure() -> None:
    answer = shell(f"{shlex.quote(sys.executable)} -m db reembed --help | true; echo ${{PIPESTATUS[0]}}")
    assert (answer.stdout, answer.stderr) == ("0\n", "")


def test_the_help_is_for_any_locale() -> None:
    command = f"{shlex.quote(sys.executable)} -m db reembed --help"
    answer = shell(command, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.isascii()


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def test_a_provider_is_for_starting(capsys: pytest.CaptureFixture[str]) -> None:
    assert reembed_command.run(parse("stop", "--provider", "minilm"), NOWHERE) == 2
    assert "for starting a change" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "OPENAI_MODEL"], "takes NAME=VALUE"),
        (["--set", "DATABASE_HOST=elsewhere"], "does not make a provider"),
        (["--provider", "word2vec"], "takes minilm, hashing, openai or fastembed"),
        (["--set", "OPENAI_DIMENSIONS=3"], "is a setting of openai, not of hashing"),
    ],
)
def test_a_provider_that_cannot_be_is_refused_before_anything_is_changed(arguments: list[str], said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        reembed_command.asked_for(parse(*arguments), NOWHERE)


@pytest.mark.parametrize(
    ("action", "change", "model"),
    [
        ("undo", RUNNING, "new"),
        ("undo", replace(RUNNING, state="stopped"), "new"),
        ("undo", replace(RUNNING, undoing=True), None),
        ("undo", replace(RUNNING, state="switched", old_model="old"), None),
        ("forget-old", replace(RUNNING, state="switched", old_model="old"), "old"),
        ("forget-old", RUNNING, None),
        ("stop", RUNNING, None),
        ("undo", None, None),
    ],
)
def test_what_would_be_deleted(action: str, change: Change | None, model: str | None) -> None:
    assert dropped_by(action, change) == model


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (True, 0, ""),
        (False, 1, "db: nothing was changed\n"),
        (None, 2, "db: this deletes all vectors of old: say --yes\n"),
    ],
)
def test_it_asks_before_it_deletes(
    answer: bool | None, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []
    done: list[str] = []

    def confirmed(question: str) -> bool | None:
        asked.append(question)
        return answer

    monkeypatch.setattr("streams.confirmed", confirmed)
    monkeypatch.setattr(reembed_command, "connected", lambda _: nullcontext())
    monkeypatch.setattr(reembed_command, "transaction", lambda _: nullcontext())
    monkeypatch.setattr("db.reembedding.present", lambda _: replace(RUNNING, state="switched", old_model="old"))
    monkeypatch.setattr(reembed_command, "carry_out", lambda action, *_: done.append(action))
    monkeypatch.setattr("db.reembedding_status.status", lambda _: None)
    assert reembed_command.run(parse("forget-old"), NOWHERE) == code
    assert asked == ["Delete all vectors of old? They can only be made anew."]
    assert done == (["forget-old"] if answer else [])
    assert capsys.readouterr().err == said


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("action", "interrupted", "said"),
    [
        ("start", "load_provider", "nothing was changed"),
        ("forget-old", "streams.confirmed", "nothing was changed"),
        ("forget-old", "connected", "nothing was changed"),
        ("forget-old", "carry_out", "nothing was changed"),
        ("status", "reembedding_status.status", "nothing was changed"),
        ("stop", "reembedding_status.status", "it is stopped"),
        ("start", "reembedding_status.status", "it goes on all the same"),
        ("start", "watch", "it goes on all the same"),
        ("resume", "watch", "it goes on all the same"),
    ],
)
def test_ctrl_c_is_told_whether_anything_was_begun(
    action: str, interrupted: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    switched = replace(RUNNING, state="switched", old_model="old")
    monkeypatch.setattr(reembed_command, "connected", lambda _: nullcontext())
    monkeypatch.setattr(reembed_command, "transaction", lambda _: nullcontext())
    monkeypatch.setattr("db.reembedding.present", lambda _: switched)
    monkeypatch.setattr("streams.confirmed", lambda _: True)
    monkeypatch.setattr(reembed_command, "carry_out", lambda *_: None)
    monkeypatch.setattr(f"db.reembed_command.{interrupted}", interrupt)
    options = ["--wait"] if interrupted == "watch" else []
    assert reembed_command.run(parse(action, *options), NOWHERE) == 130
    assert capsys.readouterr().err.startswith(f"db: {said}")


def test_ctrl_c_while_it_is_committed_leaves_open_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def transaction(_settings: Settings) -> Iterator[None]:
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(reembed_command, "connected", lambda _: nullcontext())
    monkeypatch.setattr(reembed_command, "transaction", transaction)
    monkeypatch.setattr("db.reembedding.present", lambda _: RUNNING)
    monkeypatch.setattr(reembed_command, "carry_out", lambda *_: None)
    assert reembed_command.run(parse("stop"), NOWHERE) == 130
    assert capsys.readouterr().err.startswith("db: whether it was done, `python -m db reembed status` says")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "embedding: from old to new, 3 of 9"),
        ({"failed": 2, "undoing": True}, "embedding: back from old to new, 3 of 9, 2 of them failed"),
        ({"problem": "no key"}, "a worker says: no key"),
        ({"state": "switched"}, "the active model is new; the vectors of old are kept"),
        ({"state": "dropping"}, "the vectors of new are being deleted, 3 messages have some left"),
        ({"state": "stopped", **UNCOUNTED}, "stopped: from old to new; counting takes too long"),
        ({"state": "dropping", **UNCOUNTED}, "the vectors of new are being deleted; counting takes too long"),
    ],
)
def test_the_state_in_words(changes: dict[str, Any], said: str) -> None:
    assert said in told({**STATE, **changes})


def test_no_change_in_words() -> None:
    assert "no change of the model is under way" in told(None)

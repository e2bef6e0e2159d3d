"""The scripts at the top, as far as they can be tried without starting anything."""

import errno
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import settings
from settings import ROOT, Settings
from stack import commands, lock, stop


def script(
    name: str, *arguments: str, data_dir: Path, stdin: int = subprocess.DEVNULL, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / name), *arguments],
        cwd="/",
        env={**os.environ, "DATA_DIR": str(data_dir), **variables},
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_status_of_what_does_not_run_is_1_from_any_folder(tmp_path: Path) -> None:
    for answer in (
        script("status.sh", data_dir=tmp_path),
        script("start.sh", "--status", data_dir=tmp_path),
    ):
        assert answer.returncode == 1
        assert answer.stdout == "Not running. ./start.sh starts it.\n"


def test_stop_of_what_does_not_run_is_no_failure(tmp_path: Path) -> None:
    answer = script("stop.sh", data_dir=tmp_path)
    assert (answer.returncode, answer.stdout) == (0, "Nothing was running.\n")


def test_a_lock_can_be_taken_on_a_full_disk() -> None:
    taken = lock.try_to_take(Path("/dev/full"))
    assert taken is not None
    taken.release()


def test_data_on_another_disk_is_removed_with_its_link(tmp_path: Path) -> None:
    data, disk = tmp_path / "data", tmp_path / "disk"
    (disk / "kafka").mkdir(parents=True)
    (disk / "kafka" / "log").touch()
    (disk / "postgres").mkdir()
    (disk / "other").touch()
    data.mkdir()
    (data / "kafka").symlink_to(disk / "kafka")
    (data / "postgres").symlink_to(disk / "postgres")
    (data / "logs").symlink_to(disk / "gone")
    stop.remove_data(Settings(data_dir=str(data)))
    assert [path.name for path in disk.iterdir()] == ["other"]
    assert not data.exists()


def test_a_disk_that_is_mounted_there_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, disks = tmp_path / "data", [tmp_path / "first", tmp_path / "second"]
    data.mkdir()
    for name, disk in zip(("kafka", "postgres"), disks, strict=True):
        (disk / "folder").mkdir(parents=True)
        for file in (disk / "folder" / "file", disk / "file"):
            file.touch()
        (disk / "link").symlink_to(disk / "folder")
        (data / name).symlink_to(disk)
    rmdir = os.rmdir

    def refused(path: Any, **options: Any) -> None:
        if path in disks:
            raise OSError(errno.EBUSY, "Device or resource busy", str(path))
        rmdir(path, **options)

    monkeypatch.setattr(os, "rmdir", refused)
    stop.remove_data(Settings(data_dir=str(data)))
    assert [list(disk.iterdir()) for disk in disks] == [[], []]
    assert not data.exists()


STOP_UNDER_FIRE = """
import signal, sys
from stack import commands, stop

def stop_all(settings):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.raise_signal(number)
    return True

stop.stop_all = stop_all
sys.exit(commands.main(["stop"]))
"""


def test_no_signal_cuts_a_stop_in_half(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", STOP_UNDER_FIRE],
        cwd=ROOT,
        env={**os.environ, "DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (answer.returncode, answer.stdout) == (0, "Stopped.\n")


HUNG_UP = """
import signal, sys
from stack import commands

def start(settings, arguments):
    signal.raise_signal(signal.SIGHUP)
    return 0

commands.COMMANDS["start"] = start
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1:] else signal.SIG_DFL)
sys.exit(commands.main(["start"]))
"""


@pytest.mark.parametrize(("arguments", "code"), [([], 130), (["nohup"], 0)])
def test_a_closed_terminal_does_not_end_what_nohup_runs(arguments: list[str], code: int) -> None:
    assert subprocess.run([sys.executable, "-c", HUNG_UP, *arguments], cwd=ROOT, timeout=30).returncode == code


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 1, "it does not run: ./start.sh starts it"),
        (["embed", "2"], 1, "it does not run: ./start.sh starts it"),
        (["embed"], 2, "how many workers for embed?"),
        (["embed", "many"], 2, "how many workers for embed?"),
        (["embed", "\N{ARABIC-INDIC DIGIT TWO}"], 2, "how many workers for embed?"),
        (["embed", "--timeout", "0", "1"], 1, "it does not run: ./start.sh starts it"),
        (["--json", "embed", "--timeout", "0", "1"], 1, "it does not run: ./start.sh starts it"),
        (["embed", "1", "--timeout", "-1"], 2, "argument --timeout: must be 0 or more seconds"),
        (["embed", "1", "--timeout", "nan"], 2, "argument --timeout: must be 0 or more seconds"),
        (["embed", "1", "--timeout", "inf"], 2, "argument --timeout: must be 0 or more seconds"),
        (["embed", "1", "--timeout", "soon"], 2, "argument --timeout: "),
        (["embed", "-1"], 2, ""),
        (["embed", "0"], 2, "a queue needs a worker"),
        (["embed", "1000"], 2, "1000 workers: 1 to 16"),
        (["index", "2"], 2, "there is no queue 'index': there are persist and embed"),
    ],
)
def test_what_cannot_be_scaled_is_said_in_a_line(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    answer = script("scale.sh", *arguments, data_dir=tmp_path / "none")
    assert answer.returncode == code
    assert says in answer.stderr
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / "none").exists()  # and nothing is left of it


def test_data_is_not_removed_without_a_yes(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    answer = script("stop.sh", "--volumes", data_dir=tmp_path)
    assert answer.returncode == 2
    assert "--yes" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert (tmp_path / "kafka").exists()


@pytest.mark.parametrize("typed", [b"n\n", b"\n", b"\x04"])  # the last is the end of the input
def test_data_is_not_removed_by_any_other_answer(typed: bytes, tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    terminal, typed_on = pty.openpty()
    try:
        os.write(terminal, typed)
        answer = script("stop.sh", "--volumes", data_dir=tmp_path, stdin=typed_on)
    finally:
        os.close(terminal)
        os.close(typed_on)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"Remove all data in {tmp_path}? [y/N] ")
    assert answer.stderr.endswith("nothing was done\n")
    assert (tmp_path / "kafka").exists()


def test_data_is_removed_with_a_yes(tmp_path: Path) -> None:
    (tmp_path / "kafka").mkdir()
    assert script("stop.sh", "--volumes", "--yes", data_dir=tmp_path).returncode == 0
    assert not (tmp_path / "kafka").exists()


def test_a_setting_that_cannot_be_used_is_named_in_one_line(tmp_path: Path) -> None:
    answer = script("status.sh", data_dir=tmp_path, KAFKA_PORT="many")
    assert answer.returncode == 1
    assert answer.stderr == "KAFKA_PORT='many': KAFKA_PORT takes a whole number\n"


@pytest.mark.parametrize(
    "content", [b"EMBED_WORKERS=two\nDATA_DIR=%s\n", b"DATA_DIR=%s\nnonsense\n", b"DATA_DIR=%s\n\xff\n"]
)
def test_a_system_is_found_and_stopped_whatever_has_been_written_into_env_since(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (tmp_path / ".env").write_bytes(content.replace(b"%s", str(data).encode()))
    monkeypatch.setattr("settings.ROOT", tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)
    settings.load.cache_clear()
    stopped: list[str] = []

    def note(chosen: Settings, _arguments: object) -> int:
        stopped.append(chosen.data_dir)
        return 0

    for name in ("stop", "scale"):
        monkeypatch.setitem(commands.COMMANDS, name, note)
    try:
        assert commands.main(["stop"], interruptible=False) == 0
        assert commands.main(["scale"], interruptible=False) == 2
    finally:
        settings.load.cache_clear()
    assert stopped == [str(data) if b"\xff" not in content else ".local/data"]
    assert capsys.readouterr().err


def test_a_line_of_env_that_sets_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".env").write_text("EMBEDING_PROVIDER=hashing\nBRIDGES=2\nOURS=1\n")
    monkeypatch.setattr(commands, "ROOT", tmp_path)
    commands.tell_misspelt()
    said = capsys.readouterr().out
    assert said == ".env: EMBEDING_PROVIDER is no setting, and changes nothing; EMBEDDING_PROVIDER is one\n"


def test_a_script_works_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "state"
    link.symlink_to(ROOT / "status.sh")
    answer = subprocess.run([link], env={**os.environ, "DATA_DIR": str(tmp_path)}, capture_output=True, text=True)
    assert answer.stdout == "Not running. ./start.sh starts it.\n"


def test_a_script_finds_its_own_modules_where_python_does_not_look_into_the_working_folder(tmp_path: Path) -> None:
    safe = {**os.environ, "DATA_DIR": str(tmp_path), "PYTHONSAFEPATH": "1"}
    answer = subprocess.run([ROOT / "status.sh"], env=safe, capture_output=True, text=True)
    assert answer.stdout == "Not running. ./start.sh starts it.\n"


def test_without_a_python_one_line_says_what_to_install(tmp_path: Path) -> None:
    checkout = tmp_path / "check out"
    (checkout / "stack").mkdir(parents=True)
    for name in ("start.sh", "stack/find-python.sh"):
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("dirname", "readlink"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    answer = subprocess.run(
        ["/bin/bash", checkout / "start.sh"], env={"PATH": str(tools)}, capture_output=True, text=True
    )
    assert answer.returncode == 1
    assert answer.stderr.startswith("Python 3.11 or later is needed")
    assert answer.stderr.count("\n") == 1


def test_the_checks_begin_with_the_start_where_an_installation_was_interrupted(tmp_path: Path) -> None:
    for name in ("e2e_test.sh", "stack/find-python.sh"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "start.sh").write_text('#!/bin/sh\necho start "$@"; exit 3\n')
    (tmp_path / "start.sh").chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / ".venv" / ".installing").touch()
    answer = subprocess.run(["/bin/bash", tmp_path / "e2e_test.sh"], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (1, "start --no-demo\n")


@pytest.mark.parametrize("name", ["start.sh", "stop.sh", "status.sh", "scale.sh"])
def test_help_names_the_script(name: str, tmp_path: Path) -> None:
    assert script(name, "--help", data_dir=tmp_path).stdout.startswith(f"usage: ./{name}")


@pytest.mark.parametrize("name", ["start.sh", "stop.sh", "status.sh", "scale.sh"])
def test_what_is_said_of_wrong_usage_names_the_script(name: str, tmp_path: Path) -> None:
    for words in (["--bogus"], ["one", "2", "too", "many"]):
        answer = script(name, *words, data_dir=tmp_path)
        assert answer.returncode == 2
        usage, *_, error = answer.stderr.splitlines()
        assert usage.startswith(f"usage: ./{name} ")
        assert error.startswith(f"./{name}: error: unrecognized arguments: ")


def test_the_commands_without_a_script_are_named_as_they_are_typed(tmp_path: Path) -> None:
    for words, said in (((), "python -m stack: error: "), (("install", "--bogus"), "python -m stack install: error: ")):
        command = [sys.executable, "-m", "stack", *words]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
        assert answer.returncode == 2
        assert answer.stderr.splitlines()[-1].startswith(said)

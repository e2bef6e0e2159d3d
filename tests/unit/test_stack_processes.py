"""Which processes belong to a system, how their starts are counted, and that only they are ended."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from settings import ROOT, Settings
from stack import commands, lock, record, stop, supervisor, system
from stack.errors import StackError
from stack.part import Port
from stack.processes import MARK, Identity, alive, end, identity
from stack.record import LONGEST_WAIT, Record, next_record
from stack.system import KnownPart

ITSELF = Identity(1, "boot", 1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir()
    return Settings(data_dir=str(tmp_path))


@pytest.fixture
def sleeper() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def sleep_for(settings: Settings) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: settings.data_dir})


def test_restarts_are_counted_from_the_second_start_on() -> None:
    first = next_record(None, ITSELF, signal.SIGTERM, 0.0)
    second = next_record(first, ITSELF, signal.SIGTERM, 100.0)
    assert (first.restarts, second.restarts) == (0, 1)


def test_a_part_that_lived_long_starts_again_at_once() -> None:
    first = next_record(None, ITSELF, signal.SIGTERM, 0.0)
    assert next_record(first, ITSELF, signal.SIGTERM, 60.0).waits_until == 60.0


def test_a_part_that_dies_again_and_again_waits_longer_but_never_beyond_a_bound() -> None:
    start, now, waits = next_record(None, ITSELF, signal.SIGTERM, 0.0), 0.0, []
    for _ in range(1100):  # a power of 2.0 ends at the 1024th
        now = start.waits_until + 0.5
        start = next_record(start, ITSELF, signal.SIGTERM, now)
        waits.append(start.waits_until - now)
    assert waits[:4] == pytest.approx([0.5, 1, 2, 4])
    assert {round(wait, 6) for wait in waits[10:]} == {LONGEST_WAIT}


def test_a_full_disk_keeps_no_part_from_starting_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    record.write(settings, "beat", Record(ITSELF, signal.SIGTERM, starts=10, early_deaths=10, since=1234.5678))

    def full(file: Path, *_: object) -> None:
        file.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    assert record.write_own(settings, "beat", "TERM") == record.read(settings, "beat")


def test_a_record_is_read_back_and_an_unreadable_one_is_none(settings: Settings) -> None:
    written = Record(ITSELF, signal.SIGINT, starts=3, early_deaths=1, since=12.5)
    record.write(settings, "kafka", written)
    assert record.all_records(settings) == {"kafka": written}
    (Path(settings.data_dir) / "run" / "kafka.start.json").write_text("{")
    assert record.all_records(settings) == {}


def test_a_part_that_dies_again_and_again_is_not_waited_for(settings: Settings) -> None:
    for starts, said in ((1, None), (4, None), (5, "it died 4 times")):
        record.write(settings, "kafka", Record(ITSELF, signal.SIGINT, starts=starts, early_deaths=1, since=12.5))
        assert record.hopeless(settings, "kafka") == said
    assert record.hopeless(settings, "valkey") is None


def test_a_process_id_alone_proves_nothing() -> None:
    mine = identity(os.getpid())
    assert mine is not None
    assert alive(mine)
    assert not alive(Identity(mine.pid, mine.boot, mine.ticks - 1))
    assert not alive(Identity(mine.pid, "before the last boot", mine.ticks))


def test_a_zombie_is_not_alive(sleeper: list[subprocess.Popen[bytes]]) -> None:
    process = subprocess.Popen(["sleep", "60"])
    sleeper.append(process)
    known = identity(process.pid)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not alive(known)


def test_a_process_of_any_name_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "a) Z 1 ("
    script.write_text("#!/bin/sh\ntrap '' TERM\necho ready\nread line\n")
    script.chmod(0o700)
    with subprocess.Popen([str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        known = identity(process.pid)
        assert known is not None
        end({known: signal.SIGTERM}, 0.1)
        assert process.wait(5) == -signal.SIGKILL


def test_parts_without_a_supervisor_are_ended_and_those_of_another_system_are_not(
    settings: Settings, tmp_path: Path, sleeper: list[subprocess.Popen[bytes]]
) -> None:
    own = sleep_for(settings)
    other = sleep_for(Settings(data_dir=str(tmp_path / "another")))
    renamed = subprocess.Popen(["sleep", "60"])  # like Valkey, which overwrites its environment
    sleeper += [own, other, renamed]
    known = identity(renamed.pid)
    assert known is not None
    record.write(settings, "valkey", Record(known, signal.SIGTERM, starts=1, early_deaths=0, since=0.0))
    assert stop.end_orphans(settings)
    assert own.wait(5) == renamed.wait(5) == -signal.SIGTERM
    assert other.poll() is None
    assert not stop.end_orphans(settings)


@pytest.mark.parametrize("command", ["stop", "status"])
def test_a_copy_of_a_checkout_leaves_the_system_alone_that_runs_in_the_other(
    command: str,
    settings: Settings,
    tmp_path: Path,
    sleeper: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sleeper.append(sleep_for(settings))
    known = identity(sleeper[0].pid)
    assert known is not None
    record.note_folder(settings)
    record.write(settings, "valkey", Record(known, signal.SIGTERM, starts=1, early_deaths=0, since=0.0))
    (tmp_path / "run" / "supervisord.json").write_text(json.dumps(asdict(known)))
    copy = Settings(data_dir=str(tmp_path / "copy"))
    shutil.copytree(tmp_path / "run", tmp_path / "copy" / "run")
    with monkeypatch.context() as changed:
        changed.setattr(commands, "load", lambda: copy)
        changed.setattr(signal, "signal", lambda *_: None)
        changed.setattr(supervisor, "talk", lambda _: None)  # its socket answers in the other only
        assert commands.main([command], interruptible=False) == (command == "status")
    assert capsys.readouterr().out.startswith("Not" if command == "status" else "Nothing was running")
    assert alive(known)


def test_a_folder_that_was_moved_still_knows_its_system(settings: Settings, tmp_path: Path) -> None:
    record.note_folder(settings)
    record.write(settings, "valkey", Record(ITSELF, signal.SIGTERM, starts=1, early_deaths=0, since=0.0))
    (tmp_path / "moved").mkdir()
    (tmp_path / "run").rename(tmp_path / "moved" / "run")
    moved = Settings(data_dir=str(tmp_path / "moved"))
    stop.forget_copied(moved)
    assert record.all_records(moved).keys() == {"valkey"}


def test_processes_are_known_by_a_folder_that_the_locale_cannot_spell(
    tmp_path: Path, sleeper: list[subprocess.Popen[bytes]]
) -> None:
    data = str(tmp_path / "Prüfung")
    sleeper.append(sleep_for(Settings(data_dir=data)))
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    code = "import sys; from settings import Settings; from stack.processes import marked; "
    code += "print(marked(Settings(data_dir=sys.argv[1])))"
    found = subprocess.run([sys.executable, "-c", code, data], env=ascii_only, cwd=ROOT, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == (f"[{sleeper[0].pid}]\n", "")


def test_what_was_started_is_known_without_its_settings_and_to_its_owner_only(settings: Settings) -> None:
    system.write(settings, [], ready=True)
    file = Path(settings.data_dir) / "run" / "system.json"
    assert file.stat().st_mode & 0o077 == 0
    found = system.read(Settings(data_dir=settings.data_dir, kafka_port=1))
    assert found is not None
    assert found.settings == settings
    assert found.ready
    file.write_text(file.read_text().replace('"parts": []', '"parts": [{"name": "a", "layer": 2, "ports": []}]'))
    again = system.read(settings)
    assert again is not None
    assert again.parts == (KnownPart("a", 2, ()),)


def test_a_port_survives_being_written_down(settings: Settings) -> None:
    from stack.plan import local_part

    system.write(settings, [local_part(settings, "text-api")], ready=False)
    found = system.read(settings)
    assert found is not None
    assert found.parts[0].ports == (Port("TEXT_API_PORT", "127.0.0.1", 5002),)


def test_a_second_start_is_told_who_is_at_it(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("12345678901")  # who had it before
    first = lock.take(tmp_path / "lock", "another start is under way")
    with pytest.raises(StackError, match=rf"another start is under way \(pid {os.getpid()}\)"):
        lock.take(tmp_path / "lock", "another start is under way")
    first.release()
    lock.take(tmp_path / "lock", "").release()


def test_a_lock_goes_along_when_the_process_becomes_another_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEXT_PIPELINE_LOCK_FD", raising=False)
    first = lock.take(tmp_path / "lock", "")
    first.hand_on()
    descriptor = int(os.environ["TEXT_PIPELINE_LOCK_FD"])
    assert os.get_inheritable(descriptor)
    second = lock.take(tmp_path / "lock", "")
    assert not os.get_inheritable(descriptor), "the parts would hold it for as long as they run"
    assert "TEXT_PIPELINE_LOCK_FD" not in os.environ, "nor does any other command take it over"
    assert lock.try_to_take(tmp_path / "lock") is None
    second.release()


def test_only_what_is_a_systems_own_is_removed_with_its_data(settings: Settings) -> None:
    folder = Path(settings.data_dir)
    for name in ("kafka", "postgres", "notes"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    stop.remove_data(settings)
    assert [path.name for path in folder.iterdir()] == ["notes"]

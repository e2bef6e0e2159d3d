"""The supervisor's configuration holds for any path, and the supervisor's own parser reads what is meant. And what is
said, and done, where a supervisor refuses or goes."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from xmlrpc.client import Fault

import pytest
from supervisor.options import UnhosedConfigParser
from supervisor.xmlrpc import Faults

from settings import ROOT, Settings
from stack import kafka, parts, places, processes, stop, supervisor, system
from stack.errors import StackError
from stack.part import SERVICE
from stack.processes import Identity
from stack.supervisor import Gone, Supervisor, configuration
from tests.parts import eventually

ODD_NAMES = ["plain", "with a space", "100%", "%(here)s", "a #1 b", "a ;x", 'it\'s "quoted"', "größe"]


@pytest.fixture(autouse=True)
def _some_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "java", lambda: "/usr/bin/java")


def parsed(settings: Settings) -> UnhosedConfigParser:
    parser = UnhosedConfigParser()
    parser.read_file(io.StringIO(configuration(settings, parts(settings))))
    return parser


@pytest.mark.parametrize("name", ODD_NAMES)
def test_no_path_of_the_user_stands_in_the_configuration(name: str) -> None:
    plain = configuration(Settings(), parts(Settings()))
    odd = Settings(data_dir=f"/srv/{name}")
    assert configuration(odd, parts(odd)) == plain


def test_every_part_is_restarted_for_ever_and_killed_with_its_children() -> None:
    settings = Settings()
    parser = parsed(settings)
    for part in parts(settings):
        section = f"program:{part.name}"
        assert parser.get(section, "command") == f"python -m stack run {part.name}"
        assert parser.get(section, "autorestart") == "true"
        assert parser.get(section, "startsecs") == "0"  # or it would give up on a part that keeps dying
        assert parser.get(section, "killasgroup") == "true"
        assert int(parser.get(section, "stopwaitsecs")) < 10
        assert parser.get(section, "stdout_logfile") == f"../logs/{part.name}.log"


def test_services_start_with_the_supervisor_and_the_rest_when_the_services_are_well() -> None:
    settings = Settings(kafka_coordination="zookeeper")
    parser = parsed(settings)
    programs = [name for name in parser.sections() if name.startswith("program:")]
    with_supervisor = {name for name in programs if parser.get(name, "autostart") == "true"}
    assert with_supervisor == {"program:zookeeper", "program:kafka", "program:postgres", "program:valkey"}
    assert all(part.layer > SERVICE for part in parts(settings) if f"program:{part.name}" not in with_supervisor)


def test_postgres_is_stopped_by_sigint_which_does_not_wait_for_its_clients() -> None:
    assert parsed(Settings()).get("program:postgres", "stopsignal") == "INT"


def test_the_kafka_ui_is_stopped_with_the_sessions_of_its_open_pages() -> None:
    parser = parsed(Settings())
    assert parser.get("program:kafka-ui", "stopasgroup") == "true"
    assert parser.get("program:embed-worker", "stopasgroup") == "false"  # Celery ends its processes itself


def test_the_socket_is_beside_the_other_files_of_the_system() -> None:
    settings = Settings(data_dir="/srv/data")
    assert places.socket(settings) == Path("/srv/data/run/supervisor.sock")


@pytest.mark.parametrize("letter", ["x", "ß"])
def test_a_path_that_is_too_long_for_a_socket_gets_a_short_one(letter: str) -> None:
    settings = Settings(data_dir="/srv/" + letter * 99)
    socket = places.socket(settings)
    assert len(bytes(socket)) < 90
    assert socket != places.socket(Settings(data_dir="/srv/" + letter * 98))
    assert f"file={socket}\n" in configuration(settings, [])


def refusing(fault: Exception, asked: list[object] | None = None) -> Supervisor:
    """One that does nothing it is asked to, and keeps for which parts it was."""

    def refuse(*given: object) -> None:
        if asked is not None:
            asked.append(given[0])
        raise fault

    talk = Supervisor(Settings())
    names = ("getAllProcessInfo", "startProcess", "stopProcess", "signalProcess", "reloadConfig", "shutdown")
    talk._server = SimpleNamespace(**dict.fromkeys(names, refuse))
    return talk


@pytest.mark.parametrize(
    "fault", [Faults.BAD_NAME, Faults.FAILED, Faults.NOT_RUNNING], ids=["unknown", "cannot be killed", "does not run"]
)
def test_a_part_that_gets_no_signal_keeps_no_other_from_it(fault: int) -> None:
    asked: list[object] = []
    talk = refusing(Fault(fault, "why"), asked)
    talk.stop(["a", "b"])
    talk.signal("c", "TERM")
    assert asked == ["a", "b", "c"]


@pytest.mark.parametrize("fault", [Fault(Faults.SHUTDOWN_STATE, "why"), ConnectionRefusedError(), HTTPException()])
def test_a_supervisor_that_goes_meanwhile_is_said_in_a_line(fault: Exception) -> None:
    talk = refusing(fault)
    for call in (talk.states, lambda: talk.start(["a"]), lambda: talk.stop(["a"]), lambda: talk.add(["a"])):
        with pytest.raises(Gone):
            call()


def test_a_stop_ends_what_a_supervisor_that_refuses_leaves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ended: list[str] = []
    monkeypatch.setattr(supervisor, "talk", lambda _settings: refusing(Fault(Faults.INCORRECT_PARAMETERS, "why")))
    monkeypatch.setattr(supervisor, "process", lambda _settings: Identity(1, "", 0))
    monkeypatch.setattr(processes, "send", lambda _pid, _signal: ended.append("the supervisor"))
    monkeypatch.setattr(processes, "alive", lambda _process: False)
    monkeypatch.setattr(processes, "end", lambda *_: None)

    def end_orphans(_settings: Settings) -> bool:
        ended.append("orphans")
        return True

    monkeypatch.setattr(stop, "end_orphans", end_orphans)
    assert stop.stop_all(Settings(data_dir=str(tmp_path)))
    assert ended == ["the supervisor", "orphans"]


def test_a_system_that_is_being_stopped_is_no_whole_one_any_more(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = Settings(data_dir=str(tmp_path))
    (tmp_path / "run").mkdir()
    system.write(settings, parts(settings), ready=True)
    before = system.read(settings)
    found: list[system.System | None] = []
    monkeypatch.setattr(supervisor, "talk", lambda _settings: refusing(ConnectionRefusedError()))
    monkeypatch.setattr(stop, "_stop_parts", lambda *_: found.append(system.read(settings)))
    assert stop.stop_all(settings)
    assert before is not None
    assert found == [replace(before, ready=False)]
    assert system.read(settings) is None


def test_a_supervisor_outlives_a_full_disk_and_reads_on_what_its_parts_say(tmp_path: Path) -> None:
    """Else a part would wait for ever once its pipe is full."""
    talkative = "import pathlib, sys; print('x' * 300_000, flush=True); pathlib.Path('said').touch(); sys.stdin.read()"
    logs, gone = tmp_path / "logs", tmp_path / "gone"
    logs.mkdir()
    (tmp_path / "supervisord.conf").write_text(
        f"""[supervisord]\nnodaemon=true\nsilent=true\nlogfile=/dev/full\nminprocs=1
[program:talkative]\ncommand={sys.executable} -c "{talkative}"
redirect_stderr=true\nstdout_logfile=/dev/full\nstdout_logfile_maxbytes=10MB
[program:rotated]\ncommand=sh -c "while sleep 0.01; do echo line; done"
redirect_stderr=true\nstdout_logfile=logs/rotated.log\nstdout_logfile_maxbytes=200\n"""
    )
    command = [sys.executable, "-m", "stack.supervisord", "-c", "supervisord.conf"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(command, cwd=tmp_path, env=variables, stdout=full, stderr=full) as process,
    ):
        try:
            eventually((tmp_path / "said").exists)
            eventually((logs / "rotated.log").exists)
            logs.rename(gone)
            eventually(lambda: (gone / "rotated.log").stat().st_size >= 200)
            logs.mkdir()
            eventually(lambda: any(each.stat().st_size for each in logs.iterdir()))
            assert process.poll() is None
        finally:
            process.terminate()


def test_a_folder_of_somebody_else_is_not_used_for_the_socket(tmp_path: Path) -> None:
    folder, link = tmp_path / "run", tmp_path / "link"
    supervisor._make_private(folder)
    supervisor._make_private(folder)
    link.symlink_to(folder)
    with pytest.raises(StackError, match="belongs to somebody else"):
        supervisor._make_private(link)
    folder.chmod(0o750)
    with pytest.raises(StackError, match="belongs to somebody else"):
        supervisor._make_private(folder)

"""Which Python a script goes on in. The scripts are run for real, in a checkout made for the test."""

import os
import select
import shutil
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from settings import ROOT

SCRIPT = """
import sys
from clients.checkout import use_environment
use_environment(__file__, *sys.argv[1:])
print(sys.prefix)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing but a script, in a path with a space."""
    folder = tmp_path / "a checkout"
    (folder / "clients").mkdir(parents=True)
    shutil.copy(ROOT / "clients" / "checkout.py", folder / "clients")
    (folder / "script.py").write_text(SCRIPT)
    return folder


def run(checkout: Path, *packages: str) -> subprocess.CompletedProcess[str]:
    """The script under a Python that knows no package but the standard library, from another folder."""
    command = [os.path.realpath(sys.executable), "-S", "-E", str(checkout / "script.py"), *packages]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=30, check=False)


def test_it_goes_on_in_the_environment_of_the_checkout(checkout: Path) -> None:
    venv.create(checkout / ".venv")
    ended = run(checkout)
    assert (ended.stdout.strip(), ended.stderr) == (str(checkout / ".venv"), "")


def test_without_one_this_python_will_do_where_it_has_the_packages(checkout: Path) -> None:
    ended = run(checkout, "json")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("with_environment", [False, True])
def test_where_a_package_is_missing_it_says_what_to_run(checkout: Path, with_environment: bool) -> None:
    if with_environment:
        venv.create(checkout / ".venv")
    ended = run(checkout, "kafka")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert f"{checkout}/start.sh" in ended.stderr


def test_a_broken_environment_is_told_once(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/no/such/interpreter\n")
    python.chmod(0o755)
    ended = run(checkout)
    assert ended.returncode == 1
    assert "delete .venv" in ended.stderr


def test_an_environment_that_leads_elsewhere_does_not_go_in_circles(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))  # no pyvenv.cfg beside it: it is not an environment
    ended = run(checkout, "kafka")
    assert ended.returncode in (0, 1)


def test_the_commands_of_the_schema_need_no_environment_that_is_active(tmp_path: Path) -> None:
    """With a Python that knows no package: in .venv where there is one, else it is told what to run."""
    (tmp_path / "db").symlink_to(ROOT / "db")
    (tmp_path / "settings.py").write_text(f"from pathlib import Path\nROOT = Path({str(tmp_path)!r})\n")
    command = [os.path.realpath(sys.executable), "-S", "-m", "db", "current"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert f"{tmp_path}/start.sh" in ended.stderr
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr) == ("-X checkout -m db current\n", "")


@pytest.mark.parametrize("script", ["cli.py", "kafka_cli.py", "examples/debian.py"])
def test_ctrl_c_while_a_script_is_being_loaded_is_silent(script: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("""
import sys, time
class Waiting:
    def find_spec(self, name, path=None, target=None):
        if name == "settings":
            sys.__stdout__.write("here\\n")
            sys.__stdout__.flush()
            time.sleep(30)
sys.meta_path.insert(0, Waiting())
""")
    command = subprocess.Popen(
        [sys.executable, "-X", "checkout", str(ROOT / script), "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert command.stdout is not None
        assert select.select([command.stdout], [], [], 20)[0]
        assert command.stdout.readline() == "here\n"
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=20)
        assert (command.returncode, out, err) == (130, "", "")
    finally:
        command.kill()
        command.wait()

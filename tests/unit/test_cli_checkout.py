"""Which Python a script goes on in. The scripts are run for real, in a checkout made for the test."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from settings import ROOT
from tests.interrupted import interrupted_at_import

SCRIPT = """
import sys
from checkout import use_environment
use_environment(__file__, *sys.argv[1:])
print(sys.prefix)
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with nothing but a script, in a path with a space."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    shutil.copy(ROOT / "checkout.py", folder)
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


def test_it_goes_on_without_the_packages_of_another_python(checkout: Path) -> None:
    venv.create(checkout / ".venv")
    with (checkout / "script.py").open("a") as script:
        script.write("print('/another/python' in sys.path)\n")
    command = [os.path.realpath(sys.executable), str(checkout / "script.py")]
    env = {**os.environ, "PYTHONPATH": "/another/python"}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout.splitlines()[-1:], ended.stderr) == (["False"], "")


def test_it_goes_on_with_the_asserts_that_kafka_python_reads_by(checkout: Path) -> None:
    venv.create(checkout / ".venv")
    with (checkout / "script.py").open("a") as script:
        script.write("print(__debug__)\n")
    python = [str(checkout / ".venv" / "bin" / "python"), "-O", str(checkout / "script.py")]
    env = {**os.environ, "PYTHONOPTIMIZE": "2"}
    ended = subprocess.run(python, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout.splitlines()[-1:], ended.stderr) == (["True"], "")


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


@pytest.mark.parametrize("content", ["#!/no/such/interpreter\n", "no program"])
def test_a_broken_environment_is_told_once_under_the_name_of_the_script(checkout: Path, content: str) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(content)
    python.chmod(0o755)
    ended = run(checkout)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"script.py: {python} does not run (")
    assert ended.stderr.count("delete .venv") == 1


def test_an_environment_that_leads_elsewhere_does_not_go_in_circles(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(os.path.realpath(sys.executable))  # no pyvenv.cfg beside it: it is not an environment
    ended = run(checkout, "kafka")
    assert ended.returncode in (0, 1)


def test_the_commands_of_the_schema_need_no_environment_that_is_active(checkout: Path) -> None:
    """With a Python that knows no package: in .venv where there is one, else it is told what to run."""
    (checkout / "db").symlink_to(ROOT / "db")
    command = [os.path.realpath(sys.executable), "-S", "-m", "db", "current"]
    ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert ended.stderr.startswith("db: ")
    assert f"{checkout}/start.sh" in ended.stderr
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    ended = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.stdout, ended.stderr) == ("-X checkout -m db current\n", "")


@pytest.mark.parametrize("script", ["cli.py", "kafka_cli.py", "examples/debian.py"])
def test_ctrl_c_while_a_script_is_being_loaded_is_silent(script: str, tmp_path: Path) -> None:
    command = [sys.executable, "-X", "checkout", str(ROOT / script), "--help"]
    assert interrupted_at_import("settings", command, tmp_path) == (130, "", "")


def test_ctrl_c_while_the_commands_of_the_schema_are_being_loaded_is_silent(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "checkout", "-m", "db", "--help"]
    assert interrupted_at_import("settings", command, tmp_path) == (130, "", "")

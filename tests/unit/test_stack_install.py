"""When something is installed, updated or begun anew, and what is said when it cannot be."""

import json
import os
from pathlib import Path

import pytest

from settings import Settings
from stack import install as installation
from stack import jars, java, places
from stack.errors import StackError
from stack.packages import READY, REBUILD, UPDATE, Packages
from stack.progress import Progress


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    """An environment that looks whole: its Python says yes to everything."""
    pins = tmp_path / "requirements.txt"
    pins.write_text("celery==5.7.0\n")
    found = Packages("Python packages", tmp_path / "env", [pins])
    found.python.parent.mkdir(parents=True)
    found.python.write_text("#!/bin/sh\nexit 0\n")
    found.python.chmod(0o755)
    mark(found, found.folder)
    return found


def mark(packages: Packages, folder: Path) -> None:
    facts = {"folder": str(folder), "files": packages.hashes()}
    (packages.folder / ".installed").write_text(json.dumps(facts))


def test_a_whole_environment_with_the_wanted_pins_is_left_alone(packages: Packages) -> None:
    assert packages.state() == READY


def test_other_pins_are_installed_over_it(packages: Packages) -> None:
    packages.files[0].write_text("celery==5.7.1\n")
    assert packages.state() == UPDATE


def test_one_without_a_mark_is_brought_to_the_pins(packages: Packages) -> None:
    (packages.folder / ".installed").unlink()
    assert packages.state() == UPDATE


def test_one_whose_installation_was_interrupted_is_made_anew(packages: Packages) -> None:
    (packages.folder / ".installing").touch()
    assert packages.state() == REBUILD


def test_one_whose_python_does_not_run_is_made_anew(packages: Packages) -> None:
    packages.python.write_text("#!/no/such/python\n")
    assert packages.state() == REBUILD


def test_a_missing_one_is_made(packages: Packages, tmp_path: Path) -> None:
    assert Packages("x", tmp_path / "missing", packages.files).state() == REBUILD


def test_one_that_was_moved_is_made_anew(packages: Packages) -> None:
    mark(packages, Path("/where/it/was/before"))
    assert packages.state() == REBUILD


def test_a_whole_one_behind_a_link_is_used(packages: Packages, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(packages.folder)
    assert Packages("x", link, packages.files).state() == READY


@pytest.mark.parametrize("state", [UPDATE, REBUILD])
def test_nothing_is_changed_through_a_link(packages: Packages, tmp_path: Path, state: str) -> None:
    if state == UPDATE:
        packages.files[0].write_text("celery==5.7.1\n")
    else:
        (packages.folder / ".installing").touch()
    before = {file: file.stat().st_mtime_ns for file in packages.folder.rglob("*")}
    (tmp_path / "a checkout").mkdir()
    link = tmp_path / "a checkout" / "env"
    link.symlink_to(packages.folder)
    linked = Packages("x", link, packages.files)
    assert linked.state() == state
    with pytest.raises(StackError) as refused, Progress() as progress:
        linked.install(progress)
    assert str(packages.folder) in str(refused.value)
    assert f"rm '{link}'" in str(refused.value)
    assert {file: file.stat().st_mtime_ns for file in packages.folder.rglob("*")} == before


@pytest.mark.parametrize(
    ("answer", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "21" 2023-09-19', 21),
        ('java version "1.8.0_402"', 8),
        ("no such thing", None),
    ],
)
def test_the_version_of_java_is_understood(answer: str, version: int | None) -> None:
    assert java.major_version(answer) == version


def test_without_java_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(StackError, match=r"Java 17 or later.*KAFKA_BOOTSTRAP_SERVERS"):
        java.java()
    with pytest.raises(StackError, match=r"Maven.*KAFKA_BOOTSTRAP_SERVERS"):
        java.maven()


def test_an_old_java_is_refused_with_its_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "bin" / "java"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StackError, match="is Java 11, and Kafka needs Java 17 or later"):
        java.check_java()


@pytest.mark.parametrize("name", ["no such home", "a home that is read only", "a home"])
def test_maven_needs_no_home_to_write_into(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / name
    if name != "no such home":
        home.mkdir()
    monkeypatch.delenv("MAVEN_OPTS", raising=False)
    monkeypatch.delenv("MAVEN_ARGS", raising=False)
    monkeypatch.setattr(jars, "_home", lambda: home)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name == "a home")  # root may write everywhere
    apart = [] if name == "a home" else [f"-Dmaven.repo.local={places.LOCAL / 'maven'}"]
    assert jars._repository() == apart
    monkeypatch.setenv("MAVEN_OPTS", "-Dmaven.repo.local=/elsewhere")
    assert jars._repository() == []


def test_what_another_installation_has_installed_meanwhile_is_not_missed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(places, "LOCAL", tmp_path)
    looks = iter([[lambda _progress: None], []])
    monkeypatch.setattr(installation, "_missing", lambda *_, **__: next(looks))
    installation.install(Settings(), local=False)
    assert next(looks, None) is None
    assert "Installing" not in capsys.readouterr().out

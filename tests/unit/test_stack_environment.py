"""Every part of a system sees the settings that the system was started with, and nothing that would lead it astray."""

from pathlib import Path

import pytest

from settings import Settings, from_environment
from stack.part import environment, without_empty
from stack.pipeline import pipeline
from stack.processes import MARK


def test_a_part_reads_back_exactly_the_settings_that_it_was_started_with() -> None:
    settings = Settings(kafka_port=19092, database_password="a b%'\"$", bridge_lease_seconds=2.5, redis_url="")
    assert from_environment(environment(settings)) == settings


def test_an_unset_setting_is_written_out_so_that_a_later_line_in_env_changes_nothing() -> None:
    assert environment(Settings())["KAFKA_BOOTSTRAP_SERVERS"] == ""


def test_other_variables_are_passed_through_but_not_those_of_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/some/where")
    astray = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONOPTIMIZE")
    for name in astray:
        monkeypatch.setenv(name, "1")
    found = environment(Settings())
    assert found["SSL_CERT_FILE"] == "/some/where"
    assert not found.keys() & astray


def test_every_process_carries_the_data_dir_of_its_system(tmp_path: Path) -> None:
    parts = pipeline(Settings(data_dir=str(tmp_path)))
    assert {part.environment[MARK] for part in parts} == {str(tmp_path)}


def test_each_bridge_has_an_id_of_its_own() -> None:
    bridges = [part for part in pipeline(Settings(bridges=3)) if part.name.startswith("bridge")]
    assert [(part.name, part.environment["BRIDGE_ID"]) for part in bridges] == [
        ("bridge-0", "0"),
        ("bridge-1", "1"),
        ("bridge-2", "2"),
    ]


def test_one_bridge_is_called_bridge() -> None:
    assert pipeline(Settings())[0].name == "bridge"


@pytest.mark.parametrize(("login", "found"), [("", None), ("user:secret", "user:secret")])
def test_flower_gets_its_login_by_the_environment_only_when_there_is_one(login: str, found: str | None) -> None:
    flower = {part.name: part for part in pipeline(Settings(flower_basic_auth=login))}["flower"]
    assert flower.environment.get("FLOWER_BASIC_AUTH") == found
    assert "secret" not in " ".join(flower.command)


def test_empty_variables_of_other_programs_stay() -> None:
    assert without_empty({"FLOWER_X": "", "FLOWER_Y": "1", "OTHER": ""}, "FLOWER_") == {"FLOWER_Y": "1", "OTHER": ""}

"""The examples: how a package's description becomes a text, and that the sample is fit to be loaded."""

import contextlib
import json
from types import SimpleNamespace
from typing import NoReturn

import pytest
from kafka.errors import MessageSizeTooLargeError

from bridge import message
from clients import connect
from examples import descriptions, load

DESCRIPTION = """rich set of graph drawing tools
 Graph drawing addresses the problem of visualizing
 structural information.
 .
 It draws:
  * boxes
    and arrows
 - more
 .
 The end."""

PACKAGES = """Package: graphviz
Section: graphics
Tag: a,
 b

Package: dot

"""


def test_paragraphs_flow_and_lists_stay() -> None:
    assert descriptions.flowing(DESCRIPTION) == (
        "rich set of graph drawing tools\n\n"
        "Graph drawing addresses the problem of visualizing structural information.\n\n"
        "It draws:\n * boxes\n   and arrows\n- more\n\nThe end."
    )


def test_a_package_without_a_long_description_is_its_synopsis() -> None:
    assert descriptions.flowing("only this") == "only this"


def test_fields_may_go_over_several_lines() -> None:
    assert list(descriptions.paragraphs(PACKAGES.splitlines())) == [
        {"Package": "graphviz", "Section": "graphics", "Tag": "a,\n b"},
        {"Package": "dot"},
    ]


def test_the_sample_is_small_and_every_line_of_it_can_be_stored() -> None:
    assert descriptions.SAMPLE.stat().st_size < 250_000
    records = list(descriptions.sample())
    assert len(records) >= 300
    assert len({record["id"] for record in records}) == len(records)
    for record in records:
        fields = message.check(message.parse(json.dumps(record).encode()), 100_000)
        assert fields.source_id == record["id"]
        assert set(json.loads(fields.metadata or "{}")) == {"package", "section"}


def test_an_update_without_apt_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert load.main(["--update"]) == 1
    assert "debian.py: `apt-get -o" in capsys.readouterr().err


def test_what_kafka_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise MessageSizeTooLargeError

    producer = SimpleNamespace(config={"max_request_size": 10}, send=refuse)
    monkeypatch.setattr(connect, "admin", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(connect, "partitions", lambda *_: [])
    monkeypatch.setattr(connect, "limits", lambda *_: connect.Limits(10, only_keyed=False))
    monkeypatch.setattr(connect, "producer", lambda *_, **__: contextlib.nullcontext(producer))
    assert load.main(["--sample", "--no-wait"]) == 1
    assert "debian/7kaa: larger than the topic takes" in capsys.readouterr().err

"""What is typed and is not UTF-8: nothing that is asked for can be called so, but a record may hold any bytes."""

import argparse
import os

import pytest

from clients import kafka_options, rest_commands

ODD = os.fsdecode(b"a\xff")


@pytest.mark.parametrize(
    ("parser", "words"),
    [
        (kafka_options.parser(), ["lag", "--group", ODD]),
        (kafka_options.parser(), ["consume", "topic", "--group", ODD]),
        (kafka_options.parser(), ["produce", "topic", "{}", "--header", ODD + "=1"]),
        (kafka_options.parser(), ["dead-letters", "list", "--reason", ODD]),
        (kafka_options.parser(), ["dead-letters", "drop", ODD]),
        (rest_commands.parser(), ["list", "--q", ODD]),
        (rest_commands.parser(), ["--url", ODD, "stats"]),
        (rest_commands.parser(), ["get", ODD]),
        (rest_commands.parser(), ["create", "text", "--metadata", f'{{"a": "{ODD}"}}']),
        (rest_commands.parser(), ["search", "query", "--filter", f'{{"{ODD}": 1}}']),
    ],
    ids=lambda given: given.prog if isinstance(given, argparse.ArgumentParser) else ascii(given),
)
def test_a_name_that_is_not_utf_8_is_wrong_usage(
    parser: argparse.ArgumentParser, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(" is not UTF-8\n")


def test_a_record_may_be_of_any_bytes() -> None:
    given = kafka_options.parser().parse_args(["produce", "topic", ODD, "--key", ODD, "--header", f"name={ODD}"])
    assert (given.value, given.key, given.header) == (ODD, ODD, [("name", b"a\xff")])
    assert kafka_options.parser().parse_args(["produce", "topic", "--tombstone", ODD]).tombstone == ODD

"""The rules for what others have put into records: numbers of any length, and characters that are obeyed."""

import logging
import sys
from decimal import Decimal

import pytest
import simplejson

from api.parts import readable
from bridge.message import parse
from clients import json_form, terminal
from db.session import exact_json
from records import INT_DIGITS, whole_number
from telemetry import logs

PYTHON_READS = sys.int_info.default_max_str_digits
LENGTHS = [1, INT_DIGITS - 1, INT_DIGITS, INT_DIGITS + 1, PYTHON_READS, PYTHON_READS + 1]


@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_whole_number_of_any_length_keeps_its_digits_wherever_it_is_read(length: int, sign: str) -> None:
    digits = sign + "7" * length
    assert whole_number(digits) == Decimal(digits)
    assert exact_json(digits) == parse(digits.encode()) == Decimal(digits)
    assert json_form.dump(json_form.parse(digits)) == digits
    given = readable(digits)
    assert simplejson.loads(given, use_decimal=True) == Decimal(digits), "as a client in Python reads it"


@pytest.mark.parametrize("length", LENGTHS)
def test_what_python_does_not_count_with_quickly_is_no_int_for_anybody(length: int) -> None:
    digits = "7" * length
    short = length <= INT_DIGITS
    assert [type(found) is int for found in (whole_number(digits), exact_json(digits), parse(digits.encode()))] == [
        short
    ] * 3
    assert (type(json_form.number(digits)) is int) == short
    assert (readable(digits) == digits) == short


# Of each kind: DEL, a C1 control, both separators, an embedding, an override, an isolate.
@pytest.mark.parametrize("character", "\x7f\x9b\u2028\u2029\u202a\u202e\u2066\u2069")
def test_what_is_obeyed_is_shown_by_nobody(character: str) -> None:
    text = f"a{character}b"
    line = logging.LogRecord("a", logging.INFO, "", 0, text, None, None)
    assert character not in json_form.dump(text)
    assert terminal.printable(text) == "a\ufffdb"
    assert character not in terminal.escaped(text)
    assert character not in logs.escaped(text)
    assert character not in logs.JsonLines().format(line)


@pytest.mark.parametrize("text", ["größe", "שלום", "مرحبا \u200fa", "👩\u200d💻"])
def test_letters_of_all_scripts_and_what_joins_them_are_shown_as_they_are(text: str) -> None:
    assert terminal.printable(text) == terminal.escaped(text) == logs.escaped(text) == text


@pytest.mark.parametrize(
    ("character", "in_a_line", "on_a_terminal"),
    [("\n", "\\n", "\n"), ("\t", "\\t", "\t"), ("\x1b", "\\x1b", "\\x1b"), ("\ud800", "\\ud800", "\ud800")],
)
def test_a_line_of_the_log_stays_one_line_and_a_terminal_gets_lines_and_tabs(
    character: str, in_a_line: str, on_a_terminal: str
) -> None:
    assert logs.escaped(character) == in_a_line
    assert terminal.escaped(character) == on_a_terminal

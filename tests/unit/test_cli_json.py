"""JSON in the commands: numbers of any length come through, and nothing in it reaches a terminal as a command."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients import json_form

LONG = "9" * 5_000


FRACTIONS = ["1.5", "1.50", "900719925474099.3", "1E-320", "1E-400", "1E+131071", f"0.{LONG}"]


@pytest.mark.parametrize("digits", ["0", "-7", LONG, f"-{LONG}", *FRACTIONS])
def test_a_number_of_any_length_comes_through(digits: str) -> None:
    text = f'{{"a": [{digits}], "b": "{digits}"}}'
    assert json_form.dump(json_form.parse(text)) == text


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|nested"):
        json_form.parse(text)


def test_what_has_no_form_in_json_is_an_error() -> None:
    with pytest.raises(TypeError, match="set"):
        json_form.dump({"a": set()})


MARKS = "\x7f\x80\x9b\u061c\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ud800"


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_an_escape_that_means_the_same(mark: str) -> None:
    printed = json_form.dump({mark: f"größe {mark}"})
    assert mark not in printed
    assert "größe" in printed
    assert json.loads(printed) == {mark: f"größe {mark}"}


@given(
    st.recursive(st.none() | st.integers() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
)
def test_it_means_what_it_was_made_of(value: object) -> None:
    printed = json_form.dump(value)
    assert json.loads(printed) == json_form.parse(printed) == value
    assert len(printed.splitlines()) == 1

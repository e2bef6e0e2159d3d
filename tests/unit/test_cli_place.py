"""How a record's place is typed and shown: one form comes out of every command, and each takes it."""

import pytest

from clients.place import Place, dead_letter, place_in
from clients.terminal import WrongUsage
from replay.letters import Letter


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("text-messages:2:1041", ("text-messages", 2, 1041)),
        ("text-messages/2/1041", ("text-messages", 2, 1041)),
        ("a.b_c-D:0:0", ("a.b_c-D", 0, 0)),
    ],
)
def test_a_place_is_typed_with_colons_or_slashes_and_shown_with_colons(given: str, found: tuple[str, int, int]) -> None:
    assert place_in(given) == dead_letter(given) == found
    assert str(dead_letter(given)) == given.replace("/", ":") == Letter(*found, 0).name
    assert str(Place.of({"offset": found[2], "topic": found[0], "partition": found[1], "state": "open"})) == str(
        place_in(given)
    )


@pytest.mark.parametrize(
    "given",
    [
        "", "a", "note-1", "a/b", "a:1", "a/1/x", "a:b:c", "a/1:2", "a:1/2", "a b/1/2", "a:b:1:2", "a/-1/2", "/1/2",
        "a/1/2\n", "a:1:2 ", "a:1:\N{SUPERSCRIPT TWO}", "a:1:\N{ARABIC-INDIC DIGIT TWO}", "a:1:" + "1" * 19,
    ],
)  # fmt: skip
def test_everything_else_is_no_place(given: str) -> None:
    assert place_in(given) is None  # for `trace` it is an id
    with pytest.raises(WrongUsage, match="expected TOPIC:PARTITION:OFFSET"):
        dead_letter(given)

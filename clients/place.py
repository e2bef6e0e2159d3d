"""A record's place in the log, as it is typed and shown: TOPIC:PARTITION:OFFSET. It also names a dead letter."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from clients.terminal import WrongUsage

# No name of a topic has a colon or a slash in it.
FORM = re.compile(r"([A-Za-z0-9._-]{1,249})([:/])([0-9]{1,9})\2([0-9]{1,18})")


class Place(NamedTuple):
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The place in a row or an answer that has these three among others."""
        return cls(row["topic"], row["partition"], row["offset"])


def place_in(given: str) -> Place | None:
    """The place that may be meant; slashes may stand for the colons."""
    found = FORM.fullmatch(given)
    return Place(found[1], int(found[3]), int(found[4])) if found else None


def dead_letter(given: str) -> Place:
    """Raises WrongUsage."""
    found = place_in(given)
    if found is None:
        raise WrongUsage(
            f"{given!r} is no dead letter: expected TOPIC:PARTITION:OFFSET, as `dead-letters list` shows it"
        )
    return found


def counted(letters: int) -> str:
    return "1 dead letter" if letters == 1 else f"{letters:,} dead letters"

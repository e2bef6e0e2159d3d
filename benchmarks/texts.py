"""The texts that are sent: short made-up ones in any number, always the same, and real ones, Debian's descriptions."""

import json
import random
import re
import uuid
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from examples import descriptions
from stack.progress import say


class Text(NamedTuple):
    id: str
    text: str

    def record(self) -> bytes:
        """The value of the Kafka record."""
        return json.dumps({"id": self.id, "text": self.text}, ensure_ascii=False).encode()


@cache
def vocabulary() -> list[str]:
    """The words of the sample of real texts, each as often as it occurs there."""
    return [word for each in descriptions.sample() for word in re.findall(r"[A-Za-z']+", str(each["text"]))]


def made_up(count: int, seed: int = 0) -> Iterator[Text]:
    """Texts the length of a ticket's or a chat's line, of some 100 characters, under UUIDs. No two are alike."""
    rng = random.Random(seed)
    source = vocabulary()
    for number in range(count):
        chosen = rng.choices(source, k=rng.randint(8, 24))
        yield Text(str(uuid.UUID(int=rng.getrandbits(128), version=4)), f"{' '.join(chosen)} {seed}-{number}")


@cache
def real() -> Sequence[descriptions.Record]:
    """Debian's descriptions where apt has fetched them, else the sample of 325 of them, which it says."""
    try:
        return descriptions.from_apt()
    except descriptions.NoDescriptions as error:
        records = list(descriptions.sample())
        say(f"  only {len(records)} real texts, too few for most figures: {error}")
        return records


def debian(count: int, seed: int = 0) -> list[Text]:
    """Descriptions, picked evenly; all of them, if there are fewer than `count`."""
    records = list(real())
    picked = random.Random(seed).sample(records, min(count, len(records)))
    return [Text(str(uuid.uuid5(uuid.NAMESPACE_URL, str(each["id"]))), str(each["text"])) for each in picked]


def synopses(count: int) -> list[tuple[Text, str]]:
    """Known items: (the long description without its synopsis, the synopsis) of packages that have both."""
    pairs = []
    for each in debian(len(real())):
        synopsis, _, long = each.text.partition("\n\n")
        # Any search would find a synopsis that stands in the description word for word.
        if len(long) > 80 and len(synopsis.split()) > 2 and synopsis not in long:
            pairs.append((Text(each.id, long), synopsis))
        if len(pairs) == count:
            break
    return pairs


def sentences(count: int, seed: int = 0) -> list[Text]:
    """Single sentences of the descriptions, each only once."""
    found: dict[str, None] = {}
    for each in debian(len(real()), seed):
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", each.text):
            if 30 <= len(sentence) <= 300:
                found.setdefault(sentence.strip())
        if len(found) >= count:
            break
    return [Text(str(uuid.uuid5(uuid.NAMESPACE_OID, sentence)), sentence) for sentence in list(found)[:count]]

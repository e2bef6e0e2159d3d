"""What is sent in a run: good records with edits and tombstones among them, and bad ones. A pure function of the seed.

All records of one message have one key, so that they stand in one partition, in the order in which they were sent.
"""

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.chaos.bad_records import KINDS, key_of
from tests.chaos.oracle import NAMESPACE

ENGLISH = "rain wind harbour ship letter market bread winter river bridge garden music doctor school train ticket news"
OTHERS = "Straße café naïve 天気 メール погода سلام 😀 don't 3.14 O'Hara \\ \" % ; --"
WORDS = [*ENGLISH.split(" "), *OTHERS.split(" ")]


class Outgoing(NamedTuple):
    """A record before it has a place in the log."""

    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


def workload(seed: int, good: int, bad: int) -> list[Outgoing]:
    """All records in the order of sending: `good` ones, and `bad` ones of every kind scattered among them."""
    rng = random.Random(f"workload/{seed}")
    records = list(good_records(rng, good))
    kinds = list(KINDS)
    for number in range(bad):
        name = kinds[number % len(kinds)]
        headers = [("trace", rng.randbytes(8)), ("kind", name.encode())] if number % 3 else []
        letter = Outgoing(key_of(name, number), KINDS[name].value(number), headers)
        records.insert(rng.randrange(len(records) + 1), letter)
    return records


def good_records(rng: random.Random, count: int) -> Iterator[Outgoing]:
    """About six new messages in ten; the rest edits, repeats, tombstones, and messages that come back after one."""
    known: list[str] = []
    texts: dict[str, str] = {}
    for number in range(count):
        choice = rng.random()
        if not known or choice < 0.60:
            given = new_id(rng, number)
            if given is None:
                yield Outgoing(rng.choice((None, b"any")), json.dumps(anonymous(rng, number)).encode())
                continue
            known.append(given)
        else:  # mostly one that came shortly before, whose first version may still be under way
            given = known[-1 - min(int(rng.expovariate(1 / 50)), len(known) - 1)] if choice < 0.9 else rng.choice(known)
        key = canonical(given).encode()
        if choice > 0.93:
            texts.pop(given, None)
            yield Outgoing(key, None)
            continue
        text = texts[given] if 0.60 < choice < 0.65 and given in texts else sentence(rng, number)
        texts[given] = text
        yield Outgoing(key, json.dumps({"id": shown(rng, given), "text": text, **extras(rng)}).encode())


def new_id(rng: random.Random, number: int) -> str | None:
    kind = rng.random()
    if kind < 0.1:
        return None
    if kind < 0.5:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))
    return f"order-{number}" if kind < 0.9 else f"Ärger/{number}/メール"


def canonical(given: str) -> str:
    return given.lower() if is_uuid(given) else given


def is_uuid(given: str) -> bool:
    return len(given) == 36 and given.count("-") == 4


def shown(rng: random.Random, given: str) -> str:
    """The id as this record writes it: a UUID in either case, a source id sometimes as the UUID that it stands for."""
    if is_uuid(given):
        return given.upper() if rng.random() < 0.1 else given
    return str(uuid.uuid5(NAMESPACE, given)) if rng.random() < 0.02 else given


def anonymous(rng: random.Random, number: int) -> dict[str, object]:
    document: dict[str, object] = {"text": sentence(rng, number)}
    return document | {"id": None} if rng.random() < 0.5 else document


def extras(rng: random.Random) -> dict[str, object]:
    kind = rng.random()
    if kind < 0.8:
        return {}
    if kind < 0.85:
        return {"metadata": None, "unknown": [1, 2]}
    return {"metadata": {"shop": rng.choice(WORDS), "n": rng.randrange(10**6), "deep": {"list": [None, True, 0.5]}}}


def sentence(rng: random.Random, number: int) -> str:
    """A text that no other record has; one in two hundred is long enough for several passages."""
    length = rng.randint(300, 900) if rng.random() < 0.005 else rng.randint(3, 14)
    return f"{number} " + " ".join(rng.choices(WORDS, k=length))

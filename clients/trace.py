"""The way of one record, as `cli.py trace` tells it: a line for each step, with the time that it took."""

from collections.abc import Mapping
from typing import Any

from clients.place import Place
from clients.terminal import escaped, one_line

STATES = {
    "searchable": "found by search",
    "waiting": "stored, and waits for its vectors; keyword search finds it",
    "failed": "stored, but it could not be embedded: keyword search finds it, search by meaning does not",
    "deleted": "deleted",
    "superseded": "superseded: a later record of the same id has taken its place",
    "dead_letter": "a dead letter: it could not be stored",
    "on_its_way": "in Kafka, and not yet in the database",
}
INDENT = " " * 28


def show(answer: Mapping[str, Any]) -> None:
    print(f"{headline(answer)}: {STATES.get(answer['state'], answer['state'])}")
    for step in answer["steps"]:
        print(f"  {when(step):>24}  {safe(said(step['step'], answer))}")
    if len([step for step in answer["steps"] if step["seconds"] is not None]) > 1:
        print(f"  {duration(sum(step['seconds'] or 0 for step in answer['steps'])):>24}  in all")
    for line in notes(answer):
        print(f"{INDENT}{safe(line)}")


def headline(answer: Mapping[str, Any]) -> str:
    names = [answer["source_id"], answer["id"]] if answer["source_id"] else [answer["id"]]
    if answer["id"] is None:
        return str(Place.of(answer["record"] or answer["dead_letters"][0]))
    return safe(" = ".join(map(str, names)))


def when(step: Mapping[str, Any]) -> str:
    """The time of the first step; of any other, how long after the one before it came."""
    if step["seconds"] is not None:
        return duration(step["seconds"])
    return str(step["at"])[:23].replace("T", " ") if step["at"] else "at some time"


def duration(seconds: float) -> str:
    size = abs(seconds)
    sign = "-" if seconds < 0 else "+"
    if size < 1:
        return f"{sign}{size * 1000:.1f} ms"
    if size < 120:
        return f"{sign}{size:.2f} s"
    hours, rest = divmod(int(size), 3600)
    return f"{sign}{hours} h {rest // 60} min" if hours else f"{sign}{rest // 60} min {rest % 60} s"


def said(step: str, answer: Mapping[str, Any]) -> str:
    letter = (answer["dead_letters"] or [None])[0]
    if step == "logged":
        return logged(answer["record"])
    if step == "stored":
        before = any(each["step"] == "stored" and (each["seconds"] or 0) < 0 for each in answer["steps"])
        return "stored: the same text was there already" if before else "stored"
    if step == "queued":
        return queued(answer["job"])
    if step == "embedded":
        found = answer["embedding"]
        passages = "1 passage" if found["passages"] == 1 else f"{found['passages']} passages"
        part = f"index part {found['index_part']}" if found["index_part"] else "no index yet, found by an exact scan"
        return f"embedded by {found['model']}: {passages}, {part}"
    if step == "failed":
        found = answer["failure"]
        return f"embedding failed at {found['model']}, attempts {found['attempts']}: {found['reason']}"
    if step == "dead_letter":
        return f"dead letter: {letter['reason']}: {letter['detail']}"
    return {"replayed": "sent again", "dropped": "dropped"}.get(step, step)


def logged(record: Mapping[str, Any]) -> str:
    key = "" if record["key"] is None else f", key {record['key']}"
    size = "" if record["value_bytes"] is None else f", {record['value_bytes']:,} bytes"
    if record["in_log"] and record["value_bytes"] is None:
        size = ", no value: a deletion"
    return f"in Kafka: {Place.of(record)}{key}{size}"


def queued(job: Mapping[str, Any]) -> str:
    at_it = "a worker is at it" if job["held"] else f"next try at {job['next_at']}"
    return f"waits for its vectors: attempts {job['attempts']}, {at_it}"


def notes(answer: Mapping[str, Any]) -> list[str]:
    """What is no step: the producer's headers, what took the record's place, and other dead letters."""
    found = []
    record = answer["record"]
    if record is None:
        found.append("typed into the database: no record of Kafka")
    else:
        found += [f"header {header['name']}: {header['value']}" for header in record["headers"]]
        if record["problem"]:
            found.append(f"key and headers are not known: {record['problem']}")
    later = answer["superseded_by"]
    if later:
        found.append(f"superseded by partition {later['partition']}, offset {later['offset']} at {later['timestamp']}")
    letters = answer["dead_letters"]
    for letter in letters[1:] if answer["state"] == "dead_letter" else letters:
        found.append(f"dead letter {Place.of(letter)} ({letter['state']}): {letter['reason']}")
    return found


def safe(text: str) -> str:
    return one_line(escaped(text))

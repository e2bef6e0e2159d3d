"""`kafka_cli.py dead-letters drop`: dead letters that nobody will replay. A worker marks them; the records stay in
Kafka."""

import argparse
from collections.abc import Mapping
from typing import Any

import task_names
from clients import database, json_form
from clients.place import counted, dead_letter
from clients.terminal import confirm, say
from db import dead_letter_queries
from replay.letters import refusal
from settings import Settings


def drop(given: argparse.Namespace, settings: Settings) -> int:
    choice, count, refused = choose(given, settings)
    for line in refused:
        say(f"kafka_cli.py: {line}")
    dropped = 0
    if count:
        these = f"{counted(count)} for good"
        confirm(f"Drop {these}?", "nothing was dropped", yes=given.yes, unasked=f"this drops {these}")
        dropped = tell_workers(settings, choice)
    elif not refused:
        say("no open dead letters" + (f" with the reason {given.reason}" if given.reason else ""))
    if given.json:
        print(json_form.dump({"dropped": dropped, "failed": len(refused)}))
    elif dropped:
        print(f"dropped {counted(dropped)}")
    return 1 if refused else 0


def choose(given: argparse.Namespace, settings: Settings) -> tuple[dict[str, Any], int, list[str]]:
    """What the task is told, how many dead letters that is, and a line for each that cannot be dropped."""
    with database.connect(settings) as connection:
        if given.letters:
            keys, refused = [], []
            for place in dict.fromkeys(map(dead_letter, given.letters)):
                row = dead_letter_queries.one(connection, *place)
                why = refusal(row["state"] if row else None, place.topic, reads=place.topic)
                if why is None:
                    keys.append(place)
                else:
                    refused.append(f"{place}: {why}")
            return {"keys": keys}, len(keys), refused
        found = [row for row in dead_letter_queries.counts(connection) if given.all or row["reason"] == given.reason]
    # Only those that were counted: a letter that comes while the question is read is not dropped unseen.
    until = max((row["newest"] for row in found), default=None)
    return {"why": given.reason, "until": until}, sum(row["count"] for row in found), []


def tell_workers(settings: Settings, choice: Mapping[str, Any]) -> int:
    from clients import workers  # it imports Celery, for which every other command would wait

    about = ", ".join(map(str, choice["keys"])) if "keys" in choice else f"all: {choice['why'] or 'any'}"
    return int(workers.ask(settings, task_names.DROP_DEAD_LETTERS, choice, about)["dropped"])

"""The command line of kafka_cli.py: its commands, their options and their help. Nothing is done here."""

import argparse
import os
import re
from datetime import UTC, datetime
from typing import Any

import streams
from clients.command_line import Parser, utf8
from clients.terminal import WrongUsage

DESCRIPTION = (
    "Kafka client of the text pipeline: send records, read them, see what is behind, give dead letters a second try."
)

EXAMPLES = """\
examples:
  python kafka_cli.py produce text-messages '{"id":"test-123","text":"Hello"}'
  python kafka_cli.py produce text-messages - < records.jsonl
  python kafka_cli.py consume text-messages --max-messages 10
  python kafka_cli.py topics
  python kafka_cli.py lag
  python kafka_cli.py dead-letters list
  python kafka_cli.py dead-letters show text-messages:2:1041
  python kafka_cli.py dead-letters replay --reason rejected
  python kafka_cli.py dead-letters drop --reason invalid-json
  python kafka_cli.py rewind --to-beginning
  python kafka_cli.py pause
  python kafka_cli.py drain --timeout 600

exit codes: 0 done, 1 not or not all of it, 2 wrong usage or setting, 3 Kafka, PostgreSQL or Redis does not answer
"""

BEGINNING = datetime.fromtimestamp(0, UTC)


def parser() -> argparse.ArgumentParser:
    form = streams.HelpFormatter
    top = Parser(prog="kafka_cli.py", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=form)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    produce(commands)
    consume(commands)
    topics = add(commands, "topics", "The topics, their partitions and how many records they hold.", "topics")
    topics.add_argument("--all", action="store_true", help="Kafka's own topics too")
    lag = add(commands, "lag", "How far a consumer group is behind, for each partition.", "lag --group my-group")
    lag.add_argument("--group", help="the consumer group (the bridge's, KAFKA_GROUP_ID)")
    dead_letters(commands)
    steering(commands)
    return top


def add(group: Any, name: str, does: str, example: str, *, json: bool = True) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = group.add_parser(
        name,
        help=does,
        description=does,
        epilog=f"example:\n  python kafka_cli.py {example}",
        formatter_class=streams.HelpFormatter,
    )
    if json:
        made.add_argument("--json", action="store_true", help="print JSON, for machines")
    return made


def produce(commands: Any) -> None:
    example = """produce text-messages '{"text":"Hi"}' --header from=shell"""
    made = add(commands, "produce", "Sends a record, or one for each line of standard input.", example)
    option = made.add_argument
    option("topic", type=topic_name, metavar="TOPIC")
    # As bytes, whatever they are: nothing that another producer could send is refused.
    option("value", nargs="?", type=str, metavar="JSON", help="the value, sent as it is; - reads one from each line")
    option("--key", type=str, help='the key (the "id" in the value, where that is a string)')
    option("--header", action="append", default=[], type=header, metavar="NAME=VALUE", help="may be repeated")
    deletes = "send a record without a value, which deletes the message of this id"
    option("--tombstone", type=str, metavar="KEY", help=deletes)
    option("--raw", action="store_true", help="send what is no JSON too, and take no key from it")


def consume(commands: Any) -> None:
    does = "Prints records, a line of JSON each, and disturbs no other reader."
    option = add(commands, "consume", does, "consume text-messages --max-messages 10").add_argument
    option("topic", type=topic_name, metavar="TOPIC")
    option("--max-messages", type=positive, metavar="N", help="end after so many (all that there are)")
    start = "start at the oldest record (yes), or show only what comes from now on"
    option("--from-beginning", action=argparse.BooleanOptionalAction, default=True, help=start)
    option("--group", help="read as a member of this consumer group, and commit what was shown")
    end = "at the end of the topic, wait so many seconds for more (5)"
    option("--timeout", type=streams.seconds, default=5.0, metavar="S", help=end)
    option("--value-only", action="store_true", help="print the values only, as they are")


def dead_letters(commands: Any) -> None:
    does = "Records that could not be stored: list them, look at one, send them again, drop them."
    made = add(commands, "dead-letters", does, "dead-letters list --state all", json=False)
    actions = made.add_subparsers(dest="action", metavar="list|show|replay|drop", required=True)

    option = add(actions, "list", "The dead letters, newest first.", "dead-letters list --limit 20").add_argument
    option("--state", choices=["open", "replayed", "dropped", "all"], default="open", help="which (open)")
    option("--reason", help="only those with this reason, such as invalid-json")
    option("--limit", type=positive, default=100, metavar="N", help="how many (100)")

    does = "One dead letter whole: where it came from, why it is one, its key, its headers and its value."
    option = add(actions, "show", does, "dead-letters show text-messages:2:1041").add_argument
    option("letter", metavar="TOPIC:PARTITION:OFFSET", help="which, as `dead-letters list` names it")

    does = "Sends open dead letters, all or some, to the topic once more; each keeps the place at which it first came."
    replay = add(actions, "replay", does, "dead-letters replay text-messages:2:1041")
    replay.add_argument("--yes", action="store_true", help="do not ask before --all")
    chosen(replay)

    does = (
        "Drops open dead letters, which nobody wants to send again. A worker marks them in their table; the records "
        "themselves stay in Kafka as long as it keeps them."
    )
    drop = add(actions, "drop", does, "dead-letters drop --reason invalid-json")
    drop.add_argument("--yes", action="store_true", help="skip the question; needed where there is no terminal")
    chosen(drop)


def chosen(made: argparse.ArgumentParser) -> None:
    which = made.add_mutually_exclusive_group()
    which.add_argument("--all", action="store_true", help="every open one")
    which.add_argument("--reason", help="every open one with this reason, such as rejected")
    # Not in the group: argparse does not find such arguments among options.
    made.add_argument("letters", nargs="*", default=[], metavar="TOPIC:PARTITION:OFFSET", help="these")


def check_choice(given: argparse.Namespace) -> None:
    """Raises WrongUsage unless exactly one of the choices that `chosen` adds was given. A replay without any is of all:
    what is still bad comes back as it was."""
    choices = (given.all, given.reason is not None, bool(given.letters))
    if given.action == "replay" and not any(choices):
        given.all = True
    elif sum(choices) != 1:
        raise WrongUsage("which dead letters? Give --all, --reason REASON, or TOPIC:PARTITION:OFFSET, and one of these")


def steering(commands: Any) -> None:
    does = "Makes the bridges take no more records, until `resume`. What they have taken is finished."
    add(commands, "pause", does, "pause")
    add(commands, "resume", "Makes paused bridges go on.", "resume")
    does = (
        "Pauses the intake and waits until everything that was read is stored, embedded and committed, so that any "
        "part may be stopped. The intake stays paused: `resume` takes it up again."
    )
    patience = "give up after so many seconds; the intake stays paused all the same (it waits for ever)"
    draining = add(commands, "drain", does, "drain --timeout 600")
    draining.add_argument("--timeout", type=streams.seconds, metavar="S", help=patience)
    does = (
        "Makes the bridges read the topic again from an earlier place, such as all of it into a new database. What is "
        "stored already stays as it is, and nothing comes twice, but for bad records: their topic gets a copy of each "
        "again, the table of dead letters does not."
    )
    made = add(commands, "rewind", does, "rewind --to-time 2026-01-31T08:00:00+00:00")
    made.add_argument("--yes", action="store_true", help="do not ask; without a terminal it wants this, or --json")
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--to-beginning", action="store_true", help="all that the topic holds")
    where.add_argument("--to-time", type=moment, metavar="TIME", help="ISO 8601; of this machine's zone if it has none")
    offsets = "PARTITION:OFFSET; may be repeated, and the other partitions stay"
    where.add_argument("--to-offset", action="append", type=place, default=[], metavar="PLACE", help=offsets)


def moment(given: str) -> datetime:
    """A time at or after 1970, where Kafka's times begin: an earlier one means the beginning too."""
    try:
        found = datetime.fromisoformat(given)
        # A time of the year 1 has no counterpart in every zone.
        return BEGINNING if found.year < BEGINNING.year - 1 else max(found.astimezone(), BEGINNING)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{given!r} is no time: expected like 2026-01-31T08:00:00+00:00") from None


def place(given: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,18})", given)
    if not found:
        raise argparse.ArgumentTypeError(f"{given!r} is no place: expected PARTITION:OFFSET")
    return int(found[1]), int(found[2])


def topic_name(given: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", given) or given in (".", ".."):
        raise argparse.ArgumentTypeError(f"{given!r} is no name of a topic: letters, digits, '.', '_' and '-' only")
    return given


def header(given: str) -> tuple[str, bytes]:
    name, equals, value = given.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{given!r} is no header: expected NAME=VALUE")
    return utf8(name), os.fsencode(value)


def positive(given: str) -> int:
    number = int(given)
    if number < 1 or not given.isascii():
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number

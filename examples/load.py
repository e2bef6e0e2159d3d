"""The command of debian.py: which texts are loaded, and how they are sent and waited for."""

import argparse
import json
import random
import subprocess
import time

import settings as configuration
import streams
from clients import connect
from clients.kafka_commands import STREAM_PATIENCE_MS
from clients.kafka_options import positive
from clients.produce import Sending
from clients.terminal import CommandFailed, one_line, run, say
from examples import descriptions
from examples.progress import Watch, bars

DESCRIPTION = """\
Loads the descriptions of Debian's packages, some 63,000 real texts, through Kafka. Each becomes a message with the id \
debian/PACKAGE and {"package", "section"} as metadata. Loading them again changes nothing and embeds nothing anew."""

EXAMPLES = """\
examples:
  python examples/debian.py --sample      the 300 or so that come with it
  python examples/debian.py --limit 5000  5,000 of them, picked evenly
  python examples/debian.py               all
  python examples/debian.py --update      let apt fetch them first (as root)

then:
  python cli.py search "spend less money each month"
  python cli.py search "racing cars" --filter '{"section": "games"}'
"""

LOOK_SECONDS = 0.5
STUCK_SECONDS = 60.0


def parser() -> argparse.ArgumentParser:
    form = streams.HelpFormatter
    made = argparse.ArgumentParser(prog="debian.py", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=form)
    made.add_argument("--sample", action="store_true", help="load the sample that comes with the project")
    made.add_argument("--limit", type=positive, metavar="N", help="only so many of them")
    made.add_argument("--update", action="store_true", help="let apt fetch the descriptions first; needs root")
    made.add_argument("--no-wait", action="store_true", help="end when Kafka has them; the rest happens by itself")
    return made


def chosen(given: argparse.Namespace) -> list[dict[str, object]]:
    """The records to load; where apt has none, those of the sample, with a note that says why."""
    if given.update:
        update()
    records: list[dict[str, object]] = []
    if not given.sample:
        try:
            say("reading what apt has fetched")
            records = descriptions.from_apt()
        except descriptions.NoDescriptions as error:
            say(f"{error}; loading the sample instead")
    records = records or list(descriptions.sample())
    if given.limit is not None and given.limit < len(records):
        records = random.Random(0).sample(records, given.limit)
    return records


def update() -> None:
    """Has apt fetch the descriptions. Raises CommandFailed."""
    command = " ".join(descriptions.UPDATE)
    try:
        code = subprocess.run(descriptions.UPDATE, check=False).returncode
    except OSError as error:
        raise CommandFailed(f"`{command}` cannot be run ({error.strerror}): --sample needs no apt") from None
    if code != 0:
        raise CommandFailed(f"`{command}` failed: it needs root and a network")


def load(given: argparse.Namespace) -> int:
    settings = configuration.load()
    records = chosen(given)
    began = time.monotonic()
    with connect.admin(settings) as admin:
        connect.partitions(admin, settings.kafka_topic)
        largest = connect.limits(admin, settings.kafka_topic).largest
        with (
            connect.producer(settings, largest, patience_ms=STREAM_PATIENCE_MS) as producer,
            bars(len(records)) as show,
        ):
            sending = Sending(producer, settings.kafka_topic)
            watch = Watch(settings, admin, sending)
            for number, record in enumerate(records, start=1):
                value = json.dumps(record, ensure_ascii=False).encode()
                sending.send(number, str(record["id"]).encode(), value)
                if time.monotonic() - watch.looked_at > LOOK_SECONDS:
                    show(watch.look())
            sending.finish()
            say(f"Kafka has {sending.acknowledged:,} descriptions after {time.monotonic() - began:.1f} s")
            if sending.failed:
                say(f"{sending.failed:,} were not sent, such as:")
            for unsent in sending.reasons:
                say(f"{records[unsent.number - 1]['id']}: {one_line(unsent.reason)}")
            while not given.no_wait:
                state = watch.look()
                show(state)
                if state.embedded >= sending.acknowledged:
                    say(f"stored and embedded after {time.monotonic() - began:.1f} s")
                    break
                if watch.quiet_seconds > STUCK_SECONDS:
                    raise CommandFailed("nothing has moved for a minute: ./status.sh shows what runs")
                time.sleep(LOOK_SECONDS)
    return 1 if sending.failed else 0


def main(arguments: list[str]) -> int:
    return run("debian.py", lambda: load(parser().parse_args(arguments)))

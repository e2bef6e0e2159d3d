"""How far a load has come: sent to Kafka, stored in PostgreSQL, embedded; three bars on a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clients import rest
from clients.produce import Sending
from clients.progress import console
from clients.terminal import CommandFailed
from settings import Settings


class State(NamedTuple):
    sent: int
    stored: int
    embedded: int


class Watch:
    """Looks how far the records of a sending have come.

    Stored is told by the offsets that the bridge has committed, embedded by what the text API says is still waiting, so
    others who send at the same time make the numbers a little too small for a while.
    """

    def __init__(self, settings: Settings, admin: KafkaAdminClient, sending: Sending) -> None:
        self.settings = settings
        self.admin = admin
        self.sending = sending
        self.api = rest.Api(rest.text_url(settings), settings.own_api_key)
        self.state = State(0, 0, 0)
        self.looked_at = self.moved_at = time.monotonic()

    def look(self) -> State:
        sent = self.sending.acknowledged
        stored = sent - self.behind()
        try:
            pending = int(self.api.call("GET", "/stats").document["pending"])
        except CommandFailed:
            pending = stored  # nobody tells: then none are known to be embedded
        now = time.monotonic()
        before, self.state = self.state, State(sent, stored, max(0, stored - pending))
        if before != self.state:
            self.moved_at = now
        self.looked_at = now
        return self.state

    def behind(self) -> int:
        """How many of the acknowledged records the bridge has not committed yet."""
        partitions = {
            TopicPartition(self.settings.kafka_topic, number): end for number, end in self.sending.ends.items()
        }
        group = self.settings.kafka_group_id
        committed = self.admin.list_group_offsets({group: list(partitions)}).get(group, {})
        behind: int = sum(
            max(0, end - max(self.sending.begins[partition.partition], committed[partition].offset))
            for partition, end in partitions.items()
        )
        return min(behind, self.sending.acknowledged)

    @property
    def quiet_seconds(self) -> float:
        return time.monotonic() - self.moved_at


@contextmanager
def bars(total: int) -> Iterator[Callable[[State], None]]:
    screen = console()
    columns = [
        TextColumn("{task.description:>8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        tasks = [progress.add_task(name, total=total) for name in State._fields]

        def show(state: State) -> None:
            for task, done in zip(tasks, state, strict=True):
                progress.update(task, completed=done)

        yield show

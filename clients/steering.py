"""Wishes to running bridges: pause, resume, rewind. What the bridges make of them is in bridge/steering.py."""

import contextlib
import json
import time
import uuid
from datetime import datetime

import redis
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import NoError
from kafka.structs import OffsetAndMetadata

from clients.terminal import CommandFailed, Unreachable, say
from redis_keys import PAUSED, REWIND, answer_field, steering_key
from settings import Settings

ANSWER_SECONDS = 60.0
LOOK_SECONDS = 2.0
NO_MEMBERS = ("Empty", "Dead")
WAITS = "waiting for the bridges: Kafka counts one that was stopped as running for up to 45 s"


def connect(settings: Settings) -> redis.Redis:
    return redis.Redis.from_url(
        settings.redis_address, socket_timeout=5, socket_connect_timeout=5, decode_responses=True
    )


def redis_away(settings: Settings, error: Exception) -> Unreachable:
    """The one line about a Redis that does not answer; its address without the login."""
    return Unreachable(f"Redis at {settings.redis_address.rpartition('@')[2]} does not answer: {error}")


def pause(settings: Settings, *, paused: bool) -> str:
    """Returns the name of this pause, with which the bridges answer. Raises Unreachable if Redis is away."""
    name = str(uuid.uuid4())
    client = connect(settings)
    try:
        client.hset(steering_key(settings.kafka_group_id), PAUSED, name if paused else "")
    except (redis.RedisError, OSError) as error:
        raise redis_away(settings, error) from error
    finally:
        client.close()
    return name


def is_paused(settings: Settings) -> bool | None:
    """Whether the intake is paused by command; None if Redis is away."""
    client = connect(settings)
    try:
        return bool(client.hget(steering_key(settings.kafka_group_id), PAUSED))
    except (redis.RedisError, OSError):
        return None
    finally:
        client.close()


Commits = dict[int, OffsetAndMetadata]


def committed(settings: Settings, admin: KafkaAdminClient, partitions: list[TopicPartition]) -> Commits:
    """What the bridges have committed, by partition; without partitions of which nothing was ever read."""
    group = settings.kafka_group_id
    found = admin.list_group_offsets({group: partitions}).get(group, {})
    return {part.partition: place for part, place in found.items() if place.offset >= 0}


def earliest_of(
    consumer: KafkaConsumer,
    partitions: list[TopicPartition],
    commits: Commits,
    *,
    since: datetime | None,
    offsets: dict[int, int],
) -> dict[int, int]:
    """The offset of each partition from which to read again: those given, or the first record at or after `since`, or
    the beginning; never one after the commit, so that nothing unread is skipped. Raises CommandFailed for a partition
    or offset that is not in the log."""
    begins = consumer.beginning_offsets(partitions)
    ends = consumer.end_offsets(partitions)
    if offsets:
        by_number = {part.partition: part for part in partitions}
        for number, offset in offsets.items():
            if number not in by_number:
                raise CommandFailed(f"there is no partition {number}; there are {', '.join(map(str, by_number))}")
            first, last = begins[by_number[number]], ends[by_number[number]]
            if not first <= offset <= last:
                raise CommandFailed(f"partition {number} holds offsets {first} to {last - 1}, not {offset}")
        wished = offsets
    elif since is not None:
        at = int(since.timestamp() * 1000)
        found = consumer.offsets_for_times(dict.fromkeys(partitions, at))
        wished = {part.partition: found[part].offset if found[part] else ends[part] for part in partitions}
    else:
        return {part.partition: begins[part] for part in partitions}
    first_of = {part.partition: begins[part] for part in partitions}
    return {
        number: min(offset, commits[number].offset) if number in commits else first_of[number]
        for number, offset in wished.items()
    }


def rewind(settings: Settings, admin: KafkaAdminClient, offsets: dict[int, int]) -> None:
    """Makes the bridges read the partitions again from these offsets: running ones by a wish, else in Kafka itself.

    Raises CommandFailed if running bridges have not answered in time, and Unreachable if Redis is away.
    """
    if not is_running(settings, admin):
        set_in_kafka(settings, admin, offsets)
        return
    request = str(uuid.uuid4())
    wish = json.dumps({"id": request, "offsets": {str(part): offset for part, offset in offsets.items()}})
    missing = set(offsets)
    wishes = steering_key(settings.kafka_group_id)
    client = connect(settings)
    deadline = time.monotonic() + ANSWER_SECONDS
    next_look = time.monotonic() + LOOK_SECONDS
    is_told = False
    try:
        while missing and time.monotonic() < deadline:
            client.hset(wishes, REWIND, wish)  # again and again: Redis may be emptied meanwhile
            time.sleep(0.25)
            answers = client.hgetall(wishes)
            missing = {part for part in offsets if answer_field(request, part) not in answers}
            if missing and time.monotonic() > next_look:
                next_look = time.monotonic() + LOOK_SECONDS
                if not is_running(settings, admin):  # a stopped bridge stays a member until its session has run out
                    set_in_kafka(settings, admin, {part: offsets[part] for part in missing})
                    missing = set()
                elif not is_told:
                    say(WAITS)
                    is_told = True
    except (redis.RedisError, OSError) as error:
        raise redis_away(settings, error) from error
    finally:
        # However this ends (Ctrl-C too): a wish that stays would be done by every bridge that has not answered it.
        with contextlib.suppress(redis.RedisError, OSError):
            client.hdel(wishes, REWIND, *(answer_field(request, part) for part in offsets))
        client.close()
    if missing:
        raise CommandFailed(
            f"no bridge has taken up partition {', '.join(map(str, sorted(missing)))} within {ANSWER_SECONDS:.0f} s; "
            "stop the bridges and try again: without them the offsets are set in Kafka itself"
        )


def is_running(settings: Settings, admin: KafkaAdminClient) -> bool:
    group = settings.kafka_group_id
    return admin.describe_groups([group]).get(group, {}).get("group_state", "Dead") not in NO_MEMBERS


def set_in_kafka(settings: Settings, admin: KafkaAdminClient, offsets: dict[int, int]) -> None:
    """Sets the group's offsets; their metadata, the id of the topic that they belong to, is kept."""
    parts = {number: TopicPartition(settings.kafka_topic, number) for number in offsets}
    commits = committed(settings, admin, list(parts.values()))
    new = {
        parts[number]: OffsetAndMetadata(at, commits[number].metadata if number in commits else "", -1)
        for number, at in offsets.items()
    }
    refused = {
        part.partition: error
        for part, error in admin.alter_group_offsets(settings.kafka_group_id, new).items()
        if error is not NoError and not isinstance(error, NoError)
    }
    if refused:
        raise CommandFailed(f"Kafka did not take the offsets: {refused}")

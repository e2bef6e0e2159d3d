"""Deletions are forgotten once Kafka's log is too young to hold the record: by what Kafka says of its topic, not by the
setting with which it may once have been created."""

from dataclasses import replace

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from sqlalchemy import Engine

from settings import Settings
from tasks import log_retention, resources, upkeep
from tasks.outages import Outage
from tests.samples import a_record, ask, persist, run

HOUR_MS = 3600 * 1000


def keep_in_log(settings: Settings, **changes: str) -> None:
    admin = KafkaAdminClient(**settings.kafka_client())
    named = {name.replace("_", "."): value for name, value in changes.items()}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, settings.kafka_topic, named)])
    admin.close()


def test_the_log_s_age_is_what_kafka_says_of_the_topic(settings: Settings, topic: str) -> None:
    assert log_retention.longest_ms(settings) is None, "it is created to be kept for ever"
    keep_in_log(settings, retention_ms=str(HOUR_MS), segment_ms=str(2 * HOUR_MS))
    assert log_retention.longest_ms(settings) == 3 * HOUR_MS
    keep_in_log(settings, retention_ms=str(2**63 - 1))
    assert log_retention.longest_ms(settings) is None, "longer than PostgreSQL can count"
    keep_in_log(settings, cleanup_policy="compact", retention_ms=str(HOUR_MS))
    assert log_retention.longest_ms(settings) is None


def test_where_kafka_does_not_say_it_nothing_is_forgotten(settings: Settings, topic: str) -> None:
    with pytest.raises(Outage):
        log_retention.longest_ms(replace(settings, kafka_topic="there-is-none"))
    with pytest.raises(Outage):
        log_retention.longest_ms(replace(settings, kafka_bootstrap_servers="127.0.0.1:1"))


def test_deletions_outlive_what_the_log_may_hold(
    settings: Settings, topic: str, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "engine", lambda: database)
    monkeypatch.setattr(upkeep, "FORGET_EVERY_SECONDS", 0.0)
    persist(database, a_record(None), a_record(None))
    run(database, "UPDATE deleted_messages SET deleted_at = now() - INTERVAL '30 h'")

    def left(**others: object) -> int:
        upkeep.forget_deletions(replace(settings, **others))  # type: ignore[arg-type]
        return int(ask(database, "SELECT count(*) FROM deleted_messages")[0]["count"])

    assert left(kafka_retention_ms=HOUR_MS) == 2, "the topic was created to be kept for ever, and still is"
    keep_in_log(settings, retention_ms=str(5 * HOUR_MS), segment_ms=str(2 * HOUR_MS))
    assert left() == 2, "7 hours and a day"
    keep_in_log(settings, retention_ms=str(3 * HOUR_MS), segment_ms=str(2 * HOUR_MS))
    assert left(kafka_bootstrap_servers="127.0.0.1:1") == 2
    note = 'INSERT INTO dead_letters (topic, partition, "offset", timestamp, reason, detail, headers) VALUES'
    run(database, f"{note} ('t', 0, 0, 0, 'rejected', 'why', '[]')")
    assert left() == 2, "a dead letter that is older may be sent again"
    run(database, "UPDATE dead_letters SET state = 'replayed', state_changed_at = now() - INTERVAL '28 h'")
    assert left() == 2, "it was, and the log may hold it once more"
    run(database, "UPDATE dead_letters SET state = 'dropped'")
    assert left() == 0

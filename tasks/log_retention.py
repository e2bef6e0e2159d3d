"""How long Kafka keeps a record of the topic. Kafka is asked, because the settings apply only when it is created.

Imported only where it is used, like all of kafka-python in the workers.
"""

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError

import kafka_clients
from settings import Settings
from tasks.outages import Outage, reason

KAFKA_MS = 5_000

# https://kafka.apache.org/42/configuration/topic-configs/: whole segments are removed, once the newest record in one is
# older than the retention.
RETENTION, SEGMENT, POLICY = "retention.ms", "segment.ms", "cleanup.policy"
FOR_EVER_MS = 1000 * 366 * 24 * 3_600_000  # longer than PostgreSQL can count back


def longest_ms(settings: Settings) -> int | None:
    """How old a record of the topic can become, in ms; None if it may stay for ever. Raises Outage if Kafka does not
    say."""
    topic = settings.kafka_topic
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, dict.fromkeys((RETENTION, SEGMENT, POLICY)))
    try:
        limits = {"request_timeout_ms": KAFKA_MS, "bootstrap_timeout_ms": KAFKA_MS}
        admin = kafka_clients.connect(KafkaAdminClient, settings, client_id="retention", **limits)
        try:
            found = admin.describe_configs([asked], config_filter="all")["topic"][topic]
        finally:
            admin.close()
        retention, segment, policy = (found[name]["value"] for name in (RETENTION, SEGMENT, POLICY))
        if int(retention) < 0 or "delete" not in policy:
            return None
        longest = int(retention) + int(segment)
        return longest if longest < FOR_EVER_MS else None
    except KafkaError as error:
        raise Outage(reason(error)) from error
    except (KeyError, TypeError, ValueError) as error:  # an answer without a value, or with one that is no number
        raise Outage(f"Kafka does not say how long it keeps {topic}: {error!r}") from error

"""What `python -m bridge.topics` says where there can be no topics."""

import pytest
from kafka.errors import InvalidReplicationFactorError, KafkaError, KafkaTimeoutError

from bridge import topics
from settings import Settings

# As kafka-python says it, shortened.
REFUSED = (
    "Request 'CreateTopicsRequest(version=7, topics=[CreatableTopic(name='texts', replication_factor=3)])' failed with "
    "response 'CreateTopicsResponse(version=7, topics=[CreatableTopicResult(name='texts', error_code=38, "
    "error_message={}, topic_config_error_code=0, num_partitions=-1)])'."
)
PLACES = "is Kafka running? (KAFKA_BOOTSTRAP_SERVERS, KAFKA_PORT)"
FORM = "(KAFKA_TOPIC_PARTITIONS, KAFKA_REPLICATION_FACTOR, KAFKA_RETENTION_MS)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InvalidReplicationFactorError(REFUSED.format("'only 1 broker(s)'")), f"only 1 broker(s) {FORM}"),
        (InvalidReplicationFactorError(REFUSED.format('"it\'s one, and no more"')), f"it's one, and no more {FORM}"),
        (InvalidReplicationFactorError(REFUSED.format("None")), PLACES),
        (KafkaTimeoutError(), PLACES),
    ],
)
def test_a_kafka_that_refuses_a_topic_says_why_and_is_not_asked_for(
    error: KafkaError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_settings: Settings, _seconds: float) -> list[str]:
        raise error

    monkeypatch.setattr(topics, "create_with_patience", refuse)
    assert topics.main([]) == 1
    told = capsys.readouterr().err
    assert told.endswith(f"{said}\n")
    assert ("is Kafka running?" in told) == (said == PLACES)

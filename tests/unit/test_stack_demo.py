"""The text that a start sends."""

import pytest

from settings import Settings
from stack import StackError, demo


def test_a_kafka_that_does_not_answer_is_told_in_one_line() -> None:
    with pytest.raises(StackError, match="Kafka did not take the demo message"):
        demo._publish_and_find(Settings(kafka_port=1), "a text", "a query")

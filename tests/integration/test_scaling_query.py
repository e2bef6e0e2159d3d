"""What KEDA and the autoscaler ask PostgreSQL, to know how many embed workers are wanted."""

import re

from sqlalchemy import Engine, text

from db import queries
from settings import ROOT, Settings
from stack import pipeline_state


def test_the_queries_count_the_messages_that_wait_and_the_reader_may_ask_it(
    settings: Settings, database: Engine, reader: Engine
) -> None:
    template = (ROOT / "deploy/helm/templates/keda.yaml").read_text()
    (query,) = re.findall(r"^ +query: (SELECT .+)$", template, re.MULTILINE)
    rows = "SELECT gen_random_uuid(), 'text ' || n FROM generate_series(1, 7) n"
    with database.begin() as connection:
        connection.execute(text(f"INSERT INTO text_messages (id, message) {rows}"))
        # A second model's vectors are made with what is left of the workers' time.
        second = "SELECT array_agg(id), 'second' FROM text_messages"
        connection.execute(text(f"INSERT INTO embedding_jobs (message_ids, model) {second}"))
    with reader.begin() as connection:
        assert connection.execute(text(query)).scalar_one() == 7
        assert queries.under_way(connection)["pending"] == 7
    assert pipeline_state.texts_pending(settings) == 7

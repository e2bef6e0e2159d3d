"""What KEDA asks PostgreSQL, to know how many embed workers are wanted."""

import re

from sqlalchemy import Engine, text

from settings import ROOT


def test_the_query_counts_the_messages_that_wait_and_the_reader_may_ask_it(database: Engine, reader: Engine) -> None:
    template = (ROOT / "deploy/helm/templates/keda.yaml").read_text()
    (query,) = re.findall(r"^ +query: (SELECT .+)$", template, re.MULTILINE)
    rows = "SELECT gen_random_uuid(), 'text ' || n FROM generate_series(1, 7) n"
    with database.begin() as connection:
        connection.execute(text(f"INSERT INTO text_messages (id, message) {rows}"))
    with reader.begin() as connection:
        assert connection.execute(text(query)).scalar_one() == 7

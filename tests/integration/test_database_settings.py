"""What somebody has set for the database or its roles changes neither what is stored nor which version wins."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Engine

from db import session
from settings import Settings
from tests.samples import a_record, ask, persist, run

Set = Callable[[str, str], Engine]


@pytest.fixture
def with_setting(settings: Settings, database: Engine) -> Iterator[Set]:
    """An engine of the test's database after somebody has chosen a setting for it."""
    engines: list[Engine] = []

    def choose(name: str, value: str) -> Engine:
        run(database, f"ALTER DATABASE {settings.database_name} SET {name} = '{value}'")
        engines.append(session.connect_engine(settings.database_url(), "test", pool_size=2))
        return engines[-1]

    yield choose
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("count", [1, 20], ids=["by INSERT", "by COPY"])
def test_texts_are_stored_as_they_are_under_any_client_encoding(
    with_setting: Set, database: Engine, count: int
) -> None:
    engine = with_setting("client_encoding", "LATIN1")
    records = [a_record(f"Grüße {number}, 日本語 \U0001f600") for number in range(count)]
    persist(engine, *records, expect_new=True)
    wanted = {record.message for record in records}
    assert {found["message"] for found in ask(engine, "SELECT message FROM text_messages")} == wanted
    assert {found["message"] for found in ask(database, "SELECT message FROM text_messages")} == wanted

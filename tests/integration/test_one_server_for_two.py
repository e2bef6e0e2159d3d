"""Two installations on one PostgreSQL server, each in a database of its own, that are migrated at the same time: roles
are the whole server's."""

from dataclasses import replace

import pytest
from sqlalchemy import Engine

from db import schema
from settings import Settings
from tests.conftest import administer
from tests.integration.test_migrations import count_as_reader
from tests.samples import meanwhile, wait_until_blocked


@pytest.mark.parametrize("before", [(), ("CREATE ROLE {name}",)], ids=["made", "altered"])
@pytest.mark.parametrize("setting", ["LOGIN", "SET default_transaction_read_only = on"])
def test_the_role_of_the_apis_is_changed_for_the_other_one_at_this_moment(
    settings: Settings, database: Engine, before: tuple[str, ...], setting: str
) -> None:
    role = f"reader_of_{settings.database_name}"
    chosen = replace(settings, database_reader_user=role)
    for statement in before:
        administer(settings, statement, role)
    try:
        with database.connect() as other:
            if not before:
                other.exec_driver_sql(f"CREATE ROLE {role}")
            other.exec_driver_sql(f"ALTER ROLE {role} {setting}")
            with meanwhile(lambda: schema.upgrade(chosen)):
                wait_until_blocked(database)
                other.commit()
        assert count_as_reader(chosen) == 0
    finally:
        with database.begin() as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")

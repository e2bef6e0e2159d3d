"""How Alembic reaches the database: by the connection it is given, or by the project's settings."""

from alembic import context
from sqlalchemy import Connection

import settings
from db import session
from db.models import Base


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    engine = session.connect_engine(settings.load().database_url(), "migrate")
    with engine.connect() as connection:
        run(connection)
        connection.commit()
    engine.dispose()

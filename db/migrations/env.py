"""How Alembic reaches the database: by the connection it is given, or by the project's settings."""

from alembic import context
from sqlalchemy import Connection

import settings
from db import session
from db.models import Base


def include_object(_object: object, name: str | None, kind: str, reflected: bool, model: object) -> bool:
    """Leaves out what the workers build as they need it: the parts of the vector index, and indexes that settings
    switch."""
    built = ("message_embeddings_part_", "text_messages_words", "text_messages_metadata")
    return not (kind == "index" and reflected and model is None and (name or "").startswith(built))


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        include_object=include_object,
    )
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

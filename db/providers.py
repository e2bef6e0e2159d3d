"""Which settings make the provider of a stored model: what is recorded of them, and when they win over those of the
process. Secrets are never recorded; they come from the settings of whoever loads the provider.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from settings import InvalidSetting, Settings, check

# What tells the models of a provider apart, beside its name.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_DIMENSIONS"),
    "fastembed": ("FASTEMBED_MODEL", "FASTEMBED_FOLDER"),
}
PROVIDER = "EMBEDDING_PROVIDER"

Recorded = Mapping[str, str]


@dataclass(frozen=True)
class StoredModel:
    """A row of embedding_models. `settings` are None while no worker has recorded them. The process's own settings do
    not count if they are among `instead_of`: the model was chosen by command to replace them."""

    name: str
    dimensions: int
    settings: Recorded | None
    instead_of: Sequence[Recorded]


def recorded(settings: Settings) -> dict[str, str]:
    """The settings that make a provider, by the names that they have in `.env`."""
    provider = settings.embedding_provider
    values = {PROVIDER: provider}
    for name in OPTIONS.get(provider, ()):
        value = str(getattr(settings, name.lower()))
        if not has_secret(value):
            values[name] = value
    return values


def has_secret(value: str) -> bool:
    """Whether an address carries a login or parameters, which may be a key."""
    try:
        parts = urlsplit(value)
    except ValueError:  # no address; nobody knows what is in it
        return True
    return bool(parts.scheme and (parts.username or parts.password or parts.query))


def with_recorded(settings: Settings, values: Recorded) -> Settings:
    """These settings with others for the provider. Raises InvalidSetting for a name that is none of a provider's."""
    known = {PROVIDER, *(name for names in OPTIONS.values() for name in names)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise InvalidSetting(f"{unknown[0]} does not make a provider: these do: {', '.join(sorted(known))}")
    changes: dict[str, Any] = {name.lower(): value for name, value in values.items()}
    chosen = replace(settings, **changes)
    check(chosen)
    return chosen


def settings_for(settings: Settings, stored: StoredModel | None) -> tuple[Settings, str | None]:
    """The settings to load the active model's provider with, and, if these are not the process's own, a line that says
    so.

    The database wins if the model was chosen by command and the settings are still those from before it, or already
    those of the model that is on its way. Whoever changes the settings in any other way gets the provider that they ask
    for, and then an error, since the stored vectors are another model's.
    """
    own = recorded(settings)
    if stored is None or stored.settings is None or own == stored.settings or own not in stored.instead_of:
        return settings, None
    wanted = " ".join(f"{name}={value}" for name, value in sorted(stored.settings.items()) if own.get(name) != value)
    return with_recorded(settings, stored.settings), (
        f"the active model is {stored.name}, as chosen by `python -m db reembed`; {PROVIDER}={own[PROVIDER]} of the "
        f"settings does not count. For the settings to say the same, set {wanted}"
    )


def misfit(stored: StoredModel | None, model: str, dimensions: int) -> str | None:
    """Why a provider's vectors do not fit those stored under its model's name, or None: an endpoint may put another
    model under a name, and PostgreSQL compares no vectors of different lengths."""
    if stored is None or stored.name != model or stored.dimensions == dimensions:
        return None
    return (
        f"the vectors of {model} in the database have {stored.dimensions} dimensions, the provider makes {dimensions}: "
        "set what it asks back, or change to a model of another name with `python -m db reembed`"
    )


def active(connection: Connection) -> StoredModel | None:
    """The model whose vectors answer searches; None before the first worker has started."""
    row = connection.execute(
        text("""
            SELECT a.name, a.dimensions, a.settings::text,
                (a.instead_of || CASE WHEN n.settings IS NULL THEN '[]' ELSE jsonb_build_array(n.settings) END)::text
            FROM embedding_models a LEFT JOIN embedding_models n ON n.name = a.followed_by WHERE a.active
        """)
    ).one_or_none()
    return stored_model(row)


def named(connection: Connection, name: str) -> StoredModel | None:
    row = connection.execute(
        text("SELECT name, dimensions, settings::text, instead_of::text FROM embedding_models WHERE name = :name"),
        {"name": name},
    ).one_or_none()
    return stored_model(row)


def stored_model(row: Sequence[Any] | None) -> StoredModel | None:
    # As text, because the APIs leave JSONB unread.
    if row is None:
        return None
    return StoredModel(row[0], row[1], json.loads(row[2]) if row[2] else None, json.loads(row[3]))

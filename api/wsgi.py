"""The two WSGI applications for gunicorn: `gunicorn api.wsgi:text_api` and `gunicorn api.wsgi:search_api`.

Each is made when it is asked for, so that a process has only the one that it serves.
"""

import logging

from flask import Flask

import settings as configuration
from api import tracing, waits
from api.app import create_app
from api.parts import Role
from telemetry import logs

ROLES: dict[str, Role] = {"text_api": "text", "search_api": "search"}


def __getattr__(name: str) -> Flask:
    if name not in ROLES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = configuration.load()
    logs.set_up(settings, name.replace("_", "-"))
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it says the same at each try; kafka_log says it once
    waits.bound()
    application = create_app(ROLES[name], settings)
    tracing.watch(settings, application, name.replace("_", "-"))
    globals()[name] = application
    return application

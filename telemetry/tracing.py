"""OpenTelemetry as an extra: traces go where OTEL_EXPORTER_OTLP_ENDPOINT says. Without it nothing of it is imported.

A part is wrapped at its start (telemetry/spans.py), so that with it off no record and no task passes through anything.
"""

from importlib.util import find_spec
from typing import Any

from settings import InvalidSetting, Settings

PACKAGES = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def is_on(settings: Settings) -> bool:
    """Whether traces are wanted. Raises InvalidSetting if the packages for that are missing."""
    if not settings.otel_exporter_otlp_endpoint:
        return False
    missing = [package for package in PACKAGES if not installed(package)]
    if missing:
        raise InvalidSetting(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but the package {missing[0]} is not installed: "
            "`.venv/bin/python -m pip install -r requirements-otel.txt` installs what it needs, "
            "and `docker compose build --build-arg OTEL=yes migrate` makes an image that has it"
        )
    return True


def installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def watch_bridge(settings: Settings, hand_overs: Any) -> None:
    """Makes a span of each hand-over of this bridge, if traces are wanted."""
    if is_on(settings):
        from telemetry import spans

        spans.watch_bridge(settings, hand_overs)


def watch_worker(settings: Settings) -> None:
    """Makes a span of each task of this process, if traces are wanted."""
    if is_on(settings):
        from telemetry import spans

        spans.watch_worker(settings)

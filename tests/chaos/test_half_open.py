"""Half-open connections: they stay open, are acknowledged by TCP, and say nothing any more."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from settings import Settings
from tests.parts import Running, eventually
from tests.surrounded import Surrounded

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


def test_every_connection_to_every_server_falls_silent(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    """All at once, as behind a switch that has forgotten its table; new connections work."""
    with Surrounded(settings, database, start) as pipeline:
        for proxy in pipeline.proxies:
            assert proxy.fall_silent() > 2
        pipeline.send("after")
        pipeline.assert_answered()
        pipeline.wait_until_embedded("after", 150)
        eventually(pipeline.all_well, 30)


def test_servers_that_swallow_new_connections_too(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    """For longer than any time-out; then what is new works again, and what is old never does."""
    with Surrounded(settings, database, start) as pipeline:
        for proxy in pipeline.proxies:
            proxy.fall_silent(new_too=True)
        pipeline.send("meanwhile")
        for _ in range(3):
            pipeline.assert_answered()
        for proxy in pipeline.proxies:
            proxy.take_new()
        pipeline.send("after")
        pipeline.wait_until_embedded("meanwhile", 150)
        pipeline.wait_until_embedded("after", 30)
        eventually(pipeline.all_well, 30)

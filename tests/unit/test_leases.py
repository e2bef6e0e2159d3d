"""Leases are renewed for as long as their task works, whatever ends it."""

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import psycopg2
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import OperationalError

from db import outbox, session
from db.outbox import Job
from tasks import leases, resources
from tests.parts import eventually


class Cut:
    """A lock whose second taker is cut short by a soft time limit while it waits."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.taken = 0

    def __enter__(self) -> None:
        self.taken += 1
        if self.taken == 2:
            raise SoftTimeLimitExceeded
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def test_a_lease_is_renewed_no_more_where_a_soft_time_limit_ends_the_wait_for_its_last_renewal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keeper = leases.Keeper(60.0)
    lock: Any = Cut()
    keeper.lock = lock
    monkeypatch.setattr(leases, "keeper", lambda _seconds: keeper)
    monkeypatch.setattr(keeper, "watch", lambda: None)
    with pytest.raises(SoftTimeLimitExceeded), leases.kept([Job(1, ["a"], deleted=False, attempts=1)], "lease", 60.0):
        assert keeper.kept == {"lease": [1]}
    assert keeper.kept == {}


@pytest.fixture
def renewed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """How leases were renewed. The first two times the database is away."""
    calls: list[dict[str, Any]] = []
    outages = iter([OperationalError("", {}, Exception("away")), psycopg2.OperationalError("away")])

    def claim(_connection: object, jobs: list[int], lease: str, _seconds: float, **options: Any) -> None:
        calls.append({"jobs": jobs, "lease": lease, **options})
        for outage in outages:
            raise outage

    monkeypatch.setattr(resources, "engine", lambda: None)
    monkeypatch.setattr(session, "autocommit_connection", nullcontext)
    monkeypatch.setattr(outbox, "claim_jobs", claim)
    keeper = leases.Keeper(0.01)
    monkeypatch.setattr(leases, "keeper", lambda _seconds: keeper)
    yield calls
    keeper.seconds = 3600.0  # its thread does not end


def test_a_lease_is_renewed_through_an_outage_and_costs_no_attempt(renewed: list[dict[str, Any]]) -> None:
    with leases.kept([Job(1, ["a"], deleted=False, attempts=1)], "lease", 0.01):
        eventually(lambda: len(renewed) > 3, timeout=10)
    assert renewed[0] == renewed[-1] == {"jobs": [1], "lease": "lease", "counts": False}


def test_a_process_without_the_thread_of_its_parent_has_one_of_its_own(renewed: list[dict[str, Any]]) -> None:
    """Threads do not survive a fork."""
    over = threading.Thread(target=lambda: None)
    over.start()
    over.join()
    leases.keeper(0.01).thread = over
    with leases.kept([Job(1, ["a"], deleted=False, attempts=1)], "lease", 0.01):
        eventually(lambda: renewed, timeout=10)

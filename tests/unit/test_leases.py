"""Leases are renewed for as long as their task works, whatever ends it."""

import threading
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from db.outbox import Job
from tasks import leases


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

"""What Flower's own command takes from the checkout, and what it says of a port that it cannot have."""

import runpy
import socket
import sys

import pytest

from settings import ROOT, Settings


def configured(monkeypatch: pytest.MonkeyPatch, settings: Settings, *arguments: str) -> dict[str, object]:
    monkeypatch.setattr("settings.load", lambda: settings)
    monkeypatch.setattr(sys, "argv", ["celery", "-A", "tasks.app", "flower", *arguments])
    return runpy.run_path(str(ROOT / "flowerconfig.py"))


def test_a_port_that_is_taken_is_told_with_what_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SystemExit) as ended:
            configured(monkeypatch, Settings(flower_port=port))
        assert str(ended.value) == (
            f"flower: port {port} is taken: stop what listens there, or set FLOWER_PORT to another port"
        )
        assert configured(monkeypatch, Settings(flower_port=port), "--port=0")["port"] == port
    assert configured(monkeypatch, Settings(flower_port=port))["port"] == port


def test_an_address_of_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as ended:
        configured(monkeypatch, Settings(bind_host="203.0.113.7"))
    assert "203.0.113.7:5555 cannot be used" in str(ended.value)
    assert "BIND_HOST" in str(ended.value)

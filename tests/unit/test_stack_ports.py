"""A port that cannot be had is refused in one line: which, for what, who has it, and what moves it."""

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import StackError
from stack.part import PIPELINE, Part, Port
from stack.ports import check_free, explain


def part(*ports: Port) -> Part:
    return Part(
        name="search-api",
        title="Search API",
        command=[],
        environment={},
        directory=Path("/"),
        layer=PIPELINE,
        ports=ports,
    )


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_its_holder_and_the_variable_that_moves_it(taken: int) -> None:
    with pytest.raises(StackError) as failure:
        check_free([part(Port("SEARCH_API_PORT", "127.0.0.1", taken))])
    message = str(failure.value)
    assert message.startswith(f"port {taken} (Search API) is taken by ")
    assert f"(pid {os.getpid()})" in message
    assert message.endswith("or set SEARCH_API_PORT to another port")
    assert "\n" not in message


def test_a_port_that_another_address_of_this_machine_has_is_free(taken: int) -> None:
    check_free([part(Port("SEARCH_API_PORT", "127.0.0.2", taken))])


def test_a_port_whose_last_connections_are_still_closing_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", number)):
            accepted, _ = server.accept()
            accepted.close()  # this side closes first, and stays in TIME_WAIT
    check_free([part(Port("SEARCH_API_PORT", "127.0.0.1", number))])


def test_two_parts_on_one_port_are_told_before_either_is_started() -> None:
    with pytest.raises(StackError, match="A_PORT and B_PORT are both 18123"):
        check_free([part(Port("A_PORT", "127.0.0.1", 18123)), part(Port("B_PORT", "127.0.0.1", 18123))])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errno.EADDRINUSE, "port 80 (Search API) is taken by another program: stop that, or set P to another port"),
        (errno.EACCES, "port 80 (Search API) is for root only: choose one above 1023, or set P to another port"),
        (errno.EADDRNOTAVAIL, "check BIND_HOST, or set P to another port"),
    ],
)
def test_each_reason_says_what_to_do(error: int, expected: str) -> None:
    assert explain("Search API", Port("P", "127.0.0.1", 80), error, "").endswith(expected)

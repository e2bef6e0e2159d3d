"""Somebody else's JSON endpoint: its connections, which are kept, and what each failure means for the embedding.

Nothing is tried again here, unless the server has closed a kept connection meanwhile: the tasks know how to wait.
The key goes into the request's header, and into no error, log or repr.
"""

from __future__ import annotations

import email.utils
import http.client
import io
import json
import select
import socket
import ssl
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from embedder.protocol import EmbedderUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Answers that speak of the input, not of the service.
REFUSED_INPUT = {400, 413, 422}

# What a connection raises that the server has closed; with TLS that is none of Python's ConnectionErrors.
CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)

WHAT_TO_DO = {
    401: "check OPENAI_API_KEY",
    403: "check OPENAI_API_KEY and what it may do",
    404: "check OPENAI_BASE_URL and OPENAI_MODEL",
    405: "check OPENAI_BASE_URL",
}

# The most of an answer: more than a thousand long vectors as numbers. It is read in pieces, whatever length it states.
MOST_BYTES = 2**27
PIECE_BYTES = 2**20
# Kept of what an endpoint says in an error.
SAID_CHARS = 200


class Refused(Exception):
    """The endpoint has no vector for this input. `said` is as that of EmbedderUnavailable."""

    def __init__(self, reason: str, said: str = "") -> None:
        super().__init__(reason)
        self.said = said


class Broken(EmbedderUnavailable):
    """The endpoint answers 500: an outage, or an input that it fails over, as llama.cpp does over one that is too long
    and Ollama over one whose vector is NaN. Only a request with other input tells which."""


def in_full(error: Refused | EmbedderUnavailable) -> str:
    return f"{error}: {error.said}" if error.said else str(error)


class Endpoint:
    """POSTs to one URL, from any number of threads at once."""

    def __init__(self, base_url: str, path: str, key: str, timeout: float) -> None:
        """Connects to nothing yet. settings.check_openai says what address and key can be."""
        parts = urlsplit(base_url)
        self.host, self.port = parts.hostname or "", parts.port
        self.path = f"{parts.path.rstrip('/')}/{path}"
        self.name = f"{parts.scheme}://{parts.netloc}{self.path}"
        self.timeout = timeout
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._key = key
        self._idle: deque[http.client.HTTPConnection] = deque()  # as many as threads have used at once
        weakref.finalize(self, close_all, self._idle)

    def __str__(self) -> str:
        return self.name

    def post(self, question: Mapping[str, Any]) -> bytes:
        """The body of the answer. Raises Refused, Broken, and EmbedderUnavailable for everything else that is no
        success."""
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        status, retry_after, answer = self._exchange(json.dumps(question).encode(), headers)
        if status == 200:
            return answer
        if status in REFUSED_INPUT:
            raise Refused(f"HTTP {status}", self.reason(answer))
        kind = Broken if status == 500 else EmbedderUnavailable
        reason = f"{self} answers HTTP {status}"
        if status in WHAT_TO_DO:  # what is said of a key may hold parts of it
            raise kind(f"{reason}: {WHAT_TO_DO[status]}", seconds(retry_after))
        raise kind(reason, seconds(retry_after), self.reason(answer))

    def _exchange(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, str | None, bytes]:
        connection = self._kept()
        kept = connection is not None
        if connection is None:
            connection = self._connect()
        try:
            if kept:
                connection.sock.settimeout(self.timeout)
            connection.request("POST", self.path, body=body, headers=dict(headers))
            response = connection.getresponse()
            answer = read_all(response)
        except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a chunk of negative size
            connection.close()
            if kept and isinstance(error, CLOSED):  # by the server while it was not used
                return self._exchange(body, headers)
            said = self.shown(str(error) or type(error).__name__)
            if not isinstance(error, OSError) and isinstance(error, http.client.BadStatusLine | ValueError):
                # It quotes what came, such as a wrong first line.
                raise EmbedderUnavailable(f"{self} cannot be reached: {type(error).__name__}", said=said) from None
            raise EmbedderUnavailable(f"{self} cannot be reached: {said}") from None
        if response.will_close:
            connection.close()
        else:
            self._idle.append(connection)
        return response.status, response.getheader("Retry-After"), answer

    def _kept(self) -> http.client.HTTPConnection | None:
        """A connection that was used before, or None. One on which something has come meanwhile is closed: its end, or
        an answer that nobody has asked for and that would be taken for the next one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            if not has_come(connection.sock):
                return connection
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        connection = (
            http.client.HTTPConnection(self.host, self.port, timeout=self.timeout)
            if self._tls is None
            else http.client.HTTPSConnection(self.host, self.port, timeout=self.timeout, context=self._tls)
        )
        connection.response_class = Response
        return connection

    def reason(self, answer: bytes) -> str:
        """What an answer says went wrong, in one line."""
        text = answer.decode(errors="replace")
        try:
            said = json.loads(text)
            error = said.get("error", said)
            text = str(error.get("message") or error) if isinstance(error, dict) else str(error)
        except (ValueError, AttributeError, RecursionError):
            pass
        return self.shown(text)

    def shown(self, text: str) -> str:
        """What the endpoint has said, or a quotation of it: one short line, without the key."""
        text = " ".join(text.split())
        if self._key:
            text = text.replace(self._key, "***")
        return text[:SAID_CHARS] or "no reason given"


class Response(http.client.HTTPResponse):
    """An answer that has to be complete within the time-out. A socket would grant the time-out to each piece anew."""

    def __init__(self, sock: socket.socket, *more: Any, **named: Any) -> None:
        super().__init__(sock, *more, **named)
        self.fp = io.BufferedReader(Until(self.fp.detach(), sock))

    def begin(self) -> None:
        """Reads up to the body of the answer. http.client takes a 103, which a proxy may send before it, for the
        answer, and then each answer for that to the question after."""
        super().begin()
        while 100 <= self.status < 200:
            self.headers = self.msg = None  # type: ignore[assignment]  # so that it begins again
            super().begin()


class Until(io.RawIOBase):
    """What a socket brings before its time-out is over, counted from now."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self.raw = raw
        self.sock = sock
        self.until = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.sock.settimeout(left)
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


def has_come(sock: socket.socket) -> bool:
    """Whether anything waits to be read. With TLS, what has come with the answer before is decrypted already."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    waiting = select.poll()
    waiting.register(sock, select.POLLIN)
    return bool(waiting.poll(0))


def read_all(response: http.client.HTTPResponse) -> bytes:
    """The body of an answer. Raises what http.client raises, and HTTPException if the body is too large."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.read(PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_BYTES:
            raise http.client.HTTPException(f"an answer of more than {MOST_BYTES >> 20} MB")
    if response.length:
        raise http.client.IncompleteRead(b"".join(pieces), response.length)
    return b"".join(pieces)


def close_all(connections: deque[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def seconds(retry_after: str | None) -> float | None:
    """The value of a Retry-After header: seconds, or a date."""
    if retry_after is None:
        return None
    try:
        if retry_after.strip().isdecimal():
            return float(retry_after)
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None

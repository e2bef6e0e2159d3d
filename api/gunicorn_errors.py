"""What gunicorn itself answers to a request that it cannot read: a problem document like all others, not HTML."""

import json
import socket

from gunicorn import util

REQUEST_LINE = "Invalid Request Line "  # gunicorn's words; the bytes that came follow, as Latin-1
UNREADABLE = "the request line cannot be read: percent-encode the path and query as UTF-8"


def write_problem(client: socket.socket, status: int, reason: str, message: str) -> None:
    """Stands in for gunicorn.util.write_error (gunicorn.conf.py); the connection is closed after it."""
    detail = UNREADABLE if message.startswith(REQUEST_LINE) else message or "the server could not read this request"
    document = {"type": "about:blank", "title": reason, "status": status, "detail": detail}
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(client, head.encode("latin-1") + body)

"""The server of the Kafka UI, run by the Python of `.local/kafka-ui` in the folder that has kafka.ini.

`HOST PORT` serves; `session` becomes kaskade for one open page. Nothing else of the project is imported here.
"""

import ctypes
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

_PR_SET_PDEATHSIG = 1

# The page would ask another host for a font that the package itself has.
_FONT_FROM_OUTSIDE = re.compile(r'<link[^>]*href="https://fonts\.googleapis\.com[^>]*>', re.DOTALL)
_FONT_FROM_HERE = (
    "<style>@font-face { font-family: 'Roboto Mono'; "
    "src: url('/static/fonts/RobotoMono-VariableFont_wght.ttf'); }</style>"
)


def session() -> None:
    """Becomes kaskade, which dies with the server: left alone, it would spin at the end of its input."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    kaskade = str(Path(sys.executable).with_name("kaskade"))
    os.execv(sys.executable, [sys.executable, kaskade, "admin", "--config-file", "kafka.ini"])


def serve(host: str, port: int) -> None:
    from aiohttp import web  # type: ignore[import-not-found,unused-ignore]
    from textual_serve.server import Server  # type: ignore[import-not-found,unused-ignore]

    class KafkaUi(Server):  # type: ignore[misc,unused-ignore]
        """textual-serve's server, under any host name, but only for its own page."""

        async def handle_index(self, request: web.Request) -> web.StreamResponse:
            self.public_url = f"{request.scheme}://{request.host}"
            response = await super().handle_index(request)
            response.text = _FONT_FROM_OUTSIDE.sub(_FONT_FROM_HERE, response.text)
            return response

        async def handle_websocket(self, request: web.Request) -> web.StreamResponse:
            # A page of another site can open a socket to this host; it must not get a console of Kafka.
            origin = request.headers.get("Origin")
            if origin is not None and urlsplit(origin).netloc != request.host:
                raise web.HTTPForbidden(text="This page belongs to another site.")
            return await super().handle_websocket(request)

    # "exec": no shell stays between the server and the session.
    command = "exec " + shlex.join([sys.executable, str(Path(__file__).resolve()), "session"])
    KafkaUi(command, host=host, port=port, title="Kafka UI").serve()


if __name__ == "__main__":
    if sys.argv[1:] == ["session"]:
        session()
    else:
        serve(sys.argv[1], int(sys.argv[2]))

"""What Flower takes where nothing else is said: `celery -A tasks.app flower` reads this file from the checkout.

Its own defaults are an open port on every address. Options of the command line win; see
https://flower.readthedocs.io/en/latest/config.html.
"""

import errno
import os
import socket
import sys

import settings

_settings = settings.load()

address = _settings.bind_host
port = _settings.flower_port
basic_auth = [pair for pair in _settings.flower_basic_auth.split(",") if pair]

if not any(argument.startswith(("--port", "--address", "--unix")) for argument in sys.argv):
    try:
        socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
    except OSError as _error:  # Flower would say it in a traceback, and not which port
        if _error.errno == errno.EADDRINUSE:
            sys.exit(f"flower: port {port} is taken: stop what listens there, or set FLOWER_PORT to another port")
        _why = os.strerror(_error.errno or 0)
        sys.exit(f"flower: {address}:{port} cannot be used ({_why}): check BIND_HOST and FLOWER_PORT")

"""What Flower takes where nothing else is said: `celery -A tasks.app flower` reads this file from the checkout.

Its own defaults are an open port on every address. Options of the command line win; see
https://flower.readthedocs.io/en/latest/config.html.
"""

import settings

_settings = settings.load()

address = _settings.bind_host
port = _settings.flower_port
basic_auth = [pair for pair in _settings.flower_basic_auth.split(",") if pair]

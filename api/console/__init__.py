"""The web console at / of the search API: what flows, what waits and what failed, and buttons for what can be done.

Rendered here (Jinja), kept up to date by htmx, charts by uPlot; both are in static/vendor, and nothing is built. The
pages read; what a button does is a task (tasks/actions.py), because the APIs' database role cannot write.
"""

from flask import Flask

from api.console import views
from api.observed import Observed
from api.parts import Parts
from api.pipeline_numbers import PipelineNumbers


def register(app: Flask, parts: Parts) -> None:
    """The console's pages, and the numbers of the whole pipeline at /metrics: both come from what is observed."""
    observed = Observed(parts.settings, parts.reader)
    parts.metrics.show_too(PipelineNumbers(observed))
    app.register_blueprint(views.blueprint(parts, observed))

"""`python -m tasks.celery -A tasks.app worker -Q persist`: Celery's own commands `worker` and `beat`, and no other.

`celery -A tasks.app worker` does the same, but loads with it whatever is plugged into that command: Flower, and an
interactive shell. That is a fifth of the time that a worker takes to start, and 16 MB of each, for nothing.
"""

import sys

import click
from celery.bin.base import CLIContext
from celery.bin.beat import beat
from celery.bin.worker import worker

import settings
import streams
from tasks import celery_logs
from tasks.app import app


@click.group()
@click.option("-A", "--app", "_name", required=True, type=click.Choice(["tasks.app"]), help="As Celery's own has it.")
@click.pass_context
def celery(context: click.Context, _name: str) -> None:
    """Starts a worker of the pipeline, or its clock."""
    context.obj = CLIContext(app=app, no_color=False, workdir=None, quiet=False)
    celery_logs.go_by_settings(context)


celery.add_command(worker)
celery.add_command(beat)

if __name__ == "__main__":
    try:
        celery(auto_envvar_prefix="CELERY")
    except settings.InvalidSetting as error:
        print(f"celery: {error}", file=sys.stderr)
        sys.exit(streams.WRONG_USAGE)

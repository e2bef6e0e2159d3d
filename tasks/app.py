"""The Celery application: `celery -A tasks.app worker -Q persist`. All its settings are in celeryconfig.py."""

from celery import Celery

app = Celery("text-pipeline")
app.config_from_object("celeryconfig")

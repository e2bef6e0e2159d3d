"""How much text one task takes: of many long texts it reads a part, and the rest goes to tasks of their own, so that
neither a task's memory nor its time depends on how long they are, and all workers share them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import settings
from db import embeddings
from db.outbox import Job
from portions import portions
from tasks import resources


class TaskTexts(NamedTuple):
    """The texts of messages, by id, and the sizes in bytes of those that are too much for the task."""

    texts: Mapping[str, str]
    later: Mapping[str, int]


def current_texts(claimed: Sequence[Job], handed: dict[str, str]) -> TaskTexts:
    """The texts of the jobs' messages: those that came along, and as many others as a task may read."""
    wanted = list(dict.fromkeys(message_id for job in claimed if not job.deleted for message_id in job.message_ids))
    missing = [message_id for message_id in wanted if message_id not in handed]
    if not missing and len(wanted) == len(handed):
        return TaskTexts(handed, {})
    found = {message_id: handed[message_id] for message_id in wanted if message_id in handed}
    if not missing:
        return TaskTexts(found, {})
    with resources.engine().begin() as connection:
        read, later = embeddings.texts(connection, missing, most_bytes=settings.load().embed_task_bytes)
    return TaskTexts(found | read, later)


def divided(claimed: Sequence[Job], later: Mapping[str, int]) -> tuple[Sequence[Job], list[Job]]:
    """The jobs that the task gets to, and those whose messages are all left for later."""
    if not later:
        return claimed, []
    untried = {job.id for job in claimed if job.message_ids and later.keys() >= set(job.message_ids)}
    return [job for job in claimed if job.id not in untried], [job for job in claimed if job.id in untried]


def grouped_by_bytes(jobs: Sequence[Job], later: Mapping[str, int]) -> list[list[Job]]:
    """Groups jobs so that a task can read all texts of a group."""
    sizes = [sum(later[message_id] for message_id in job.message_ids) for job in jobs]
    return [list(jobs[portion]) for portion in portions((sizes, settings.load().embed_task_bytes))]

"""The names of the queues and of the tasks, for the packages that send, do or count them and do not import each other.

tasks.MODULES maps each task to its module.
"""

# Each has workers of its own (celeryconfig.py).
QUEUES = ("persist", "embed")

PERSIST_TEXT = "tasks.persist_text"
RECORD_DEAD_LETTERS = "tasks.record_dead_letters"
EMBED_TEXT = "tasks.embed_text"
SWEEP = "tasks.sweep"
TEND_INDEX = "tasks.tend_index"
REPLAY_DEAD_LETTERS = "tasks.replay_dead_letters"
DROP_DEAD_LETTERS = "tasks.drop_dead_letters"
RETRY_FAILURES = "tasks.retry_failures"

ALL = (
    PERSIST_TEXT,
    RECORD_DEAD_LETTERS,
    EMBED_TEXT,
    SWEEP,
    TEND_INDEX,
    REPLAY_DEAD_LETTERS,
    DROP_DEAD_LETTERS,
    RETRY_FAILURES,
)

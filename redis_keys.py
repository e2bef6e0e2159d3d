"""The names of what lies in Redis, for the packages that meet there and do not import each other.

Names only, made with the standard library: nothing connects here. What lies under a name stands where it is written.
"""

# What the processes have counted, and which of them are up (telemetry/numbers_store.py).
TOTALS = "text-pipeline:numbers"
HISTORY = "text-pipeline:history"
PROCESSES = "text-pipeline:processes"
# The database whose workers take the tasks here (tasks/installation.py).
DATABASE = "text-pipeline:database"

# What PostgreSQL says to a worker for which it stores nothing: it may well answer all who only read (tasks/outages.py).
REFUSED = "text-pipeline:refused"
REFUSED_SECONDS = 10  # then it is gone; a worker tries again after two, and may wait five for a lock

# Written by the APIs to learn whether Redis takes what it is told: a replica, one that is full and one that cannot save
# its data answer a PING all the same.
HEALTH = "text-pipeline:health"
HEALTH_SECONDS = 60  # then it is gone

# Fields of the hash at `steering_key` (bridge/steering.py): the name of the pause by which the intake is held, empty
# once it was resumed; and where to read on from, in JSON.
PAUSED = "paused"
REWIND = "rewind"

# Celery's priorities, most urgent first; kombu keeps a list of its own for each.
PRIORITIES = (0, 3, 6, 9)


def task_list(queue: str, priority: int = 0) -> str:
    """The list in which the tasks of a queue wait that have this priority."""
    return f"{queue}\x06\x16{priority}" if priority else queue


def task_lists(queue: str) -> list[str]:
    """All lists in which the tasks of a queue wait."""
    return [task_list(queue, priority) for priority in PRIORITIES]


def steering_key(group: str) -> str:
    """The hash with what an operator asks of the bridges of a consumer group, and their answers."""
    return f"steering:{group}"


def answer_field(request: str, partition: int) -> str:
    """Where in that hash a bridge says that it reads this partition from the wished place."""
    return f"rewound:{request}:{partition}"


def rest_field(partition: int) -> str:
    """Where a bridge says, by the name of the pause, that all it took of this partition is done and committed."""
    return f"at rest:{partition}"


def process_member(part: str, host: str, pid: int) -> str:
    """The member of PROCESSES for a process; `process_of` is the way back."""
    return f"{part}\t{host}\t{pid}"


def process_of(member: str) -> tuple[str, str, int]:
    part, host, pid = member.split("\t")
    return part, host, int(pid)

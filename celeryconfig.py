"""Celery's settings: queues, routes and reliability. What is changed in Celery itself stands in tasks/transport.py,
tasks/app.py, tasks/celery_logs.py and the classes named below; the workers' options in stack/pipeline.py.

Nothing here has to be trusted with a record: Redis may lose everything. What makes the pipeline safe lies outside, the
bridge's leases (bridge/hand_over.py) for `persist` and the outbox table for `embed`; both tasks may run twice without
harm.
"""

from kombu import Exchange, Queue

import settings
import task_names
from tasks import MODULES
from tasks.transport import UTF_8

_settings = settings.load()

# Queues: one for each kind of work, each with workers of its own. Celery publishes to a direct queue through the
# anonymous exchange, which needs no binding, so they work again at once after a FLUSHALL.
task_queues = [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in task_names.QUEUES]
task_default_queue = "persist"
task_create_missing_queues = False

task_routes = {name: {"queue": "persist"} for name in task_names.ALL} | {task_names.EMBED_TEXT: {"queue": "embed"}}

imports = [*dict.fromkeys(MODULES.values()), "tasks.measured"]

# The clock of the outbox: what was not chained, or was lost on the way, is fed to `embed` within a second. No message
# expires: Celery would compare the sender's clock with the worker's.
beat_scheduler = "tasks.clock:Clock"
beat_schedule = {
    "sweep": {"task": task_names.SWEEP, "schedule": 1.0},
    "tend_index": {"task": task_names.TEND_INDEX, "schedule": 1.0},
}

# Workers: one process unless told otherwise (-c), because on one machine more of them share the same cores; a task is
# acknowledged when it is done, and only one more is fetched in advance.
worker_concurrency = 1
worker_prefetch_multiplier = 1
task_acks_late = True
# A task whose worker was killed is not put back by Celery, or one that kills its worker would come back for ever: the
# lease brings it back, and counts.
task_reject_on_worker_lost = False
worker_soft_shutdown_timeout = 8.0  # of a pool with children; a worker that works itself has none (tasks.consumer)
worker_cancel_long_running_tasks_on_connection_loss = True
worker_send_task_events = True
worker_hijack_root_logger = True
worker_consumer = "tasks.consumer:Consumer"

# Broker and results. Every wait has an end, and a lost connection is tried again for ever. Each connection that has
# gone silent costs its user a time-out, one after the other; no request to Redis takes longer than a second.
broker_url = _settings.redis_address
result_backend = f"tasks.results:PolledRedisBackend+{_settings.redis_address}"
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_channel_error_retry = True  # a Redis that refuses, such as a replica after a failover, is an outage too
# Redis keeps no copy of the messages in a worker's hand: leases bring back what a killed worker had, and sooner. A copy
# would cost each task two more round trips, and send each text through Redis a third time.
broker_transport_options = {
    "ack_emulation": False,
    "body_encoding": UTF_8,
    "socket_timeout": 4,
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
redis_socket_timeout = 4
redis_socket_connect_timeout = 5
redis_socket_keepalive = True
redis_backend_health_check_interval = 5
result_expires = 600
task_publish_retry = False

task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
timezone = "UTC"

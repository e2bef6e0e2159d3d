"""The bridge: records from Kafka become Celery tasks, and an offset is committed only when its record's effect is
durable."""

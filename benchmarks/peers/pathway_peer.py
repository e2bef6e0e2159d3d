"""The pipeline in Pathway: Kafka, an embedding UDF, PostgreSQL with pgvector, the way its documentation shows.

Runs in an environment of its own. The id is the primary key, so that a record with the id of an earlier one is an edit;
persistence on the file system and a snapshot table keyed by id give the effect of exactly once.
"""

import os

import numpy as np
import pathway as pw  # type: ignore[import-not-found]

import settings as configuration
from embedder import load_provider

ENV = os.environ
embedder = load_provider(configuration.load())


class Document(pw.Schema):  # type: ignore[misc]
    key: str = pw.column_definition(primary_key=True)  # "id" is Pathway's own name for a row's key
    text: str


@pw.udf(deterministic=True, max_batch_size=1024)
def embed(texts: list[str]) -> list[np.ndarray]:
    return list(embedder.embed(texts))


documents = pw.io.kafka.read(
    {
        "bootstrap.servers": ENV["BENCH_KAFKA"],
        "group.id": ENV["BENCH_GROUP"],
        "auto.offset.reset": "earliest",
        "session.timeout.ms": "6000",
    },
    topic=ENV["BENCH_TOPIC"],
    format="json",
    schema=Document,
    json_field_paths={"key": "/id"},
    autocommit_duration_ms=int(ENV["BENCH_AUTOCOMMIT_MS"]),
    max_backlog_size=int(ENV["BENCH_BACKLOG"]) or None,
    name="documents",
)
rows = documents.select(key=pw.this.key, message=pw.this.text, embedding=embed(pw.this.text))
pw.io.postgres.write(
    rows,
    {
        "host": ENV["BENCH_DATABASE_HOST"],
        "port": ENV["BENCH_DATABASE_PORT"],
        "dbname": ENV["BENCH_DATABASE_NAME"],
        "user": ENV["BENCH_DATABASE_USER"],
        "password": ENV["BENCH_DATABASE_PASSWORD"],
    },
    "documents",
    output_table_type="snapshot",
    primary_key=[rows.key],
    name="rows",
)
pw.run(
    monitoring_level=pw.MonitoringLevel.NONE,
    persistence_config=pw.persistence.Config(pw.persistence.Backend.filesystem(ENV["BENCH_STATE"])),
)

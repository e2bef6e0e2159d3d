"""The script that a user would write: read, embed, insert or update, commit. Runs in an environment of its own."""

import json
import os

import psycopg2
from kafka import KafkaConsumer
from psycopg2.extras import execute_values

import settings as configuration
from embedder import load_provider

ENV = os.environ
embedder = load_provider(configuration.load())
consumer = KafkaConsumer(
    ENV["BENCH_TOPIC"],
    bootstrap_servers=ENV["BENCH_KAFKA"],
    group_id=ENV["BENCH_GROUP"],
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    value_deserializer=json.loads,
)
database = psycopg2.connect(
    host=ENV["BENCH_DATABASE_HOST"],
    port=ENV["BENCH_DATABASE_PORT"],
    dbname=ENV["BENCH_DATABASE_NAME"],
    user=ENV["BENCH_DATABASE_USER"],
    password=ENV["BENCH_DATABASE_PASSWORD"],
)
while True:
    polled = consumer.poll(timeout_ms=2000)  # it returns as soon as there are records
    values = {record.value["id"]: record.value["text"] for records in polled.values() for record in records}
    if values:
        vectors = embedder.embed(list(values.values()))
        rows = [(key, text, str(vector.tolist())) for (key, text), vector in zip(values.items(), vectors, strict=True)]
        with database, database.cursor() as cursor:
            execute_values(
                cursor,
                """INSERT INTO documents (key, message, embedding) VALUES %s
                   ON CONFLICT (key) DO UPDATE SET message = excluded.message, embedding = excluded.embedding""",
                rows,
            )
        consumer.commit()

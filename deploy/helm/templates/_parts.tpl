{{/* What each part is: its command, the keys of the Secret that it is given, and how its health is asked. `loop` is the
heartbeat of a part without a port. An API is asked for a file that depends on nothing: /health is 503 while Kafka is
away, and neither a restart nor taking it out of the service would help then, since it still serves reads. */}}
{{- define "text-pipeline.parts" -}}
bridge:
  command: [python, -m, bridge]
  secrets: [REDIS_URL]
  optional: [KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD]
persist-worker:
  command:
    [python, -m, tasks.celery, -A, tasks.app, worker, -Q, persist, -n, persist@%h, --pool, solo, --without-mingle, --without-gossip]
  secrets: [REDIS_URL, DATABASE_PASSWORD]
  optional: [KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD]
embed-worker:
  command:
    [python, -m, tasks.celery, -A, tasks.app, worker, -Q, embed, -n, embed@%h, --pool, solo, --without-mingle, --without-gossip]
  secrets: [REDIS_URL, DATABASE_PASSWORD]
  optional: [OPENAI_API_KEY]
beat:
  command: [python, -m, tasks.celery, -A, tasks.app, beat, --pidfile=]
  secrets: [REDIS_URL]
  strategy: Recreate
text-writer-service:
  command: [gunicorn, --bind, "0.0.0.0:5001", --workers, "1", "api.wsgi:text_api"]
  secrets: [REDIS_URL, DATABASE_READER_PASSWORD]
  optional: [KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, API_KEYS]
  port: 5001
  path: /static/icon.svg
embedding-service:
  command: [gunicorn, --bind, "0.0.0.0:5003", --workers, "1", "api.wsgi:search_api"]
  secrets: [REDIS_URL, DATABASE_READER_PASSWORD]
  optional: [KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD, API_KEYS, OPENAI_API_KEY]
  port: 5003
  path: /static/icon.svg
flower:
  # Flower takes an empty variable for a value.
  command:
    - sh
    - -c
    - '[ -n "$FLOWER_BASIC_AUTH" ] || unset FLOWER_BASIC_AUTH; exec celery -A tasks.app flower --address=0.0.0.0 --port=5555'
  secrets: [REDIS_URL]
  optional: [FLOWER_BASIC_AUTH]
  port: 5555
  path: /healthcheck
  strategy: Recreate
migrate:
  command: [sh, -c, "python -m db upgrade && python -m bridge.topics"]
  secrets: [DATABASE_PASSWORD, DATABASE_READER_PASSWORD]
  optional: [KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD]
{{- end }}

"""What the command lines do: `cli.py` (REST), `kafka_cli.py` (Kafka), the end-to-end checks. No part of the system."""

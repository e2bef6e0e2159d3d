"""The Kafka UI: kaskade, a program for the terminal, served to the browser by textual-serve.

It has an environment of its own. What runs in that environment is `kafka_ui_server`.
"""

from pathlib import Path

from settings import Settings
from stack import places, probes
from stack.part import PIPELINE, Part, Port, environment

VENV = places.LOCAL / "kafka-ui"
REQUIREMENTS = Path(__file__).with_name("kafka-ui-requirements.txt")


def kafka_ui(settings: Settings) -> Part:
    port = Port("KAFKA_UI_PORT", settings.bind_host, settings.kafka_ui_port)
    folder = places.data(settings) / "kafka-ui"
    server = Path(__file__).with_name("kafka_ui_server.py")
    return Part(
        name="kafka-ui",
        title="Kafka UI",
        layer=PIPELINE,
        command=[str(VENV / "bin" / "python"), str(server), settings.bind_host, str(settings.kafka_ui_port)],
        environment=environment(settings),
        directory=folder,
        ports=(port,),
        prepare=lambda: _prepare(folder, settings),
        problem=lambda: probes.http_ok(port.reachable_host, port.number, "/"),
        # Each open page is a child process of the server.
        stop_as_group=True,
    )


def _prepare(folder: Path, settings: Settings) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "kafka.ini"
    file.touch(mode=0o600)
    file.write_text(configuration(settings), encoding="utf-8")


def configuration(settings: Settings) -> str:
    """kaskade's configuration, with librdkafka's names for what the other clients use."""
    lines = {
        "bootstrap.servers": ",".join(settings.kafka_servers),
        "security.protocol": settings.kafka_security_protocol,
        "sasl.mechanism": settings.kafka_sasl_mechanism,
        "sasl.username": settings.kafka_sasl_username,
        "sasl.password": settings.kafka_sasl_password,
        "ssl.ca.location": settings.kafka_cafile,
    }
    return "[kafka]\n" + "".join(f"{name}={value}\n" for name, value in lines.items() if value)

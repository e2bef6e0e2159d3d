"""The local Kafka, one node: with KRaft (Kafka 4), or with ZooKeeper (Kafka 3.9) in a data folder of its own.

All paths in the configuration are relative to the working folder, because a properties file gives `\\`, `,` and letters
beyond Latin-1 a meaning of their own.
"""

import base64
import subprocess
import uuid
from pathlib import Path

from settings import Settings
from stack import places, probes
from stack.errors import StackError
from stack.java import java
from stack.part import COORDINATION, SERVICE, Part, Port, environment

# A quick start counts for more on one node than the last per cent of throughput.
_JAVA_OPTIONS = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]
# In Turkish a capital i has a dot, and Kafka does not find its own words.
_LANGUAGE = "-Duser.language=en"
_LOGGING = [
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
    "-Dorg.slf4j.simpleLogger.log.kafka.server=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaConfig=warn",
]


def jars(settings: Settings) -> Path:
    """The folder of the jars for the mode that the settings ask for."""
    return places.LOCAL / ("kafka-3" if settings.kafka_coordination == "zookeeper" else "kafka-4")


def data(settings: Settings) -> Path:
    name = "kafka-zookeeper" if settings.kafka_coordination == "zookeeper" else "kafka"
    return places.data(settings) / name


def kafka(settings: Settings) -> Part:
    ports = [Port("KAFKA_PORT", "127.0.0.1", settings.kafka_port)]
    if settings.kafka_coordination == "kraft":
        ports.append(Port("KAFKA_CONTROLLER_PORT", "127.0.0.1", settings.kafka_controller_port))
    return Part(
        name="kafka",
        title="Kafka",
        layer=SERVICE,
        command=[_program(), "-Xms256m", "-Xmx512m", *_java(settings), "kafka.Kafka", "server.properties"],
        environment=environment(settings),
        directory=data(settings),
        ports=tuple(ports),
        prepare=lambda: _prepare(settings),
        problem=lambda: probes.kafka(settings),
    )


def zookeeper(settings: Settings) -> Part:
    folder = places.data(settings) / "zookeeper"
    main = ["org.apache.zookeeper.server.quorum.QuorumPeerMain", "./zookeeper.cfg"]
    return Part(
        name="zookeeper",
        title="ZooKeeper",
        layer=COORDINATION,
        command=[_program(), "-Xms64m", "-Xmx256m", *_java(settings), *main],
        environment=environment(settings),
        directory=folder,
        ports=(Port("ZOOKEEPER_PORT", "127.0.0.1", settings.zookeeper_port),),
        prepare=lambda: _write(folder / "zookeeper.cfg", zookeeper_configuration(settings)),
        problem=lambda: probes.tcp("127.0.0.1", settings.zookeeper_port),
    )


def _program() -> str:
    """Java; where there is none, only its name. A start looks for it before (check_java), and the shell in which a
    system that runs is scaled need not know of the Java with which it was started."""
    try:
        return java()
    except StackError:
        return "java"


def _java(settings: Settings) -> list[str]:
    return [*_JAVA_OPTIONS, _LANGUAGE, *_LOGGING, "-cp", f"{jars(settings) / 'lib'}/*"]


def _prepare(settings: Settings) -> None:
    folder = data(settings)
    _write(folder / "server.properties", configuration(settings))
    if settings.kafka_coordination == "kraft" and not (folder / "log" / "meta.properties").exists():
        _format(settings)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="ascii")


def _format(settings: Settings) -> None:
    """Writes the cluster's id and metadata into a new data folder, once."""
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    if cluster.startswith("-"):
        cluster = "k" + cluster[1:]  # or the tool takes it for an option
    tool = ["kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", "server.properties"]
    answer = subprocess.run(
        [java(), *_java(settings), *tool, "--ignore-formatted"],
        cwd=data(settings),
        env=environment(settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if answer.returncode != 0:
        lines = (answer.stdout + answer.stderr).strip().splitlines()
        raise StackError(f"Kafka could not make its data folder {data(settings)}", lines[-10:])


def configuration(settings: Settings) -> str:
    """server.properties. Sizes and retention keep Kafka's defaults; topics set their own."""
    listener = f"PLAINTEXT://127.0.0.1:{settings.kafka_port}"
    controller = f"127.0.0.1:{settings.kafka_controller_port}"
    if settings.kafka_coordination == "kraft":
        mode = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{listener},CONTROLLER://{controller}",
            # After a kill -9 the broker's old registration blocks the new one for this long (by default 9 s).
            "broker.session.timeout.ms": "4000",
            "broker.heartbeat.interval.ms": "1000",
            # Else it writes to its own log twice a second that nothing has happened, for brokers elsewhere.
            "metadata.max.idle.interval.ms": "0",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
        }
    else:
        mode = {
            "broker.id": "1",
            "zookeeper.connect": f"127.0.0.1:{settings.zookeeper_port}",
            "zookeeper.session.timeout.ms": "6000",
            "listeners": listener,
        }
    common = {
        "advertised.listeners": listener,
        "log.dirs": "log",
        "num.partitions": "4",
        # One node can keep one copy; few partitions of Kafka's own topics make its first start quick.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "group.initial.rebalance.delay.ms": "0",
    }
    return "".join(f"{name}={value}\n" for name, value in {**mode, **common}.items())


def zookeeper_configuration(settings: Settings) -> str:
    lines = {
        "dataDir": "./data",
        "clientPort": settings.zookeeper_port,
        "clientPortAddress": "127.0.0.1",
        "admin.enableServer": "false",
        "maxClientCnxns": 0,
        "tickTime": 2000,
        "autopurge.purgeInterval": 24,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())

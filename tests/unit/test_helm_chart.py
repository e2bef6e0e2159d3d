"""The Helm chart: valid for Kubernetes and KEDA, secrets by reference, nothing with more rights than it needs."""

import json
import re
import shlex
from dataclasses import fields
from typing import Any

import pytest
import yaml

import celeryconfig
from api.app import create_app
from api.parts import Role
from settings import ROOT, Settings
from tests import chart

pytest.importorskip("helm_python", reason="helm-python-sdk has no package for this machine")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

SECRETS = {
    "DATABASE_PASSWORD",
    "DATABASE_READER_PASSWORD",
    "REDIS_URL",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "OPENAI_API_KEY",
    "API_KEYS",
    "FLOWER_BASIC_AUTH",
}
LOOPS = {"bridge", "persist-worker", "embed-worker", "beat"}
PORTS = {"text-writer-service": 5001, "embedding-service": 5003, "flower": 5555}
SCALED = {"bridge", "persist-worker", "embed-worker"}
# With everything that can be switched on.
FULL: dict[str, Any] = {
    "settings": {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_RETENTION_MS": -1,
    },
    "kafkaCaSecretName": "kafka-ca",
    "imagePullSecrets": [{"name": "pull"}],
    "keda": {"redis": {"username": "scaler", "passwordKey": "REDIS_PASSWORD", "tls": True}},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "nodeSelector": {"disk": "fast"},
    "podAnnotations": {"a": "b"},
}


@pytest.fixture(scope="module")
def plain() -> list[dict[str, Any]]:
    return chart.documents()


@pytest.fixture(scope="module")
def full() -> list[dict[str, Any]]:
    return chart.documents(**FULL)


def named(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind, by the part that they are about."""
    found = [each for each in documents if each["kind"] == kind]
    return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in found}


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    workloads = named(documents, "Deployment") | named(documents, "Job")
    return {part: each["spec"]["template"]["spec"] for part, each in workloads.items()}


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return dict(only)


def environment(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    given = container(pod)["env"]
    assert len({each["name"] for each in given}) == len(given)
    return {each["name"]: each for each in given}


def test_helm_finds_nothing_wrong() -> None:
    found = chart.helm()["lint"]
    assert found["errors"] == []
    assert [each for each in found["messages"] if each["error"] != "icon is recommended"] == []


@pytest.mark.parametrize("version", ["1.28", "1.37"])
@pytest.mark.parametrize("documents", ["plain", "full"])
def test_kubernetes_takes_every_object(version: str, documents: str, request: pytest.FixtureRequest) -> None:
    own = [each for each in request.getfixturevalue(documents) if not each["apiVersion"].startswith("keda.sh/")]
    assert {each["kind"] for each in own} == {"Deployment", "Service", "PodDisruptionBudget", "Job"}
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("documents", ["plain", "full"])
def test_keda_takes_every_object(documents: str, request: pytest.FixtureRequest) -> None:
    models = pytest.importorskip("cloudcoil.models.keda.v1alpha1")
    own = [each for each in request.getfixturevalue(documents) if each["apiVersion"].startswith("keda.sh/")]
    assert {each["kind"] for each in own} == {"ScaledObject", "TriggerAuthentication"}
    for each in own:
        read = getattr(models, each["kind"]).model_validate(each)
        # What the model does not know it leaves out.
        assert json.loads(read.model_dump_json(by_alias=True, exclude_unset=True)) == each


def test_every_part_of_the_compose_file_is_there_and_is_run_by_the_same_command(plain: list[dict[str, Any]]) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    composed = {name: each["command"] for name, each in services.items() if each["image"] == "text-pipeline"}
    assert pods(plain).keys() == composed.keys()
    for part in composed.keys() - {"flower"}:  # which has its state in a volume there
        command = shlex.split(re.sub(r"\$\{\w+:-(\w+)\}", r"\1", composed[part]))
        assert container(pods(plain)[part])["command"] == command


def test_no_secret_is_in_an_object(full: list[dict[str, Any]]) -> None:
    for part, pod in pods(full).items():
        given = environment(pod)
        for name in SECRETS & given.keys():
            assert given[name]["valueFrom"]["secretKeyRef"]["name"] == "text-pipeline", part


def test_each_part_is_given_the_secrets_that_it_needs_and_no_more(plain: list[dict[str, Any]]) -> None:
    given = {part: environment(pod).keys() & SECRETS for part, pod in pods(plain).items()}
    owners = {part for part, names in given.items() if "DATABASE_PASSWORD" in names}
    assert owners == {"persist-worker", "embed-worker", "migrate"}
    readers = {part for part, names in given.items() if "DATABASE_READER_PASSWORD" in names}
    assert readers == {"text-writer-service", "embedding-service", "migrate"}  # migrate sets it
    assert {part for part, names in given.items() if "REDIS_URL" in names} == given.keys() - {"migrate"}
    login = {"KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD"}
    assert given["bridge"] == {"REDIS_URL"} | login
    # The second try of a dead letter is sent by a persist worker, and the sweep asks there for the topic's retention.
    ask_kafka = {"bridge", "persist-worker", "text-writer-service", "embedding-service", "migrate"}
    assert {part for part, names in given.items() if names & login} == ask_kafka
    assert all(names >= login for part, names in given.items() if part in ask_kafka)


def test_what_is_set_is_a_setting(full: list[dict[str, Any]]) -> None:
    names = {field.name.upper() for field in fields(Settings)}
    for pod in pods(full).values():
        assert environment(pod).keys() <= names


def test_numbers_arrive_as_they_were_written() -> None:
    values = {"settings": {"BRIDGE_BATCH_BYTES": 26_214_400, "BRIDGE_LEASE_SECONDS": 2.5, "KAFKA_RETENTION_MS": -1}}
    given = environment(pods(chart.documents(**values))["bridge"])
    assert [given[name]["value"] for name in values["settings"]] == ["26214400", "2.5", "-1"]


def test_on_and_off_arrive_as_they_were_written() -> None:
    """Helm, like this YAML, reads them as booleans; the settings take neither true nor false."""
    values = {"settings": yaml.safe_load("{VECTOR_INDEX: off, KEYWORD_INDEX: on, OTEL_SDK_DISABLED: true}")}
    given = environment(pods(chart.documents(**values))["bridge"])
    assert [given[name]["value"] for name in values["settings"]] == ["off", "on", "true"]


def test_no_pod_has_rights_that_it_does_not_need(full: list[dict[str, Any]]) -> None:
    for pod in pods(full).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(pod)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container(pod)["resources"]["limits"]["memory"]
        assert container(pod)["resources"]["requests"].keys() == {"cpu", "memory"}


def test_health_of_loops_is_their_heartbeat_and_of_servers_an_answer(plain: list[dict[str, Any]]) -> None:
    found = pods(plain)
    for part in LOOPS:
        assert container(found[part])["livenessProbe"]["exec"]["command"] == ["python", "-m", "telemetry.heartbeat"]
        assert environment(found[part])["HEARTBEAT_FILE"]["value"].startswith("/tmp/")
    for part, port in PORTS.items():
        each = container(found[part])
        assert each["ports"] == [{"name": "http", "containerPort": port}]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert each[probe]["httpGet"]["path"] != "/health"  # 503 while Kafka is away: no reason to stop the reads


@pytest.mark.parametrize(("part", "role"), [("text-writer-service", "text"), ("embedding-service", "search")])
def test_what_an_api_is_asked_for_needs_neither_a_key_nor_a_database(
    part: str, role: Role, plain: list[dict[str, Any]]
) -> None:
    closed = Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing", api_keys="alpha")
    path = container(pods(plain)[part])["readinessProbe"]["httpGet"]["path"]
    with create_app(role, closed).test_client().get(path) as answer:
        assert answer.status_code == 200


def test_services_find_their_pods(plain: list[dict[str, Any]]) -> None:
    deployments = named(plain, "Deployment")
    services = named(plain, "Service")
    assert services.keys() == PORTS.keys()
    for part, service in services.items():
        labels = deployments[part]["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()
        assert service["spec"]["ports"][0]["port"] == PORTS[part]


def test_the_migrations_run_before_anything_else(plain: list[dict[str, Any]]) -> None:
    job = named(plain, "Job")["migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    # A hook comes before all other objects, so it must need none of them.
    needed = {volume["name"] for volume in pods(plain)["migrate"]["volumes"] if "configMap" in volume}
    assert needed == set()
    assert "envFrom" not in container(pods(plain)["migrate"])


def test_bridges_scale_by_lag_and_workers_by_what_waits(plain: list[dict[str, Any]]) -> None:
    scaled = named(plain, "ScaledObject")
    assert scaled.keys() == SCALED
    deployments = named(plain, "Deployment")
    for part, each in scaled.items():
        assert each["spec"]["scaleTargetRef"]["name"] == deployments[part]["metadata"]["name"]
        assert "replicas" not in deployments[part]["spec"]  # every `helm upgrade` would set them back
        assert 1 <= each["spec"]["minReplicaCount"] <= each["spec"]["maxReplicaCount"]
    (lag,) = scaled["bridge"]["spec"]["triggers"]
    values = yaml.safe_load((chart.CHART / "values.yaml").read_text())
    assert lag["type"] == "kafka"
    assert lag["metadata"]["topic"] == values["settings"]["KAFKA_TOPIC"]
    assert lag["metadata"]["consumerGroup"] == values["settings"]["KAFKA_GROUP_ID"]
    assert scaled["bridge"]["spec"]["maxReplicaCount"] == values["settings"]["KAFKA_TOPIC_PARTITIONS"]
    lists = [each["spec"]["triggers"][0]["metadata"]["listName"] for part, each in scaled.items() if part != "bridge"]
    assert set(lists) == {queue.name for queue in celeryconfig.task_queues}


def test_the_embed_queue_is_long_enough_to_ask_for_every_worker(plain: list[dict[str, Any]]) -> None:
    """It is bounded: a target above its bound divided by the workers would never start the last of them."""
    spec = named(plain, "ScaledObject")["embed-worker"]["spec"]
    most = yaml.safe_load((chart.CHART / "values.yaml").read_text())["settings"]["EMBED_QUEUE_MAX"]
    assert int(spec["triggers"][0]["metadata"]["listLength"]) * spec["maxReplicaCount"] <= most


def test_what_keda_logs_in_with_is_a_reference(full: list[dict[str, Any]]) -> None:
    logins = named(full, "TriggerAuthentication")
    assert logins.keys() == {"kafka", "postgres", "redis"}
    kafka = {each["parameter"]: (each["name"], each["key"]) for each in logins["kafka"]["spec"]["secretTargetRef"]}
    assert kafka == {
        "username": ("text-pipeline", "KAFKA_SASL_USERNAME"),
        "password": ("text-pipeline", "KAFKA_SASL_PASSWORD"),
        "ca": ("kafka-ca", "ca.crt"),
    }
    triggers = named(full, "ScaledObject")["bridge"]["spec"]["triggers"]
    assert triggers[0]["authenticationRef"]["name"] == logins["kafka"]["metadata"]["name"]
    assert (triggers[0]["metadata"]["sasl"], triggers[0]["metadata"]["tls"]) == ("scram_sha512", "enable")


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("server:9092", "server.prod:9092"),
        ("server.data:9092", "server.data:9092"),
        ("10.0.0.1:9092", "10.0.0.1:9092"),
        ("[fd00::1]:9092", "[fd00::1]:9092"),
    ],
)
def test_keda_asks_from_another_namespace_and_is_given_whole_names(given: str, asked: str) -> None:
    two = f"{given}, {given}"
    documents = chart.documents(
        settings={"KAFKA_BOOTSTRAP_SERVERS": two, "DATABASE_HOST": given.removesuffix(":9092")},
        keda={"redis": {"address": given}},
    )
    triggers = [trigger for each in named(documents, "ScaledObject").values() for trigger in each["spec"]["triggers"]]
    told = {trigger["type"]: trigger["metadata"] for trigger in triggers}
    assert told["kafka"]["bootstrapServers"] == f"{asked}, {asked}"
    assert told["redis"]["address"] == asked
    assert told["postgresql"]["host"] == asked.removesuffix(":9092")
    # The parts themselves are told what was written.
    assert environment(pods(documents)["bridge"])["KAFKA_BOOTSTRAP_SERVERS"]["value"] == two


def test_keda_has_the_password_of_redis_as_a_key(plain: list[dict[str, Any]], full: list[dict[str, Any]]) -> None:
    """The documented one, where the documented REDIS_URL has a password."""
    page = (ROOT / "docs/containers.md").read_text()
    (key,) = re.findall(r"--set keda\.redis\.passwordKey=(\w+)", page)
    assert f"--from-literal={key}=" in page
    login = named(full, "TriggerAuthentication")["redis"]
    assert login["spec"]["secretTargetRef"] == [{"parameter": "password", "name": "text-pipeline", "key": key}]
    for documents, expected, user in ((plain, None, None), (full, {"name": login["metadata"]["name"]}, "scaler")):
        triggers = [
            trigger
            for each in named(documents, "ScaledObject").values()
            for trigger in each["spec"]["triggers"]
            if trigger["type"] == "redis"
        ]
        assert [trigger.get("authenticationRef") for trigger in triggers] == [expected, expected]
        assert [trigger["metadata"].get("username") for trigger in triggers] == [user, user]


def test_an_image_is_of_a_tag_or_of_a_digest_and_its_label_is_one_that_kubernetes_takes() -> None:
    digest = f"sha256:{'0123abcd' * 8}"
    for tag, given, image in (("", digest, f"0.1.0@{digest}"), ("x" * 62 + "." * 66, "", "x" * 62 + "." * 66)):
        documents = chart.documents(image={"tag": tag, "digest": given})
        assert container(pods(documents)["bridge"])["image"] == f"text-pipeline:{image}"
        for each in documents:
            label = each["metadata"]["labels"]["app.kubernetes.io/version"]
            assert re.fullmatch("[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", label)


def test_without_keda_the_replicas_are_those_of_the_values() -> None:
    values = {"keda": {"enabled": False}, "parts": {"bridge": {"replicas": 3}}}
    documents = chart.documents(**values)
    assert not [each for each in documents if each["apiVersion"].startswith("keda.sh/")]
    assert named(documents, "Deployment")["bridge"]["spec"]["replicas"] == 3


@pytest.mark.parametrize(
    "values",
    [
        {"secretname": "a"},
        {"settings": {"DATABASE_PASSWORD": "in the open"}},
        {"parts": {"bridges": {"replicas": 1, "resources": {}}}},
        {"keda": {"bridge": {"max": 0}}},
        {"image": {"tag": f"0.1.0@sha256:{'0' * 64}"}},
        {"image": {"digest": "0.1.0"}},
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(chart.Refused):
        chart.helm(**values)

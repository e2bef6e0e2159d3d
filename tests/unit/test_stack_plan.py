"""Which parts a system has, by its settings, and how each is run."""

import pytest

from settings import ROOT, Settings
from stack import kafka, local_part, parts, places, plan
from stack.demo import QUERY, TEXT
from stack.kafka_ui import configuration as kafka_ui_configuration
from stack.part import Port
from stack.report import rows
from stack.valkey import configuration as valkey_configuration


@pytest.fixture(autouse=True)
def _some_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "java", lambda: "/usr/bin/java")


def names(settings: Settings) -> list[str]:
    return [part.name for part in parts(settings)]


def test_the_parts_of_a_system() -> None:
    assert names(Settings()) == [
        *("kafka", "postgres", "valkey", "bridge", "persist-worker", "embed-worker", "beat", "text-api", "search-api"),
        *("flower", "kafka-ui"),
    ]


def test_zookeeper_is_a_part_only_in_its_mode_and_the_modes_share_no_data() -> None:
    zookeeper = Settings(kafka_coordination="zookeeper")
    assert names(zookeeper)[:2] == ["zookeeper", "kafka"]
    assert kafka.data(zookeeper) != kafka.data(Settings())
    assert kafka.jars(zookeeper) != kafka.jars(Settings())
    assert "controller.quorum" not in kafka.configuration(zookeeper)
    assert "zookeeper.connect=127.0.0.1:42181\n" in kafka.configuration(zookeeper)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (Settings(kafka_bootstrap_servers="kafka.example:9092"), "kafka"),
        (Settings(kafka_bootstrap_servers="kafka.example:9092", kafka_coordination="zookeeper"), "kafka"),
        (Settings(database_host="db.example"), "postgres"),
        (Settings(redis_url="redis://redis.example/0"), "valkey"),
    ],
)
def test_a_server_that_a_variable_names_is_used_and_none_is_started(settings: Settings, name: str) -> None:
    assert name not in names(settings)
    assert "zookeeper" not in names(settings)
    assert [server.name for server in plan.existing(settings)] == [name]


def test_a_password_in_redis_url_is_not_shown() -> None:
    (server,) = plan.existing(Settings(redis_url="redis://:secret@redis.example/0"))
    assert "secret" not in server.address


def test_kafka_speaks_english_under_a_turkish_locale_too() -> None:
    """There "classic" in capitals is another word, and Kafka ends for not knowing it."""
    for part in parts(Settings(kafka_coordination="zookeeper"))[:2]:
        assert "-Duser.language=en" in part.command


def test_every_part_can_be_had_by_its_name() -> None:
    for part in parts(Settings(kafka_coordination="zookeeper")):
        assert local_part(Settings(kafka_coordination="zookeeper"), part.name).command == part.command
    with pytest.raises(KeyError):
        local_part(Settings(), "no-such-part")


def test_servers_without_a_login_listen_on_this_machine_only_and_pages_where_bind_host_says() -> None:
    ports = {part.name: {port.host for port in part.ports} for part in parts(Settings(bind_host="0.0.0.0"))}
    assert {name for name, hosts in ports.items() if hosts == {"0.0.0.0"}} == {
        *("text-api", "search-api", "flower", "kafka-ui"),
    }
    assert ports["kafka"] == ports["postgres"] == ports["valkey"] == {"127.0.0.1"}


def test_an_address_that_means_all_is_reached_on_this_machine() -> None:
    assert [Port("X", host, 1).reachable_host for host in ("0.0.0.0", "::", "192.0.2.1")] == [
        *("127.0.0.1", "::1", "192.0.2.1"),
    ]


def test_the_workers_take_their_queues_with_as_many_processes_as_the_settings_say() -> None:
    found = {part.name: " ".join(part.command) for part in parts(Settings(persist_workers=2, embed_workers=3))}
    assert sorted(name for name in found if "worker" in name) == [
        *("embed-worker", "embed-worker-2", "embed-worker-3", "persist-worker", "persist-worker-2"),
    ]
    assert "-A tasks.app worker -Q persist -n persist@%h --pool solo" in found["persist-worker"]
    assert "-A tasks.app worker -Q embed -n embed@%h.3 --pool solo" in found["embed-worker-3"]


def test_a_worker_is_one_process_for_the_supervisor_and_all_of_its_queue_by_itself() -> None:
    settings = Settings(embed_workers=3)
    assert local_part(settings, "embed-worker").command[-6:-4] == ["-c", "3"]
    assert "solo" in plan.supervised_part(settings, "embed-worker").command
    # one that was added while the system runs, whose settings know nothing of it
    assert "embed@%h.9" in plan.supervised_part(settings, "embed-worker-9").command
    for name in ("embed-worker-0", "embed-worker-1", "embed-worker-x", "index-worker-2"):
        with pytest.raises(KeyError):
            plan.supervised_part(settings, name)


def test_where_a_queue_follows_its_backlog_there_is_a_part_for_that_and_its_bounds_hold() -> None:
    assert "autoscale" not in names(Settings())
    found = names(Settings(embed_autoscale="2,4", persist_workers=9, persist_autoscale="1, 3"))
    assert "autoscale" in found
    assert [name for name in found if "worker" in name] == [
        *("persist-worker", "persist-worker-2", "persist-worker-3", "embed-worker", "embed-worker-2"),
    ]


def test_configuration_files_name_no_folder_because_those_formats_give_letters_a_meaning() -> None:
    odd = Settings(data_dir="/srv/a,b\\c ü")
    for text in (kafka.configuration(odd), kafka.zookeeper_configuration(odd), valkey_configuration(odd)):
        assert "/srv" not in text


def test_the_kafka_ui_logs_in_like_every_other_client() -> None:
    settings = Settings(kafka_sasl_mechanism="PLAIN", kafka_sasl_username="u", kafka_sasl_password="p%;#")
    text = kafka_ui_configuration(settings)
    assert "sasl.password=p%;#\n" in text
    assert "ssl.ca.location" not in text


def test_a_relative_data_dir_counts_from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert places.data(Settings()) == ROOT / ".local" / "data"
    assert places.data(Settings(data_dir="/srv/data")).as_posix() == "/srv/data"


def test_the_table_shows_the_line_for_psql() -> None:
    found = dict(rows(Settings()))
    line = "PGPASSWORD=postgres .local/bin/psql -h localhost -p 5434 -U postgres -d text_messages_db"
    assert found["PostgreSQL"] == line
    found = dict(rows(Settings(database_password="it's mine", database_user="a b")))
    assert found["PostgreSQL"] == ".local/bin/psql -h localhost -p 5434 -U 'a b' -d text_messages_db"
    assert found["Search API"] == "http://localhost:5003/docs"
    assert found["Console"] == "http://localhost:5003/"


def test_the_demo_searches_with_words_that_the_text_does_not_have() -> None:
    text, query = (set(words.lower().replace(",", "").split()) for words in (TEXT, QUERY))
    assert not text & query

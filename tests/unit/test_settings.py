"""The settings: every one is listed in .env.example with its default, and a bad value is answered with its name."""

import re
import ssl
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import certifi
import pytest
import redis
from celery import Celery
from celery.backends.redis import RedisBackend
from kombu.utils.url import parse_url

import settings
from settings import (
    MAY_BE_ZERO_OR_LESS,
    ROOT,
    InvalidSetting,
    Settings,
    from_environment,
    kafka_address,
    misspelt,
    read_env_file,
)

DEFAULTS = Settings()
NAMES = [field.name.upper() for field in fields(Settings)]
NUMBERS = [field.name for field in fields(Settings) if isinstance(getattr(DEFAULTS, field.name), int | float)]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")


def listed() -> dict[str, str]:
    """The settings of .env.example, whether commented out or not, in their order."""
    return dict(re.findall(r"^#?([A-Z][A-Z_]*)=(.*)$", EXAMPLE, re.MULTILINE))


def test_the_example_lists_every_setting_in_the_order_of_the_code() -> None:
    assert list(listed()) == NAMES


def test_the_example_shows_the_defaults() -> None:
    assert from_environment(listed()) == DEFAULTS


def test_the_example_as_it_is_changes_nothing() -> None:
    assert from_environment(read_env_file(ROOT / ".env.example")) == DEFAULTS


def test_the_example_leaves_only_what_is_not_set_by_default_commented_out() -> None:
    commented_out = re.findall(r"^#([A-Z][A-Z_]*)=", EXAMPLE, re.MULTILINE)
    assert commented_out == [name for name in NAMES if getattr(DEFAULTS, name.lower()) == ""]
    assert {"KAFKA_BOOTSTRAP_SERVERS", "DATABASE_HOST", "REDIS_URL"} <= set(commented_out)


def test_the_example_says_what_each_setting_is() -> None:
    lines = EXAMPLE.splitlines()
    for place, line in enumerate(lines):
        if re.match(r"#?[A-Z][A-Z_]*=", line):
            assert lines[place - 1].startswith("# "), f"{line} has no comment"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_value_counts_as_not_set(name: str) -> None:
    assert from_environment({name: ""}) == from_environment({name: "  "}) == DEFAULTS


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["many", "1e", "0x10"])
def test_a_number_that_is_none_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{name.upper()}='{value}': {name.upper()} takes a (whole )?number$"):
        from_environment({name.upper(): value})


@pytest.mark.parametrize("name", [name for name in NUMBERS if name not in MAY_BE_ZERO_OR_LESS])
@pytest.mark.parametrize("value", ["0", "-1"])
def test_a_number_out_of_range_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=name.upper()):
        from_environment({name.upper(): value})


def test_a_million_microseconds_are_taken_as_the_message_says() -> None:
    assert from_environment({"HASHING_MICROSECONDS": "1000000"}).hashing_microseconds == 1_000_000


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TEXT_API_PORT": "65536"}, "TEXT_API_PORT=65536: a port is between 1 and 65535"),
        ({"BRIDGES": "1.5"}, "BRIDGES='1.5': BRIDGES takes a whole number"),
        ({"EMBEDDING_PROVIDER": "minlm"}, "EMBEDDING_PROVIDER='minlm': takes minilm, hashing, openai or fastembed"),
        ({"KAFKA_COORDINATION": "raft"}, "KAFKA_COORDINATION='raft': takes kraft or zookeeper"),
        ({"POST_WAIT_SECONDS": "nan"}, "POST_WAIT_SECONDS"),
        ({"POST_WAIT_SECONDS": "inf"}, "POST_WAIT_SECONDS=inf: takes 86400 at most"),
        ({"EMBED_LEASE_SECONDS": "601"}, "EMBED_LEASE_SECONDS=601: takes 600 at most"),
        ({"POST_WAIT_SECONDS": "1e300"}, "POST_WAIT_SECONDS=1e+300: takes 86400 at most"),
        ({"KAFKA_TOPIC_PARTITIONS": "1000000000000"}, "KAFKA_TOPIC_PARTITIONS=1000000000000: takes 2147483647 at most"),
        ({"KAFKA_REPLICATION_FACTOR": "32768"}, "KAFKA_REPLICATION_FACTOR=32768: takes 32767 at most"),
        ({"KAFKA_RETENTION_MS": "9223372036854775808"}, "KAFKA_RETENTION_MS=9223372036854775808: takes 9223372036854"),
        ({"INDEX_MEMORY_MB": "2097152"}, "INDEX_MEMORY_MB=2097152: takes 2097151 at most"),
        ({"HASHING_MICROSECONDS": "-1"}, "HASHING_MICROSECONDS=-1.0: takes 0 to a million"),
        ({"HASHING_MICROSECONDS": "1000001"}, "HASHING_MICROSECONDS=1000001.0: takes 0 to a million"),
        ({"HASHING_MICROSECONDS": "nan"}, "HASHING_MICROSECONDS"),
        ({"KAFKA_TOPIC": "a b"}, "KAFKA_TOPIC='a b': takes 1 to 236 of a-z A-Z 0-9 . _ -"),
        ({"KAFKA_TOPIC": ".."}, "KAFKA_TOPIC='..'"),
        ({"KAFKA_RETENTION_MS": "0"}, "KAFKA_RETENTION_MS=0: Kafka would drop what was not read yet"),
        ({"KAFKA_TOPIC": "x" * 237}, "KAFKA_TOPIC='xxx"),
        ({"API_KEYS": "good,schl\u00fcssel"}, "API_KEYS: a key has characters that no HTTP header can carry"),
        ({"API_KEYS": " , ,"}, "API_KEYS=' , ,': holds no key, and would let everybody in"),
        *(
            ({"FLOWER_BASIC_AUTH": login}, "FLOWER_BASIC_AUTH: takes USER:PASSWORD in ASCII")
            for login in ("somebody", "admin:se,cret", "admin:schl\u00fcssel")
        ),
        ({"DATABASE_NAME": "x" * 64}, "DATABASE_NAME: PostgreSQL's names have 63 bytes at most"),
        ({"DATABASE_READER_USER": "ü" * 32}, "DATABASE_READER_USER: PostgreSQL's names"),
        (
            {"EMBEDDING_PROVIDER": "openai", "OPENAI_BASE_URL": "localhost:9777/v1"},
            "OPENAI_BASE_URL: takes http(s)://HOST[:PORT]/PATH",
        ),
        *(
            ({"EMBEDDING_PROVIDER": "openai", "OPENAI_BASE_URL": url}, "OPENAI_BASE_URL: takes http(s)://")
            for url in ("http://[::1:8080/v1", "http://model..local/v1", "http://user:secret@localhost:99999/v1")
        ),
        *(
            ({"EMBEDDING_PROVIDER": "openai", **changes}, message)
            for changes, message in (
                ({"OPENAI_BASE_URL": "http://user:secret@localhost/v1"}, "OPENAI_BASE_URL: takes http(s)://"),
                ({"OPENAI_BASE_URL": "http://localhost/v1?key=secret"}, "OPENAI_BASE_URL: takes http(s)://"),
                ({"OPENAI_API_KEY": "schl\u00fcssel"}, "OPENAI_API_KEY: holds characters that a header cannot carry"),
                ({"OPENAI_DIMENSIONS": "many"}, "OPENAI_DIMENSIONS='many': takes a whole number above zero"),
            )
        ),
        (
            {"KAFKA_BOOTSTRAP_SERVERS": "localhost:9092,localhost:abc"},
            "KAFKA_BOOTSTRAP_SERVERS='localhost:9092,localhost:abc': takes HOST:PORT, several with commas between, "
            "an IPv6 address in brackets; 'localhost:abc' is none",
        ),
        ({"KAFKA_BOOTSTRAP_SERVERS": "localhost:99999"}, "KAFKA_BOOTSTRAP_SERVERS='localhost:99999': takes HOST:PORT"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "[::1:9092"}, "KAFKA_BOOTSTRAP_SERVERS='[::1:9092': takes HOST:PORT"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "kafka..local:9092"}, "KAFKA_BOOTSTRAP_SERVERS='kafka..local:9092': takes"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "x" * 64 + ".local"}, "KAFKA_BOOTSTRAP_SERVERS='xxx"),
        ({"REDIS_URL": "redis://redis..local:6379/0"}, "REDIS_URL: takes redis://"),
        ({"REDIS_URL": "unix://["}, "REDIS_URL: takes redis://"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "TLS"},
            "KAFKA_SECURITY_PROTOCOL='TLS': takes PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL",
        ),
        ({"KAFKA_SECURITY_PROTOCOL": "sasl_ssl"}, "KAFKA_SECURITY_PROTOCOL='sasl_ssl': takes"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "KAFKA_SASL_MECHANISM='': takes PLAIN, SCRAM-SHA-256"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_MECHANISM": "SCRAM"},
            "takes PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 where the protocol is SASL_PLAINTEXT",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "/nonexistent/ca.pem"},
            "KAFKA_SSL_CAFILE='/nonexistent/ca.pem': takes a file of certificates (No such file or directory)",
        ),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": "README.md"},
            "KAFKA_SSL_CAFILE='README.md': takes a file of certificates (not PEM)",
        ),
        ({"DATABASE_HOST": "/var/run/postgresql"}, "DATABASE_HOST: takes a name or an address, several with commas"),
        ({"DATABASE_HOST": "postgresql://u:p@db/texts"}, "DATABASE_HOST: takes a name or an address, several with"),
        ({"BIND_HOST": "a..b"}, "BIND_HOST='a..b': takes a name or an address of this machine"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL: takes redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]"),
        ({"REDIS_URL": "redis://localhost:abc"}, "REDIS_URL: takes redis://"),
        ({"REDIS_URL": "rediss://:secret@localhost:99999/0"}, "REDIS_URL: takes redis://"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL='LOUD': takes DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ({"LOG_LEVEL": "10"}, "LOG_LEVEL='10': takes DEBUG, INFO, WARNING, ERROR, CRITICAL"),
    ],
)
def test_what_is_out_of_range_names_its_variable(variables: Mapping[str, str], message: str) -> None:
    with pytest.raises(InvalidSetting, match=re.escape(message)):
        from_environment(variables)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("kafka", ("kafka", 9092)),
        ("kafka:19092", ("kafka", 19092)),
        ("[::1]", ("::1", 9092)),
        ("[::1]:19092", ("::1", 19092)),
        ("fe80::1", ("fe80::1", 9092)),
        ("SSL://kafka:19092", ("kafka", 19092)),
        ("kafka.local.:19092", ("kafka.local.", 19092)),
        ("kafka-bücher.local:19092", ("kafka-bücher.local", 19092)),
    ],
)
def test_a_server_of_kafka_is_read_as_its_client_reads_it(server: str, address: tuple[str, int]) -> None:
    from kafka.cluster import collect_hosts

    assert kafka_address(server) == collect_hosts([server])[0][:2] == address
    assert from_environment({"KAFKA_BOOTSTRAP_SERVERS": f"one:1, {server},"}).kafka_servers == ["one:1", server]


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://:p%40ss@[::1]:6379/15",
        "rediss://u:p@cache:1/2?ssl_cert_reqs=none",
        "rediss://cache?ssl_ca_certs=/ca.pem&ssl_cert_reqs=required",
    ],
)
def test_every_form_of_a_redis_url_is_taken(url: str) -> None:
    assert from_environment({"REDIS_URL": url}).redis_address == url


@pytest.mark.parametrize("url", ["rediss://u:p@cache:1/2", "rediss://cache/0?ssl_ca_certs=/ca.pem"])
def test_redis_over_tls_is_verified_and_read_alike_by_all_its_clients(url: str) -> None:
    address = from_environment({"REDIS_URL": url}).redis_address
    own = redis.ConnectionPool.from_url(address)
    broker = parse_url(address)
    backend = RedisBackend(app=Celery(), url=address).connparams
    assert vars(own.make_connection())["cert_reqs"] is ssl.CERT_REQUIRED
    assert broker["ssl"]["ssl_cert_reqs"] is backend["ssl_cert_reqs"] is ssl.CERT_REQUIRED
    assert own.connection_kwargs.get("ssl_ca_certs") == broker["ssl"].get("ssl_ca_certs") == backend.get("ssl_ca_certs")


@pytest.mark.parametrize(
    "url",
    [
        "unix:///run/r.sock?db=1",
        "redis://cache/x",
        "redis://cache/0/1",
        "redis://cache/-1",
        "redis://cache?db=5",
        "redis://cache/0?socket_timeout=5",
        "redis://cache/0?ssl_cert_reqs=none",
        "rediss://cache/0?ssl_cert_reqs=CERT_REQUIRED",
        "rediss://cache/0?protocol=3",
        "redis://cache/0#1",
        "redis://cache:0/0",
        "rediss://cache/0?ssl_ca_certs=/a&ssl_ca_certs=/b",
    ],
)
def test_what_not_all_clients_of_redis_read_is_no_address(url: str) -> None:
    """Each of these was taken, and ended the bridge, a worker or beat in a traceback."""
    with pytest.raises(InvalidSetting, match=r"^REDIS_URL: takes redis://"):
        from_environment({"REDIS_URL": url})


def test_every_security_of_kafka_is_taken_as_its_client_knows_it() -> None:
    from kafka.net.sasl import SASL_MECHANISMS

    cafile = certifi.where()
    for protocol in settings.SECURITY_PROTOCOLS:
        for mechanism in settings.SASL_MECHANISMS:
            names = ("KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_SSL_CAFILE")
            chosen = from_environment(dict(zip(names, (protocol, mechanism, cafile), strict=True)))
            assert chosen.kafka_client()["ssl_cafile"] == cafile
    assert set(settings.SASL_MECHANISMS) <= SASL_MECHANISMS.keys()


def test_a_file_of_certificates_that_nobody_reads_may_be_missing() -> None:
    assert from_environment({"KAFKA_SSL_CAFILE": "ca.pem"}).kafka_cafile == str(ROOT / "ca.pem")


def test_the_password_of_a_redis_url_is_not_shown() -> None:
    with pytest.raises(InvalidSetting) as told:
        from_environment({"REDIS_URL": "user:secret@localhost:6379"})
    assert "secret" not in str(told.value)


@pytest.mark.parametrize("topic", ["..a", ".a", "texts_1.v-2", "x" * 236])
def test_a_topic_may_be_called_as_kafka_has_it(topic: str) -> None:
    assert from_environment({"KAFKA_TOPIC": topic}).kafka_topic == topic


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"])
def test_a_log_level_may_be_written_in_any_case(level: str) -> None:
    for given in (level, level.lower(), level.title()):
        assert from_environment({"LOG_LEVEL": given}).log_level == level


def test_a_retention_of_minus_one_means_for_ever() -> None:
    assert from_environment({"KAFKA_RETENTION_MS": "-1"}).kafka_retention_ms == -1


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("EMBEDING_PROVIDER", "EMBEDDING_PROVIDER"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("kafka_topic", "KAFKA_TOPIC"),
        ("OPEN_AI_API_KEY", "OPENAI_API_KEY"),
    ],
)
def test_what_looks_like_a_setting_is_known_for_one(written: str, meant: str) -> None:
    assert misspelt([written, "BRIDGES", "COMPOSE_PROJECT_NAME", "PATH"]) == {written: meant}


def test_no_setting_is_taken_for_another() -> None:
    assert misspelt(listed()) == {}


def test_values_are_read_as_what_they_are() -> None:
    chosen = from_environment({"BRIDGES": "3", "BRIDGE_LEASE_SECONDS": "0.5", "KAFKA_TOPIC": "texts", "PATH": "/bin"})
    assert (chosen.bridges, chosen.bridge_lease_seconds, chosen.kafka_topic) == (3, 0.5, "texts")
    assert chosen.dead_letter_topic == "texts.dead-letters"


def test_local_parts_are_used_unless_an_existing_one_is_named() -> None:
    assert DEFAULTS.kafka_servers == ["127.0.0.1:9092"]
    assert DEFAULTS.database_address == "127.0.0.1"
    assert DEFAULTS.redis_address == "redis://127.0.0.1:6379/0"
    moved = from_environment({"KAFKA_PORT": "19092", "REDIS_PORT": "16379"})
    assert (moved.kafka_servers, moved.redis_address) == (["127.0.0.1:19092"], "redis://127.0.0.1:16379/0")
    existing = from_environment(
        {
            "KAFKA_BOOTSTRAP_SERVERS": "one:9092, two:9092",
            "DATABASE_HOST": "db.example",
            "REDIS_URL": "redis://cache.example/3",
        }
    )
    assert existing.kafka_servers == ["one:9092", "two:9092"]
    assert existing.database_address == "db.example"
    assert existing.redis_address == "redis://cache.example/3"


@pytest.mark.parametrize("odd", ["p@ss/w:rd?#%", "ünïcode", "a b", "'quoted'"])
def test_passwords_may_hold_anything(odd: str) -> None:
    from sqlalchemy import make_url

    chosen = Settings(database_password=odd, database_user=odd, database_name=odd, database_host="::1")
    url = make_url(chosen.database_url())
    assert (url.username, url.password, url.database, url.host) == (odd, odd, odd, "::1")


def test_the_reader_has_a_url_of_its_own() -> None:
    assert DEFAULTS.database_url(reader=True).startswith("postgresql+psycopg2://text_reader:text_reader@")


def test_of_several_hosts_the_owner_gets_the_primary_and_the_reader_any() -> None:
    from sqlalchemy import make_url

    two = Settings(database_host="one,two")
    primary = {"target_session_attrs": "primary"}
    assert make_url(two.database_url()).query == primary
    assert make_url(two.database_url(reader=True, at_primary=True)).query == primary
    assert not make_url(two.database_url(reader=True)).query
    assert make_url(two.database_url()).host == "one,two"
    assert not make_url(Settings(database_host="one").database_url()).query


def test_keys_are_separated_by_commas() -> None:
    assert Settings(api_keys=" one, two,,").api_key_set == {"one", "two"}
    assert DEFAULTS.api_key_set == frozenset()


def test_kafka_security_reaches_every_client() -> None:
    assert DEFAULTS.kafka_client() == {"bootstrap_servers": ["127.0.0.1:9092"], "security_protocol": "PLAINTEXT"}
    secured = Settings(
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_mechanism="SCRAM-SHA-512",
        kafka_sasl_username="writer",
        kafka_sasl_password="secret",
        kafka_ssl_cafile="/etc/ca.pem",
    )
    assert secured.kafka_client() == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "writer",
        "sasl_plain_password": "secret",
        "ssl_cafile": "/etc/ca.pem",
    }


def test_the_folder_of_a_running_system_is_found_whatever_else_the_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.delenv("DATA_DIR", raising=False)
    assert settings.load_data_dir().data_dir == DEFAULTS.data_dir
    (tmp_path / ".env").write_text("no setting at all\nDATA_DIR=/srv/texts\nKAFKA_PORT=none\n")
    assert settings.load_data_dir().data_dir == "/srv/texts"
    monkeypatch.setenv("DATA_DIR", "/srv/others")
    assert settings.load_data_dir().data_dir == "/srv/others"


def test_env_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "# a comment\n\n  BRIDGES = 2 \nexport EMBED_WORKERS=3\nAPI_KEYS='a b'\n"
        'DATABASE_PASSWORD="p=w#d"\nKAFKA_TOPIC=tëxts\nLOG_LEVEL=\n',
        encoding="utf-8",
    )
    assert read_env_file(file) == {
        "BRIDGES": "2",
        "EMBED_WORKERS": "3",
        "API_KEYS": "a b",
        "DATABASE_PASSWORD": "p=w#d",
        "KAFKA_TOPIC": "tëxts",
        "LOG_LEVEL": "",
    }


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"6002" # comment', "6002"),
        ('6002 # it\'s "quoted"', "6002"),
        ("'a # b'\t# c", "a # b"),
        ("a#b", "a#b"),
        ("#a", "#a"),
        (" # nothing", ""),
        ('"it\'s"', "it's"),
        ('"a"b"', 'a"b'),
        ('"open', '"open'),
        ('"', '"'),
    ],
)
def test_what_stands_behind_a_value_is_a_comment(tmp_path: Path, written: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_PASSWORD={written}\n")
    assert read_env_file(tmp_path / ".env") == {"DATABASE_PASSWORD": value}


def test_env_file_that_is_missing_sets_nothing(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env") == {}


def test_env_file_that_cannot_be_read_is_told() -> None:
    with pytest.raises(InvalidSetting, match=r"/proc/self/mem: cannot be read \(Input/output error\)"):
        read_env_file(Path("/proc/self/mem"))  # which root may not read from its beginning either


def test_env_file_with_a_line_that_says_nothing_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("BRIDGES=2\nBRIDGES 3\n", encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"\.env, line 2: expected NAME=VALUE, found 'BRIDGES 3'"):
        read_env_file(file)


def test_env_file_as_editors_on_windows_write_it(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"\xef\xbb\xbfBRIDGES=2\r\nEMBED_WORKERS='3'\r\n")
    assert read_env_file(file) == {"BRIDGES": "2", "EMBED_WORKERS": "3"}


@pytest.mark.parametrize("character", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_env_file_has_lines_that_end_as_docker_compose_ends_them(tmp_path: Path, character: str) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_PASSWORD='a{character}b'\nBRIDGES=2\n", encoding="utf-8")
    assert read_env_file(tmp_path / ".env") == {"DATABASE_PASSWORD": f"a{character}b", "BRIDGES": "2"}


def test_env_file_in_another_encoding_is_told(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes("KAFKA_TOPIC=tëxts\n".encode("latin-1"))
    with pytest.raises(InvalidSetting, match=r"\.env: not UTF-8 .* at byte 13"):
        read_env_file(file)


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BRIDGES=2\nEMBED_WORKERS=2\n", encoding="utf-8")
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setenv("BRIDGES", "4")
    monkeypatch.delenv("EMBED_WORKERS", raising=False)
    chosen = settings.load.__wrapped__()
    assert (chosen.bridges, chosen.embed_workers) == (4, 2)


def test_settings_need_nothing_but_the_standard_library() -> None:
    line = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import settings"
    subprocess.run([sys.executable, "-I", "-S", "-c", line], check=True, timeout=30)

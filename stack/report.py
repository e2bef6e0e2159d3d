"""The table of addresses that a start ends with."""

from shlex import quote

from settings import Settings
from stack import places
from stack.part import Port
from stack.progress import bold, dim, say


def rows(settings: Settings, *, docker: bool = False) -> list[tuple[str, str]]:
    """What a user opens or types, with what it is."""

    def url(number: int, path: str = "/") -> str:
        host = Port("", settings.bind_host, number).reachable_host
        host = {"127.0.0.1": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
        return f"http://{host}:{number}{path}"

    psql = "docker compose exec postgres psql" if docker else _psql(settings)
    return [
        ("Text API", url(settings.text_api_port, "/docs")),
        ("Search API", url(settings.search_api_port, "/docs")),
        ("Console", url(settings.search_api_port)),
        ("Flower", url(settings.flower_port)),
        ("Kafka UI", url(settings.kafka_ui_port)),
        ("Kafka", ",".join(settings.kafka_servers)),
        ("Redis protocol", settings.redis_address if not settings.redis_url else "as REDIS_URL says"),
        ("PostgreSQL", f"{psql} -U {quote(settings.database_user)} -d {quote(settings.database_name)}"),
    ]


def _psql(settings: Settings) -> str:
    host = "localhost" if settings.database_address == "127.0.0.1" else settings.database_address
    is_default = settings.database_password == Settings.database_password
    # Only the default is shown: any other password belongs on no screen and in no log, and psql asks for it.
    password = f"PGPASSWORD={settings.database_password} " if is_default else ""
    return f"{password}.local/bin/psql -h {host} -p {settings.database_port}"


def show(settings: Settings, *, docker: bool = False) -> None:
    found = rows(settings, docker=docker)
    width = max(len(name) for name, _ in found)
    say()
    for name, address in found:
        say(f"  {bold(f'{name:<{width}}')}  {address}")
    if not docker:
        say()
        say(dim(f"  ./status.sh shows the parts, ./stop.sh stops them; their logs are in {places.logs(settings)}"))

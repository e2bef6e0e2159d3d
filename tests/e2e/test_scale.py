"""./scale.sh on the system that ./start.sh has started: workers come and go under a backlog, and no work with them."""

import json
import re
from pathlib import Path

import pytest
import requests

from tests.e2e.conftest import Checkout
from tests.parts import eventually

RECORDS = 6_000


def workers(checkout: Checkout) -> dict[str, int]:
    return dict(json.loads(checkout.run("./scale.sh --json")))


def told(checkout: Checkout, name: str) -> float:
    """A number of the search API's /metrics."""
    with requests.Session() as http:
        http.trust_env = False
        page = http.get(f"http://127.0.0.1:{checkout.ports['5003']}/metrics", timeout=10).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0.0


def send(checkout: Checkout, prefix: str, count: int) -> None:
    lines = (json.dumps({"id": f"{prefix}-{number}", "text": f"text {prefix} {number}"}) for number in range(count))
    file = Path(checkout.folder) / f"{prefix}.jsonl"
    file.write_text("\n".join(lines))
    checkout.run(f"python kafka_cli.py produce text-messages - < {prefix}.jsonl")


def running(checkout: Checkout) -> list[str]:
    """The worker parts that ./status.sh shows."""
    return re.findall(r"^((?:persist|embed)-worker\S*) +running", checkout.run("./status.sh"), re.MULTILINE)


@pytest.mark.timeout(400)
def test_workers_come_and_go_under_load_and_nothing_is_lost_or_done_twice(checkout: Checkout) -> None:
    checkout.environment |= {"EMBEDDING_PROVIDER": "hashing", "BRIDGE_BATCH_MAX": "20", "EMBED_BATCH_MAX": "20"}
    checkout.run("./start.sh --no-demo")
    assert workers(checkout) == {"persist": 1, "embed": 1}
    checkout.run("./scale.sh embed 3")
    assert running(checkout) == ["persist-worker", "embed-worker", "embed-worker-2", "embed-worker-3"]
    assert "workers: persist 1, embed 3" in checkout.run("./status.sh")
    send(checkout, "a", RECORDS)
    for queue, count in (("persist", 3), ("embed", 1), ("persist", 1), ("embed", 2), ("embed", 1), ("persist", 2)):
        shown = checkout.run(f"./scale.sh {queue} {count}")
        assert f"{queue:<8} {count}" in shown
    drained = json.loads(checkout.run("python kafka_cli.py drain --timeout 120 --json 2>/dev/null"))
    assert drained["drained"]
    checkout.run("python kafka_cli.py resume")
    # What a worker counted in its last second it brings before it ends: so these numbers are of everything.
    eventually(lambda: told(checkout, 'persisted_records_total{outcome="stored"}') >= RECORDS)
    eventually(lambda: told(checkout, "embedded_messages_total") >= RECORDS)
    assert told(checkout, 'persisted_records_total{outcome="stored"}') == RECORDS
    assert told(checkout, 'persisted_records_total{outcome="unchanged"}') == 0  # nothing came a second time
    assert told(checkout, "embedded_messages_total") == RECORDS
    killed = (Path(checkout.folder) / "data/logs/supervisord.log").read_text()
    assert "killing" not in killed
    assert workers(checkout) == {"persist": 2, "embed": 1}

    # A start goes by the settings, and one of them makes the numbers follow what waits.
    checkout.run("./stop.sh")
    checkout.environment |= {"EMBED_AUTOSCALE": "1,2"}
    checkout.run("./start.sh --no-demo")
    assert workers(checkout) == {"persist": 1, "embed": 1}
    assert "EMBED_AUTOSCALE says" in checkout.run("./scale.sh embed 2 2>&1 || true")
    only = re.search(r"^embed-worker +running +(\d+)", checkout.run("./status.sh"), re.MULTILINE)
    assert only
    checkout.run(f"kill -STOP {only[1]}")  # so that the work is left lying, however fast this machine is
    try:
        send(checkout, "b", 400)
        eventually(lambda: workers(checkout)["embed"] == 2, timeout=60, interval=1)
    finally:
        checkout.run(f"kill -CONT {only[1]}")
    eventually(lambda: told(checkout, "embedding_searchable_messages") == RECORDS + 400, timeout=60, interval=0.5)
    eventually(lambda: workers(checkout)["embed"] == 1, timeout=90, interval=1)
    assert running(checkout) == ["persist-worker", "embed-worker"]
    assert re.search(
        r"embed: 1 → 2 workers, as \d+ tasks wait", (checkout.folder / "data/logs/autoscale.log").read_text()
    )

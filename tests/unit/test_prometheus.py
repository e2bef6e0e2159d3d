"""deploy/prometheus as Prometheus' own tool reads it: the configuration, the rules, and when some of them fire."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import ROOT
from tasks.clock import QUEUE_LIMIT
from tests.parts import missing

FOLDER = ROOT / "deploy" / "prometheus"


def promtool(*arguments: str) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        missing("promtool is not installed: it comes with Prometheus")
    ended = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_prometheus_takes_the_configuration_and_every_rule() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml")


def expression(alert: str) -> str:
    groups = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    (found,) = [rule["expr"] for group in groups for rule in group["rules"] if rule["alert"] == alert]
    return str(found)


def test_no_api_that_is_scraped_goes_down_unseen() -> None:
    jobs = [each["job_name"] for each in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]]
    down, *gone = expression("ApiDown").split(" or ")
    watched = re.fullmatch(r'up\{job=~"(.+)"\} == 0', down)
    assert watched is not None
    assert len(jobs) == 2
    for job in jobs:
        assert re.fullmatch(watched[1], job), job
    assert gone == [f'absent(up{{job="{job}"}})' for job in jobs]


def test_a_queue_counts_as_long_before_beat_stops_filling_it() -> None:
    """Nothing else makes it that long: it would stay at the limit, and the alert at rest."""
    _, limit = expression("QueueLong").split(" > ")
    assert int(limit) < QUEUE_LIMIT


LAG = 'kafka_consumergroup_lag{consumergroup="text-bridge", topic="text-messages", partition="0"}'

# In a minute of time: a burst of three minutes that ends after the fifth, and what does not end.
BURST, ALWAYS = "0x2 100 200 300x30", "0+100x30"


def slow_ones(histogram: str, values: str, labels: str = "") -> dict[str, str]:
    """Beside as many quick ones, `values` that took between 30 and 60 seconds."""
    slower = {BURST: "0+100x2 400 600 800+100x28", ALWAYS: "0+200x30"}[values]
    return {
        f'{histogram}_bucket{{{labels}le="0.1"}}': "0+100x30",
        f'{histogram}_bucket{{{labels}le="30"}}': "0+100x30",
        f'{histogram}_bucket{{{labels}le="60"}}': slower,
        f'{histogram}_bucket{{{labels}le="+Inf"}}': slower,
    }


OF_THE_PIPELINE: list[tuple[str, str, dict[str, str], bool]] = [
    ("IntakeStands", "11m", {LAG: "5+0x20", "bridge_records_consumed_total": "7+0x20"}, True),
    ("IntakeStands", "11m", {LAG: "5+0x20", "bridge_records_consumed_total": "7+60x20"}, False),
    ("IntakeStands", "11m", {LAG: "0+0x20", "bridge_records_consumed_total": "7+0x20"}, False),
    ("LagGrows", "40m", {LAG: "0+1000x60"}, True),
    ("LagGrows", "40m", {LAG: "100000-1000x60"}, False),
    ("LagGrows", "55m", {LAG: "0+150x60"}, False),
    ("LagGrows", "90m", {LAG: "0+150x90"}, True),
    ("NoProcess", "2m", {'pipeline_processes_up{part="bridge"}': "0x10"}, True),
    ("NoProcess", "2m", {'pipeline_processes_up{part="bridge"}': "1x10"}, False),
    ("EmbeddingFallsBehind", "12m", {"embedding_oldest_pending_seconds": "301+60x20"}, True),
    ("EmbeddingFallsBehind", "12m", {"embedding_oldest_pending_seconds": "10x20"}, False),
    ("DeadLettersCome", "5m", {'dead_letters_total{reason="invalid-json"}': "0x3 50000x10"}, True),
    ("DeadLettersCome", "5m", {'dead_letters_total{reason="invalid-json"}': "50000x10"}, False),
    ("DeadLettersCome", "5m", {'dead_letters_total{reason="invalid-json"}': "0x3 6x10"}, False),
    ("TasksFail", "5m", {'celery_tasks_total{task="sweep", state="failure"}': "0x3 1x10"}, True),
    ("TasksFail", "5m", {'celery_tasks_total{task="sweep", state="success"}': "0x3 1x10"}, False),
    ("EmbeddingsFail", "5m", {"embedding_failures_total": "0x3 1x10"}, True),
    ("SearchIsStale", "16m", slow_ones("embedding_freshness_seconds", ALWAYS), True),
    ("SearchIsStale", "13m", slow_ones("embedding_freshness_seconds", BURST), False),
    ("QueueLong", "15m", {'celery_queue_length{queue_name="persist"}': f"{QUEUE_LIMIT}x20"}, True),
    ("QueueLong", "15m", {'celery_queue_length{queue_name="persist"}': "199 197 200 198" + " 199 200" * 8}, True),
    ("QueueLong", "15m", {'celery_queue_length{queue_name="persist"}': "16x20"}, False),
    ("QueueLong", "15m", {'celery_queue_length{queue_name="embed"}': "1000x20"}, False),
]
SEARCH, TEXT = 'up{job="text-pipeline", instance="a"}', 'up{job="text-pipeline-text-api", instance="b"}'
ERRORS, GOOD = (f'http_requests_total{{route="/search", status="{status}"}}' for status in (503, 200))
OF_AN_API: list[tuple[str, str, dict[str, str], bool]] = [
    ("ApiDown", "3m", {SEARCH: "0x10", TEXT: "1x10"}, True),
    ("ApiDown", "3m", {SEARCH: "1x10", TEXT: "0x10"}, True),
    ("ApiDown", "3m", {SEARCH: "1x10", TEXT: "1x10"}, False),
    ("ApiDown", "3m", {SEARCH: "1x10", TEXT: "1x10", 'up{job="somebody-else", instance="c"}': "0x10"}, False),
    ("ApiDown", "8m", {SEARCH: "1x10", TEXT: "1x2 stale"}, True),
    ("ApiDown", "8m", {SEARCH: "1x2 stale", TEXT: "1x10"}, True),
    ("SearchSlow", "16m", slow_ones("search_duration_seconds", ALWAYS, 'mode="hybrid",'), True),
    ("SearchSlow", "13m", slow_ones("search_duration_seconds", BURST, 'mode="hybrid",'), False),
    ("ApiErrors", "8m", {ERRORS: ALWAYS, GOOD: ALWAYS}, True),
    ("ApiErrors", "8m", {ERRORS: BURST, GOOD: ALWAYS}, False),
]


@pytest.mark.parametrize(("alert", "at", "series", "fires"), [*OF_THE_PIPELINE, *OF_AN_API])
def test_when_an_alert_fires(alert: str, at: str, series: dict[str, str], fires: bool, tmp_path: Path) -> None:
    see(alert, at, series, fires, tmp_path)


@pytest.mark.parametrize(("alert", "at", "series", "fires"), OF_THE_PIPELINE)
def test_two_replicas_that_show_the_pipeline_make_it_neither_twice_as_large_nor_two_alerts(
    alert: str, at: str, series: dict[str, str], fires: bool, tmp_path: Path
) -> None:
    both = {of_replica(name, replica): values for name, values in series.items() for replica in ("a:5003", "b:5003")}
    see(alert, at, both, fires, tmp_path)


def of_replica(series: str, instance: str) -> str:
    name, _, labels = series.partition("{")
    return f'{name}{{instance="{instance}", {labels or "}"}'


def see(alert: str, at: str, series: dict[str, str], fires: bool, tmp_path: Path) -> None:
    """Seen by an expression over ALERTS, so that no wording of an annotation stands here."""
    rising = {"expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})', "eval_time": at}
    samples = [{"labels": "{}", "value": 1}] if fires else []
    content: dict[str, Any] = {
        "rule_files": [str(FOLDER / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [{**rising, "exp_samples": samples}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(content))
    promtool("test", "rules", str(file))

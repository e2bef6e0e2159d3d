"""`.venv/bin/python -m benchmarks.tables [JSON]`: puts a run's figures into the docs, between the two marks of a page.

By default it takes the reference run's. So no figure between the marks is typed by hand.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.arguments import results_file
from benchmarks.report import RESULTS, short
from settings import ROOT
from stack.progress import say

DOCS = ROOT / "docs"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def cell(figure: Mapping[str, float] | None) -> str:
    if not figure or "median" not in figure:
        return ""
    middle = short(figure["median"])
    if figure["rounds"] == 1:
        return middle
    return f"{middle} ({short(figure['least'])} to {short(figure['most'])})"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


FLOOR = "floor: the model alone"
MACHINE = "machine"


def place(run: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, str]:
    """Where a case was measured: how large its machine is, and the version of each part. Older files have both once for
    all cases."""
    machine, versions = (case.get(name) or run[name] for name in ("machine", "versions"))
    return {
        MACHINE: f"{machine['cores']} cores, {machine['memory GB']} GB",
        **{name: f"{name} {value}" for name, value in versions.items() if name != "commit"},
    }


def tables(run: Mapping[str, Any]) -> str:
    """All cases of a run in Markdown, headed by where and how it was made; what differs is said with each case."""
    places = [place(run, case) for case in run["cases"]]
    common = {name: told for name, told in places[0].items() if all(each.get(name) == told for each in places)}
    machine = f"{common[MACHINE]}. " if MACHINE in common else ""
    versions = [told for name, told in common.items() if name != MACHINE]
    lines = [f"{machine}Median, and in brackets the least and the most of the rounds."]
    lines += ["", f"Versions: {', '.join(versions)}."] if versions else []
    for case, here in zip(run["cases"], places, strict=True):
        figures: dict[str, dict[str, Any]] = case["figures"]
        names = list(dict.fromkeys(name for values in figures.values() for name in values))
        made = [f"`{case['command']}`", case["ended"][:10], f"commit {case['commit']}", case["processor"]]
        made += [told for name, told in here.items() if name not in common]
        lines += ["", f"### {case['case']}: {case['title']}", "", ", ".join(made), ""]
        if "failed" in case:
            lines += [f"Failed: {case['failed'].splitlines()[0]}", ""]
        if names:
            lines += [row(["", *names]), row(["---"] * (len(names) + 1))]
            lines += [row([who, *(cell(values.get(name)) for name in names)]) for who, values in figures.items()]
        if case["ratios"]:
            lines += ["", row(["ratio", "of", "found", "aim"]), row(["---"] * 4)]
            lines += [
                row([f"{each['of']} / {each['to']}", each["figure"], cell(each), each["aim"]])
                for each in case["ratios"]
            ]
        lines += ["", *case["notes"]] if case["notes"] else []
    return "\n".join(lines)


def costs(run: Mapping[str, Any]) -> str:
    """What one unit of each part costs, and how many cores that makes at three rates, in Markdown; from the cases
    throughput (like Pathway, without a stub) and minilm. Nothing if the run lacks the first."""
    spent = median_costs(run, "throughput", "like Pathway")
    if not spent:
        return ""
    lines = [row(["part", "CPU seconds for 100,000 texts", "texts a second of one core"]), row(["---"] * 3)]
    lines += [
        row([part, short(seconds), short(100_000 / seconds) if seconds else ""]) for part, seconds in spent.items()
    ]
    model = next(
        (
            case["figures"][FLOOR]["running /s"]["median"] / (case.get("machine") or run["machine"])["cores"]
            for case in run["cases"]
            if case["case"] == "minilm" and FLOOR in case["figures"]
        ),
        None,
    )
    rates = (10_000, 100_000, 1_000_000)
    lines += ["", row(["cores at", *(f"{rate:,} texts/s" for rate in rates)]), row(["---"] * 4)]
    lines += [row([part, *(short(rate * seconds / 100_000) for rate in rates)]) for part, seconds in spent.items()]
    if model:
        lines.append(row(["the model, MiniLM int8 on these cores", *(short(rate / model) for rate in rates)]))
    return "\n".join(lines)


def median_costs(run: Mapping[str, Any], case: str, contestant: str) -> dict[str, float]:
    """The median cost of each process over one contestant's rounds, with an embedder that costs next to nothing."""
    rounds = [
        each["cpu seconds a 100,000"]
        for found in run["cases"]
        if found["case"] == case and not found["given"].get("stub") and "failed" not in found
        for each in found["details"].get("rounds", [])
        if each["contestant"] == contestant
    ]
    values = {part: [each[part] for each in rounds if each[part] is not None] for part in (rounds[0] if rounds else {})}
    return {part: statistics.median(known) for part, known in values.items() if known}


def filled(page: str, content: str) -> str:
    """The page with the content between its marks. Raises ValueError if it has no marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{content}\n{END}{after}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument(
        "file", nargs="?", type=results_file, default=RESULTS / "reference.json", metavar="JSON", help="a run's results"
    )
    file = parser.parse_args(arguments).file
    if not file.exists():
        parser.error(f"there is no {file}")
    run = json.loads(file.read_text(encoding="utf-8"))
    if not run["cases"]:
        parser.error(f"{file} has no case")
    for page, content in ((DOCS / "performance.md", tables(run)), (DOCS / "scaling.md", costs(run))):
        if content:
            page.write_text(filled(page.read_text(encoding="utf-8"), content), encoding="utf-8")
        else:
            say(f"{page.name} stays as it is: {file.name} has no case `throughput --stub 0` with the form like Pathway")


if __name__ == "__main__":
    main(sys.argv[1:])

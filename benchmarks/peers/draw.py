"""Draws what `plots` asks for on standard input into the SVG file that is named. Runs in an environment of its own."""

import json
import sys

import matplotlib  # type: ignore[import-not-found]

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # the same figures give the same file
from matplotlib import pyplot  # noqa: E402 - the kind of output has to be chosen first

COLOURS = ["#1b6ca8", "#e07a1f", "#3a8f4d", "#8a4fa0", "#7a7a7a", "#c23b3b"]


def main() -> None:
    plot = json.load(sys.stdin)
    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    if "bars" in plot:
        names = list(plot["bars"])
        for place, (name, colour) in enumerate(zip(names, COLOURS * 3, strict=False)):
            low, middle, high = plot["bars"][name]
            axes.barh(place, middle, xerr=[[middle - low], [high - middle]], color=colour, height=0.6, capsize=4)
            axes.text(high, place, f"  {middle:,.0f}", va="center")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.15)
    for (name, points), colour in zip(plot.get("lines", {}).items(), COLOURS * 3, strict=False):
        style = "--" if name.startswith("ideal") else "-"
        axes.plot(*zip(*points, strict=True), style, marker="" if style == "--" else "o", label=name, color=colour)
    if plot.get("lines"):
        axes.legend(frameon=False)
        axes.set_ylim(bottom=0)
    axes.set_title(plot["title"], loc="left")
    axes.set_xlabel(plot["x"])
    axes.set_ylabel(plot["y"])
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(sys.argv[1], metadata={"Date": None})


main()

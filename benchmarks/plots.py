"""Plots as SVG, drawn by matplotlib in an environment of its own (peers/draw.py), which is called from here."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks import environments

DRAW = Path(__file__).resolve().parent / "peers" / "draw.py"


def draw(plot: Mapping[str, object], file: Path) -> Path:
    """Draws {"title", "x", "y", "lines": {name: [[x, y], ...]} or "bars": {name: [low, median, high]}}."""
    file.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [str(environments.python("plot")), str(DRAW), str(file)], input=json.dumps(plot), text=True, check=True
    )
    return file

"""Schemathesis on both APIs of the running pipeline: what the OpenAPI documents promise holds, and nothing breaks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline import Pipeline


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["text", "search"])
def test_the_api_keeps_its_document(pipeline: Pipeline, role: str, tmp_path: Path) -> None:
    """All checks and phases: the examples, each constraint at its edges, random input, and calls that follow links."""
    address = pipeline.text_api if role == "text" else pipeline.search_api
    ran = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json"),
            *("--checks", "all", "--max-examples", "15", "--no-color", "--suppress-health-check", "all"),
        ],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    shown = "\n".join(line[:500] for line in ran.stdout.splitlines())
    assert ran.returncode == 0, shown + ran.stderr
    assert "Operations:       0" not in shown

"""The Helm chart as a cluster would get it: rendered by Helm's own code, which the package helm-python-sdk brings.

In a process of its own, since Helm is written in Go and brings that language's runtime along.
"""

import json
import subprocess
import sys
from typing import Any

from settings import ROOT

CHART = ROOT / "deploy" / "helm"

_RENDER = """
import json, sys
import helm_python as helm
values = json.load(sys.stdin)
with helm.Chart.load(sys.argv[1]) as chart:
    chart.validate_schema(chart.merge_values(values))
    files = chart.render(values, name="texts", namespace="prod")
print(json.dumps({"files": files, "lint": helm.lint(sys.argv[1])}))
"""


class Refused(Exception):
    """Helm does not take these values; the message is its own."""


def helm(**values: Any) -> dict[str, Any]:
    """{"files": the rendered templates by path, "lint": what `helm lint` finds}. Raises Refused."""
    command = [sys.executable, "-c", _RENDER, str(CHART)]
    answer = subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, timeout=120)
    if answer.returncode != 0:
        raise Refused(answer.stderr)
    return dict(json.loads(answer.stdout))


def documents(**values: Any) -> list[dict[str, Any]]:
    """The objects of a release named "texts"."""
    import yaml

    return [each for text in helm(**values)["files"].values() for each in yaml.safe_load_all(text) if each]

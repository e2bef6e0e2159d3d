"""kafka_cli.py as a user runs it: a process, with the settings of the test in the environment."""

import json
import subprocess
import sys
from dataclasses import fields
from typing import Any

from settings import ROOT, Settings

COMMAND = (sys.executable, str(ROOT / "kafka_cli.py"))


class Cli:
    """Called with what is typed, it returns what was printed; what was said beside that is in `said`."""

    def __init__(self, settings: Settings) -> None:
        self.topic = settings.kafka_topic
        values = {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}
        self.environment = {name: value for name, value in values.items() if value}
        self.said = ""

    def __call__(self, *arguments: str, given: bytes = b"", code: int = 0) -> str:
        command = [*COMMAND, *arguments]
        ended = subprocess.run(command, input=given, env=self.environment, capture_output=True, timeout=90, check=False)
        self.said = ended.stderr.decode()
        assert ended.returncode == code, self.said
        return ended.stdout.decode("utf-8", "replace")

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self("consume", self.topic, "--timeout", "0").splitlines()]

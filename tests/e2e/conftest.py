"""A checkout of its own for tests that use the scripts as a user does: on free ports, in a path with a space."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.servers import free_ports
from settings import ROOT

PORTS = {
    "5002": "TEXT_API_PORT",
    "5003": "SEARCH_API_PORT",
    "5434": "DATABASE_PORT",
    "9092": "KAFKA_PORT",
    "9093": "KAFKA_CONTROLLER_PORT",
    "42181": "ZOOKEEPER_PORT",
    "8080": "KAFKA_UI_PORT",
    "6379": "REDIS_PORT",
    "5555": "FLOWER_PORT",
}


class Checkout:
    """A copy of this checkout that shares what is installed and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in filter(None, names.split("\0")):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        for installed in (".venv", ".local"):
            (folder / installed).symlink_to(ROOT / installed)
        self.ports = {number: str(port) for number, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
        kept = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
        self.environment = kept | {variable: self.ports[number] for number, variable in PORTS.items()}
        self.environment |= {"DATA_DIR": str(folder / "data"), "PATH": f"{folder}/.local/bin:{kept['PATH']}"}

    def start(self, command: str, **more: str) -> "subprocess.Popen[str]":
        """Runs a line as somebody types it into a shell in the checkout, with the ports that are usual replaced."""
        for number, port in self.ports.items():
            command = command.replace(f"localhost:{number}", f"localhost:{port}").replace(f"-p {number}", f"-p {port}")
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, timeout: float = 240, **more: str) -> str:
        """Runs a line to its end and returns what it printed; fails when it fails."""
        process = self.start(command, **more)
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == 0, f"{command}\nexit code {process.returncode}\n{output}"
        return output


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    above = Path(tempfile.mkdtemp(prefix="text-pipeline-tests-"))
    above.chmod(0o755)
    folder = above / "a check out"
    folder.mkdir()
    copy = Checkout(folder)
    yield copy
    copy.run("./stop.sh --volumes --yes")
    shutil.rmtree(above)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Building containers takes minutes: for those who ask for it by name (-m containers)."""
    if "containers" not in (config.getoption("-m") or ""):
        long = [item for item in items if item.get_closest_marker("containers")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)

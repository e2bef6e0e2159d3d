"""Installs what is missing into the checkout: Python packages, Kafka's jars, the Kafka UI, the model, psql.

Each piece has a mark that says whether it is whole, so an interrupted installation is repaired by the next one. Pieces
that do not need each other are installed at the same time. Only the standard library is used.
"""

import concurrent.futures
import hashlib
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from settings import ROOT, Settings
from stack import jars, kafka_ui, lock, places, postgres, shell
from stack.packages import READY, Packages, check_python
from stack.progress import Progress, bold, say

_MODEL = "all-MiniLM-L6-v2"


def python_packages(*, dev: bool = False) -> Packages:
    files = [ROOT / "requirements.txt"]
    if dev:
        files.append(ROOT / "requirements-dev.txt")
    return Packages("Python packages", places.VENV, files)


def kafka_ui_packages() -> Packages:
    return Packages("Kafka UI", kafka_ui.VENV, [kafka_ui.REQUIREMENTS])


def install(settings: Settings, *, dev: bool = False, ui: bool = True, local: bool = True) -> None:
    """Installs what is missing and says so; silent when nothing is. Without `local` only the Python packages.

    Raises StackError with what to do if a piece cannot be had.
    """
    if not _missing(settings, dev=dev, ui=ui, local=local):
        return
    check_python()
    if local and not settings.kafka_bootstrap_servers and jars.missing(settings):
        jars.check_tools()  # before minutes of downloading something else
    hold = _wait_for_lock()
    try:
        works = _missing(settings, dev=dev, ui=ui, local=local)
        if not works:  # whoever had the lock has installed it
            return
        say(bold("Installing"))
        with Progress() as progress:
            _together([partial(work, progress) for work in works])
    finally:
        hold.release()


def _missing(settings: Settings, *, dev: bool, ui: bool, local: bool) -> list[Callable[[Progress], None]]:
    """The pieces that are not whole, each as the work that mends it."""
    found: list[Callable[[Progress], None]] = []
    model = local and settings.embedding_provider == "minilm" and not _model_is_built()
    tools = local and not (places.LOCAL / "bin" / "psql").exists()
    if model or tools or python_packages(dev=dev).state() != READY:
        found.append(lambda progress: _python_and_model(settings, progress, dev=dev, local=local))
    if local and not settings.kafka_bootstrap_servers and jars.missing(settings):
        found.append(lambda progress: jars.install(settings, progress))
    if local and ui and kafka_ui_packages().state() != READY:
        found.append(kafka_ui_packages().install)
    return found


def _python_and_model(settings: Settings, progress: Progress, *, dev: bool, local: bool) -> None:
    python_packages(dev=dev).install(progress)
    if not local:
        return
    postgres.link_tools()
    if settings.embedding_provider == "minilm" and not _model_is_built():
        _build_model(progress)


def _model_mark() -> Path:
    return places.LOCAL / "models" / ".installed"


def _model_is_built() -> bool:
    """Whether this version of the builder has built it. To ask the builder itself would cost every start a second."""
    try:
        known = _model_mark().read_text() == _builder_hash()
    except FileNotFoundError:
        return False
    return known and any(_model_mark().parent.glob(f"{_MODEL}*/*.onnx"))


def _builder_hash() -> str:
    sources = sorted((ROOT / "embedder").glob("*minilm*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _build_model(progress: Progress) -> None:
    log = places.LOCAL / "logs" / "install-model.log"
    log.unlink(missing_ok=True)
    with progress.step(f"Embedding model {_MODEL}") as step:
        command = [str(places.VENV_PYTHON), "-m", "embedder.build_minilm"]
        shell.run(command, step=step, log=log, environment=os.environ, gist=lambda line: line[:40], folder=ROOT)
        _model_mark().parent.mkdir(parents=True, exist_ok=True)
        _model_mark().write_text(_builder_hash())


def _wait_for_lock() -> lock.Lock:
    """One installation at a time in a checkout; another system's start may be at it just now."""
    file = places.LOCAL / "install.lock"
    hold = lock.try_to_take(file)
    if hold is None:
        say("Another installation is under way in this checkout: waiting for it")
    while hold is None:
        time.sleep(0.3)
        hold = lock.try_to_take(file)
    return hold


def _together(works: list[Callable[[], None]]) -> None:
    """Does all works at the same time. The first failure ends the others and is raised."""
    with concurrent.futures.ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(work) for work in works]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            shell.end_all()
            raise
        finally:
            for future in futures:
                future.cancel()

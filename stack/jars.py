"""Kafka's jars: fetched by Maven from the pinned pom.xml of the mode, once, into `.local`."""

import hashlib
import os
import pwd
import shutil
from pathlib import Path

from settings import ROOT, Settings
from stack import kafka, places, shell
from stack.java import check_java, maven
from stack.progress import Progress


def missing(settings: Settings) -> bool:
    folder = kafka.jars(settings)
    try:
        return (folder / ".installed").read_text() != _hash(_pom(folder))
    except FileNotFoundError:
        return True


def check_tools() -> None:
    """Raises StackError without the Java and the Maven that fetching needs."""
    check_java()
    maven()


def install(settings: Settings, progress: Progress) -> None:
    """Fetches the jars into a folder beside the final one, which is renamed when all are there."""
    if not missing(settings):
        return
    folder = kafka.jars(settings)
    half = folder.with_name(folder.name + ".half")
    log = places.LOCAL / "logs" / f"install-{folder.name}.log"
    log.unlink(missing_ok=True)
    with progress.step("Kafka") as step:
        step.note = "Maven"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={half / 'lib'}"]
        # For a short-lived Java, compiling with all optimizations would cost more than it gains.
        options = f"-XX:TieredStopAtLevel=1 {os.environ.get('MAVEN_OPTS', '')}"
        shell.run(
            [maven(), "-B", "-f", str(_pom(folder)), *_repository(), *goal],
            step=step,
            log=log,
            environment={**os.environ, "MAVEN_OPTS": options},
            gist=_gist,
            folder=ROOT,
        )
        (half / ".installed").write_text(_hash(_pom(folder)))
        shutil.rmtree(folder, ignore_errors=True)
        half.rename(folder)


def _repository() -> list[str]:
    """Where Maven keeps what it fetches: its usual place, or `.local` for a user without a home to write into."""
    chosen = (os.environ.get("MAVEN_OPTS", ""), os.environ.get("MAVEN_ARGS", ""))
    if any("maven.repo.local" in options for options in chosen):
        return []
    home = _home()
    nearest = next(filter(os.path.lexists, (home / ".m2" / "repository", home / ".m2")), home)
    return [] if os.access(nearest, os.W_OK | os.X_OK) else [f"-Dmaven.repo.local={places.LOCAL / 'maven'}"]


def _home() -> Path:
    """The home that Java goes by: that of the user, whatever HOME says."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path(os.environ.get("HOME", "/"))


def _pom(folder: Path) -> Path:
    return Path(__file__).parent / folder.name / "pom.xml"


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _gist(line: str) -> str | None:
    """The jar that was fetched last."""
    if "Downloaded from" in line and ".jar" in line:
        return line.partition(".jar")[0].rpartition("/")[2]
    return None

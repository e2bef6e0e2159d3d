"""The Java and Maven of this machine: where they are, and what to install when they are not."""

import os
import re
import shutil
import subprocess

from stack.errors import StackError

OLDEST_JAVA = 17
_INSTEAD = "or set KAFKA_BOOTSTRAP_SERVERS to use an existing Kafka"


def java() -> str:
    """The path of a Java 17 or later. Raises StackError if there is none."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("java", path=os.path.join(home, "bin")) if home else None
    found = found or shutil.which("java")
    if found is None:
        raise StackError(f"Kafka needs Java {OLDEST_JAVA} or later, and there is no java here: {_how_to('java')}")
    return found


def check_java() -> None:
    """Raises StackError when the Java found is too old."""
    found = java()
    answer = subprocess.run([found, "-version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    version = major_version(answer.stderr + answer.stdout)
    if version is None:
        raise StackError(f"{found} does not tell its version: Kafka needs Java {OLDEST_JAVA} or later, {_INSTEAD}")
    if version < OLDEST_JAVA:
        raise StackError(
            f"{found} is Java {version}, and Kafka needs Java {OLDEST_JAVA} or later: "
            f"{_how_to('java')}, or point JAVA_HOME at a later one"
        )


def maven() -> str:
    """The path of Maven. Raises StackError if there is none."""
    found = shutil.which("mvn")
    if found is None:
        raise StackError(f"Maven fetches Kafka's jars, and there is no mvn here: {_how_to('maven')}")
    return found


def major_version(answer: str) -> int | None:
    """17 of `openjdk version "17.0.15"`, and 8 of `java version "1.8.0_402"`."""
    match = re.search(r'version "([0-9]+)(?:\.([0-9]+))?', answer)
    if match is None:
        return None
    first, second = match.groups()
    return int(second) if first == "1" and second else int(first)


def _how_to(what: str) -> str:
    packages = {"java": ("openjdk-17-jre-headless", "java-17-openjdk-headless"), "maven": ("maven", "maven")}[what]
    if shutil.which("apt-get"):
        return f"install it (apt install {packages[0]}), {_INSTEAD}"
    if shutil.which("dnf"):
        return f"install it (dnf install {packages[1]}), {_INSTEAD}"
    return f"install it, {_INSTEAD}"

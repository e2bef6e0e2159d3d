"""The descriptions of Debian packages as records: from what apt has fetched, or from the sample beside this file.

Formats: deb822(5) for the paragraphs, Debian Policy 5.6.13 for a description.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

SAMPLE = Path(__file__).with_name("sample.jsonl")
LISTS = Path("/var/lib/apt/lists")
READER = Path("/usr/lib/apt/apt-helper")  # reads a list however apt has compressed it
UPDATE = ["apt-get", "-o", "Acquire::Languages=en", "update"]

Record = dict[str, object]


class NoDescriptions(RuntimeError):
    """apt is not here, or has fetched no descriptions; the message says which."""


def sample() -> Iterator[Record]:
    """The records of sample.jsonl: {"id", "text", "metadata": {"package", "section"}}."""
    with SAMPLE.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def from_apt() -> list[Record]:
    """A record for each package that apt knows a description of, by name. Raises NoDescriptions."""
    if not READER.exists():
        raise NoDescriptions("this system has no apt")
    lists = sorted(LISTS.glob("*_i18n_Translation-en*"))
    if not lists:
        raise NoDescriptions(f"apt has not fetched the descriptions: run `{' '.join(UPDATE)}` as root")
    available = paragraphs(output(["apt-cache", "dumpavail"]))
    known = {each["Package"]: (each.get("Section", ""), each.get("Description-md5")) for each in available}
    found: dict[str, Record] = {}
    for paragraph in paragraphs(output([str(READER), "cat-file", *map(str, lists)])):
        package, description = paragraph.get("Package", ""), paragraph.get("Description-en")
        section, digest = known.get(package, ("", None))
        # A package may be described in several versions; the one that apt would install goes first.
        if section and description and (paragraph.get("Description-md5") == digest or package not in found):
            found[package] = record(package, section, description)
    return [found[package] for package in sorted(found)]


def record(package: str, section: str, description: str) -> Record:
    return {
        "id": f"debian/{package}",
        "text": flowing(description),
        "metadata": {"package": package, "section": section},
    }


def flowing(description: str) -> str:
    """The synopsis and the long description as text: paragraphs on one line, lists and the like as they are."""
    synopsis, *long = description.split("\n")
    blocks = [synopsis.strip(), ""]
    for line in long:
        content = line[1:]
        verbatim = content.startswith((" ", "\t")) or re.match(r"[-*+o] ", content)
        if content.strip() == ".":
            blocks.append("")
        elif blocks[-1] and not verbatim and not blocks[-1].startswith((" ", "\t")):
            blocks[-1] += f" {content.strip()}"
        else:
            blocks.append(content.rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(blocks)).strip()


def paragraphs(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """The paragraphs of a deb822 file: fields by name, with the line breaks of those that go over several lines."""
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        line = line.rstrip("\n")
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t" and name:
            fields[name] += f"\n{line}"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    if fields:
        yield fields


def output(command: list[str]) -> Iterator[str]:
    """The lines that a command prints. Raises NoDescriptions when it fails."""
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace") as process:
            assert process.stdout is not None
            yield from process.stdout
    except FileNotFoundError:
        raise NoDescriptions(f"{command[0]} is not installed") from None
    if process.returncode != 0:
        raise NoDescriptions(f"{' '.join(command[:2])} failed")

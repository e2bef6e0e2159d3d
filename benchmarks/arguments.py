"""Kinds of arguments. What makes no sense is refused when it is read, before any server is started."""

import argparse
import json
import math
from collections.abc import Callable, Collection
from pathlib import Path


def whole(text: str) -> int:
    """A whole number of at least 1."""
    found = int(text)
    if found < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return found


def more_than_none(text: str) -> float:
    found = not_negative(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0")
    return found


def not_negative(text: str) -> float:
    found = float(text)
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no amount")
    return found


def wholes(text: str) -> str:
    """Whole numbers of at least 1, separated by commas."""
    for each in text.split(","):
        whole(each)
    return text


def some_of(names: Collection[str]) -> Callable[[str], str]:
    """Some of these names, separated by commas."""

    def chosen(text: str) -> str:
        unknown = [each for each in text.split(",") if each not in names]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {','.join(names)}")
        if len(set(text.split(","))) < len(text.split(",")):
            raise argparse.ArgumentTypeError(f"{text} has one of them twice")
        return text

    return chosen


def results_file(text: str) -> Path:
    """A JSON of results, or a name for a new one."""
    file = Path(text)
    if file.is_dir():
        raise argparse.ArgumentTypeError(f"{file} is a folder")
    if file.exists():
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{file} cannot be added to: {error}") from None
        cases = found.get("cases") if isinstance(found, dict) else None
        if not isinstance(cases, list) or not all(isinstance(each, dict) for each in cases):
            raise argparse.ArgumentTypeError(f"{file} holds no results of benchmarks")
    else:
        folder(str(file.parent))
    return file


def folder(text: str) -> Path:
    """A folder, or the name of one that can be made."""
    there = next(each for each in (Path(text), *Path(text).absolute().parents) if each.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{there} is no folder")
    return Path(text)

"""The question before a command that cannot be taken back: who is asked, and what counts as a yes.

The command runs as a process of its own on a terminal of its own, so that Ctrl-C and the end of the input are real.
"""

import os
import pty
import subprocess
import sys

import pytest

from settings import ROOT

PROGRAM = """
import fcntl, sys, termios
from clients.terminal import confirm, run

def command():
    unasked = "this does it" if "--hard" in sys.argv else None
    confirm("Do it?", "nothing was done", yes="--yes" in sys.argv, unasked=unasked)
    print("done")
    return 0

if sys.stdin.isatty():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C reaches this session
sys.exit(run("program", command))
"""


def start(stdin: int, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=ROOT,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def answered(answer: bytes, *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and what was said after the question, where somebody types this."""
    ours, theirs = pty.openpty()
    with start(theirs, *arguments) as process:
        os.close(theirs)
        assert process.stderr is not None
        question = "Do it? [y/N] "
        assert process.stderr.read(len(question)) == question
        os.write(ours, answer)
        output, said = process.communicate(timeout=30)
        os.close(ours)
    return process.returncode, output, said


@pytest.mark.parametrize("arguments", [(), ("--hard",)])
@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (b"y\n", (0, "done\n", "")),
        (b" YES \n", (0, "done\n", "")),
        (b"n\n", (1, "", "program: nothing was done\n")),
        (b"\n", (1, "", "program: nothing was done\n")),
        (b"\xff\n", (1, "", "program: nothing was done\n")),
        (b"\x04", (1, "", "\nprogram: nothing was done\n")),  # the end of the input
        (b"\x03", (130, "", "")),  # Ctrl-C
    ],
)
def test_only_a_yes_is_one(arguments: tuple[str, ...], answer: bytes, outcome: tuple[int, str, str]) -> None:
    assert answered(answer, *arguments) == outcome


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 0, ""),
        (("--yes",), 0, ""),
        (("--hard", "--yes"), 0, ""),
        (("--hard",), 2, "program: this does it: without a terminal to ask on, it wants --yes too\n"),
    ],
)
def test_without_a_terminal_only_what_destroys_something_is_refused(
    arguments: tuple[str, ...], code: int, said: str
) -> None:
    with start(subprocess.DEVNULL, *arguments) as process:
        assert process.communicate(timeout=30) == ("" if code else "done\n", said)
    assert process.returncode == code

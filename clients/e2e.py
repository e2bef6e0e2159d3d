"""`python -m clients.e2e`, which is ./e2e_test.sh: seven checks of the running system, a line each.

Starts the system when nobody answers, deletes what it has created, and returns 0 when all is well, else 1.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import settings as configuration
import streams
from clients import rest
from clients.command_line import Parser
from clients.e2e_checks import CHECKS, Trial, Unmet
from clients.terminal import CommandFailed, Unreachable, one_line, run, say
from settings import ROOT

WHOLE_SECONDS = 55.0


def main(arguments: list[str]) -> int:
    parser = Parser(
        prog="./e2e_test.sh",
        description="Seven checks of the running system, which it starts when it is down.",
        epilog="exit codes: 0 all is well, 1 a check failed, or the system did not start, 2 wrong usage or setting, "
        "130 interrupted",
    )
    parser.add_argument("--docker", action="store_true", help="if nothing runs yet, start it by docker compose")
    return run("e2e_test.sh", lambda: check(parser.parse_args(arguments)))


def check(given: argparse.Namespace) -> int:
    trial = Trial(configuration.load())
    if not answers(trial.text_api):
        say("nothing is running yet: starting it")
        command = [str(ROOT / "start.sh"), "--no-demo", *(["--docker"] if given.docker else [])]
        if run_to_its_end(command) != 0:
            raise CommandFailed("the system did not start: see above")
    began = time.monotonic()
    try:
        passed = [passes(trial, name, call, began, seconds) for name, call, seconds in CHECKS]
    finally:
        clean_up(trial)
    tell(f"{sum(passed)} of {len(passed)} passed in {time.monotonic() - began:.1f} s")
    return 0 if all(passed) else 1


def run_to_its_end(command: list[str]) -> int:
    """The exit code of a command. Ctrl-C reaches the command too, which then has to clean up: subprocess.run would kill
    it after a quarter of a second. Raises KeyboardInterrupt when the command has ended."""
    running = subprocess.Popen(command)
    interrupted = False
    while True:
        try:
            code = running.wait()
            break
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt
    return code


def answers(api: rest.Api) -> bool:
    try:
        api.call("GET", "/health", also=(503,))
    except Unreachable:
        return False
    except CommandFailed:
        pass  # somebody is there
    return True


def passes(trial: Trial, name: str, call: Callable[[Trial], None], began: float, seconds: float) -> bool:
    """Runs a check within its time and what is left of the whole, and prints its line."""
    start = time.monotonic()
    trial.deadline = min(start + seconds, began + WHOLE_SECONDS)
    try:
        call(trial)
    except (Unmet, CommandFailed) as error:
        tell(f"✗ {name}: {one_line(str(error))}")
        return False
    tell(f"✓ {name} ({time.monotonic() - start:.1f} s)")
    return True


def tell(line: str) -> None:
    """A line of the output. If its reader has enough (`| grep -m1 ✗`), the exit code still has to tell the rest."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        streams.discard_output()


def clean_up(trial: Trial) -> None:
    """Deletes the trial's messages; those that never came, or are gone already, answer 404."""
    for message_id in trial.created:
        try:
            trial.text_api.call("DELETE", rest.message_path(message_id), also=(404,))
        except CommandFailed as error:
            say(f"{message_id} is not deleted: {one_line(str(error))}")
            if isinstance(error, Unreachable):
                return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

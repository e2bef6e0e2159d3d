"""What each command of the stack takes, and its help. What it does is in stack.commands."""

import argparse

import streams


def read(given: list[str]) -> argparse.Namespace:
    """The parsed command line; `command` says which command it is. Ends the process after --help and wrong usage.

    Each command reads its own words, so that its help names it as it was typed, and options may stand anywhere.
    """
    parser = argparse.ArgumentParser(
        prog="python -m stack", description="The pipeline on this machine, without containers."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_commands(commands)
    own = commands.choices.get(given[0]) if given else None
    return parser.parse_args(given) if own is None else own.parse_intermixed_args(given[1:])


def _add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    install = commands.add_parser("install", help="install what is missing into the checkout")
    install.add_argument("--dev", action="store_true", help="also what the tests need")
    install.add_argument("--no-ui", action="store_true", help="without the Kafka UI")
    install.set_defaults(command="install")

    start = commands.add_parser(
        "start",
        prog="./start.sh",
        help="start everything and wait until it is well",
        description="Installs what is missing, starts everything, waits until it is well and sends a message through "
        "it. Settings are read from .env and the environment; .env.example lists them.",
        epilog="exit codes: 0 it runs, 1 it does not, 2 wrong usage or setting, 130 interrupted",
    )
    start.add_argument("--no-demo", action="store_true", help="send no message at the end")
    start.add_argument("--docker", action="store_true", help="through docker compose")
    start.add_argument("--status", action="store_true", help="only show the state of the parts")
    start.set_defaults(command="start")

    stop = commands.add_parser(
        "stop",
        prog="./stop.sh",
        help="stop everything; data stays",
        description="Stops everything, so that each part ends what it has in hand. The data stays, without --volumes.",
        epilog="exit codes: 0 nothing runs any more, 1 not done, 2 wrong usage, 130 interrupted",
    )
    stop.add_argument("--volumes", action="store_true", help="remove the data too")
    stop.add_argument("--yes", action="store_true", help="without asking")
    stop.add_argument("--docker", action="store_true", help="the containers, whoever started them")
    stop.set_defaults(command="stop")

    status = commands.add_parser(
        "status",
        prog="./status.sh",
        help="show the state of the parts",
        description="Shows a line a part: whether it runs, its pid, its restarts and its port.",
        epilog="exit codes: 0 all of them run, 1 one is down, or nothing runs, 2 wrong usage, 130 interrupted",
    )
    status.add_argument("--docker", action="store_true", help="of the containers, whoever started them")
    status.set_defaults(command="status")

    _add_scale(commands)

    run = commands.add_parser("run", help="become one part (what the supervisor calls)")
    run.add_argument("name")
    run.set_defaults(command="run")


def _add_scale(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    scale = commands.add_parser(
        "scale",
        prog="./scale.sh",
        help="start or end workers of a queue while it runs",
        description="Starts or ends worker processes of a queue while the system runs; without a queue it shows how "
        "many there are. A worker that goes ends its task first. The next ./start.sh goes by PERSIST_WORKERS and "
        "EMBED_WORKERS again.",
        epilog="examples:\n  ./scale.sh\n  ./scale.sh embed 4\n  ./scale.sh persist 2 --json\n\n"
        "exit codes: 0 done, 1 not done, or what is done could not be told, 2 wrong usage or setting, 130 interrupted",
        formatter_class=streams.HelpFormatter,
    )
    scale.add_argument("queue", nargs="?", metavar="QUEUE", help="persist or embed")
    scale.add_argument("workers", nargs="?", metavar="N", help="how many worker processes it is to have")
    scale.add_argument("--timeout", type=streams.seconds, metavar="S", help="how long to wait for tasks in hand (300)")
    scale.add_argument("--json", action="store_true", help="print JSON, for machines")
    scale.set_defaults(command="scale")

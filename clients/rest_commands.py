"""The commands of cli.py: what they take, which call they make, and how its answer is shown."""

import argparse
from collections.abc import Callable
from typing import Any

import settings as configuration
import streams
from clients import json_form, rest, show, trace
from clients.command_line import Parser, utf8
from clients.place import place_in
from clients.rest import Answer, Api, Json
from clients.terminal import WrongUsage, run, say, standard_input

DESCRIPTION = "REST client of the text pipeline: store texts, read them, search them by meaning."

EXAMPLES = """\
examples:
  python cli.py health
  python cli.py create "Hello over REST"
  python cli.py create - --id note-1 --metadata '{"from": "a file"}' < note.txt
  python cli.py get note-1
  python cli.py list --limit 20 --q "hello world"
  python cli.py search "greetings" --limit 5
  python cli.py trace note-1
  python cli.py --json stats

exit codes: 0 done, 1 the server said no, 2 wrong usage or setting, 3 nobody answers
"""


def main(arguments: list[str]) -> int:
    return run("cli.py", lambda: dispatch(parser().parse_args(arguments)))


def parser() -> argparse.ArgumentParser:
    form = streams.HelpFormatter
    top = Parser(prog="cli.py", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=form)
    common(top, None, False)
    anywhere = Parser(add_help=False)
    common(anywhere, argparse.SUPPRESS, argparse.SUPPRESS)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, does: str, example: str, call: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(
            name, help=does, description=does, epilog=f"example:\n  python cli.py {example}", parents=[anywhere],
            formatter_class=form,
        )  # fmt: skip
        made.set_defaults(call=call)
        return made

    add("health", "Is the text API up, and everything that it needs?", "health", health)
    listing = add("list", "The newest messages.", 'list --limit 20 --q "hello -world"', list_messages)
    listing.add_argument("--limit", type=int, metavar="N", help="how many, 1 to 1000 (10); fewer if they exceed 8 MB")
    listing.add_argument("--cursor", help="go on from here: the 'next' of the page before")
    listing.add_argument("--q", metavar="WORDS", help="only those with these words (full text)")
    creating = add("create", "Stores a text.", 'create "Hello" --id greeting --metadata \'{"lang": "en"}\'', create)
    creating.add_argument("text", metavar="TEXT", help="the text; - reads it from standard input")
    creating.add_argument("--id", help="its id: a UUID or any string up to 255 characters (one is made)")
    creating.add_argument("--metadata", metavar="JSON", type=json_object, help="a JSON object that goes with it")
    getting = add("get", "One message.", "get test-123", get)
    getting.add_argument("id", metavar="ID", help="its UUID, or the id that it was sent with")
    searching = add("search", "The messages nearest to a query.", 'search "machine learning" --limit 5', search)
    searching.add_argument("query", metavar="QUERY", help="what to look for, in words of your own")
    searching.add_argument("--limit", type=int, metavar="N", help="how many, 1 to 100 (10)")
    searching.add_argument("--mode", choices=["semantic", "keyword", "hybrid"], help="how to search (semantic)")
    searching.add_argument("--filter", metavar="JSON", type=json_object, help="only messages whose metadata hold this")
    searching.add_argument("--search-url", metavar="URL", help="the search API (host of --url, SEARCH_API_PORT)")
    does = "The way of one record, from Kafka to the search, and how long each step took."
    tracing = add("trace", does, "trace text-messages:2:1041", trace_record)
    tracing.add_argument(
        "id", metavar="ID", help="a message's UUID, the id that it was sent with, or TOPIC:PARTITION:OFFSET"
    )
    add("stats", "How many messages, embeddings and dead letters there are, and what waits.", "stats", stats)
    return top


def common(target: argparse.ArgumentParser, nothing: Any, off: Any) -> None:
    """The options that may stand before or after the command."""
    target.add_argument("--url", default=nothing, help="the text API (http://localhost:5002, or TEXT_API_PORT)")
    target.add_argument("--json", action="store_true", default=off, help="print the answer as the JSON that came")
    target.add_argument("--api-key", default=nothing, metavar="KEY", help="the API key (the first of API_KEYS)")


def json_object(text: str) -> Json:
    utf8(text)
    try:
        value = json_form.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('not a JSON object, such as \'{"lang": "en"}\'')
    return Json(text)


def dispatch(given: argparse.Namespace) -> int:
    settings = configuration.load()
    given.url = given.url or rest.text_url(settings)
    given.api_key = given.api_key or settings.own_api_key
    given.settings = settings
    return int(given.call(given))


def text_api(given: argparse.Namespace) -> Api:
    return Api(given.url, given.api_key)


def answer(given: argparse.Namespace, found: Answer, human: Callable[[Any], None]) -> int:
    if given.json:
        print(json_form.shown(found.text.strip()))
    else:
        human(found.document)
    return 0


def health(given: argparse.Namespace) -> int:
    found = text_api(given).call("GET", "/health", also=(503,), has="status")
    answer(given, found, show.health)
    if found.status != 200:
        say(f"cli.py: {show.unhealthy(found.document)}: ./status.sh shows what runs")
        return 1
    return 0


def list_messages(given: argparse.Namespace) -> int:
    parameters = {"limit": given.limit, "cursor": given.cursor, "q": given.q}
    found = text_api(given).call("GET", "/messages", parameters=parameters, has="messages")
    return answer(given, found, show.messages)


def create(given: argparse.Namespace) -> int:
    text = read_text() if given.text == "-" else given.text
    body = {"message": text, "id": given.id, "metadata": given.metadata}
    return answer(given, text_api(given).call("POST", "/messages", body=body, has="id"), show.created)


def read_text() -> str:
    """Standard input as it is, without the line break that an editor or `echo` puts at its end."""
    try:
        return standard_input().read().decode("utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise WrongUsage(f"standard input is not UTF-8 at byte {error.start}") from None


def get(given: argparse.Namespace) -> int:
    return answer(given, text_api(given).call("GET", rest.message_path(given.id), has="id"), show.message)


def search(given: argparse.Namespace) -> int:
    api = Api(given.search_url or rest.search_url(given.url, given.settings), given.api_key)
    body = {"query": given.query, "limit": given.limit, "mode": given.mode, "filter": given.filter}
    return answer(given, api.call("POST", "/embeddings/search", body=body, has="results"), show.hits)


def trace_record(given: argparse.Namespace) -> int:
    api = text_api(given)
    path = rest.message_path(given.id, "trace")
    place = place_in(given.id)
    if place is None:
        return answer(given, api.call("GET", path, has="steps"), trace.show)
    try:
        found = api.call("GET", "/trace", parameters=place._asdict(), has="steps")
    except rest.Refused as refused:
        if refused.status != 404:
            raise
        try:
            found = api.call("GET", path, has="steps")  # an id may look like a place
        except rest.Refused:
            raise refused from None
    return answer(given, found, trace.show)


def stats(given: argparse.Namespace) -> int:
    return answer(given, text_api(given).call("GET", "/stats"), show.stats)

"""Calls to the REST APIs with nothing but the standard library: an answer, a refusal, or nobody there."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from clients import json_form
from clients.terminal import CommandFailed, Unreachable, WrongUsage
from settings import Settings

# A POST may wait POST_WAIT_SECONDS for its record to be stored; this is well above that, and above a slow search.
ANSWER_SECONDS = 30.0

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Json(str):
    """JSON text that goes into a body as it was typed, so that its numbers keep their digits."""


class Answer(NamedTuple):
    """What a server said: the body as it came (numbers keep their digits in it) and parsed."""

    status: int
    text: str
    document: Any


class Refused(CommandFailed):
    """The server said no; the message is the detail of its problem document."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Redirection(urllib.request.HTTPRedirectHandler):
    """Follows that of a GET only, as urllib goes on with a POST as a GET, and nothing would be stored; and with a key
    only where the same server is, as urllib hands on each header to whoever is named."""

    def redirect_request(
        self, request: urllib.request.Request, answer: Any, status: int, reason: str, headers: Any, target: str
    ) -> urllib.request.Request | None:
        is_known = not request.has_header("Authorization") or is_same_server(request.full_url, target)
        if request.get_method() == "GET" and is_known:
            return super().redirect_request(request, answer, status, reason, headers, target)
        answer.close()
        raise Refused(status, f"{status} {reason}: {request.full_url} is at {target} now: check --url")


class Api:
    """One of the two APIs, by its base URL. Calls raise Refused or Unreachable."""

    def __init__(self, url: str, key: str | None = None, *, seconds: float = ANSWER_SECONDS) -> None:
        self.url = split(url)
        self.key = key
        self.seconds = seconds
        # A proxy of the environment cannot know what listens on this machine.
        proxies = urllib.request.ProxyHandler({} if self.url.hostname in LOOPBACK else None)
        self.opener = urllib.request.build_opener(proxies, Redirection)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        parameters: dict[str, object] | None = None,
        also: tuple[int, ...] = (),
        has: str | None = None,
    ) -> Answer:
        """Sends a request; the members of `body` that are not None go as JSON. Statuses in `also` are answers too. An
        answer without the member `has` is another server's."""
        given = {name: value for name, value in (parameters or {}).items() if value is not None}
        target = self.url.geturl().rstrip("/") + path
        headers = {"Accept": "application/json, application/problem+json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        content = None
        if body is not None:
            content = encode(body)
            headers["Content-Type"] = "application/json"
        try:
            target += f"?{urlencode(given)}" if given else ""
            request = urllib.request.Request(target, data=content, headers=headers, method=method)
            with self.opener.open(request, timeout=self.seconds) as response:
                return read(target, response.status, response.reason, response.read(), also, has)
        except urllib.error.HTTPError as error:
            with error:
                return read(target, error.code, error.reason, error.read(), also, has)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(unreachable(self.url.geturl(), error)) from error
        except ValueError as error:  # http.client: a header or a URL with characters that may not be in one
            raise WrongUsage(f"{error}: check --url and --api-key") from error


def encode(body: Mapping[str, object]) -> bytes:
    given = {name: value for name, value in body.items() if value is not None}
    members = (
        f"{json.dumps(name)}: {value if isinstance(value, Json) else json.dumps(value)}"
        for name, value in given.items()
    )
    return f"{{{', '.join(members)}}}".encode("utf-8", "surrogateescape")


def message_path(message_id: str, calls: str = "messages") -> str:
    """The path of a message; an id may hold any character, slashes too."""
    return f"/{calls}/{quote(message_id, safe='', errors='surrogatepass')}"


def split(url: str) -> SplitResult:
    """The parts of a base URL; `localhost:5002` means http. Raises WrongUsage."""
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise WrongUsage(f"{url!r} is not a URL: expected something like http://localhost:5002")
    return parts._replace(query="", fragment="")


def is_same_server(url: str, target: str) -> bool:
    """Whether both have the same origin, or the target is the https of a host that was asked by http."""
    before, after = urlsplit(url), urlsplit(target)
    if (before.scheme, before.netloc) == (after.scheme, after.netloc):
        return True
    return before.hostname == after.hostname and (before.scheme, after.scheme) == ("http", "https")


def text_url(settings: Settings) -> str:
    """Where the text API of these settings is, seen from this machine."""
    everywhere = settings.bind_host in ("", "127.0.0.1", "0.0.0.0", "::", "::1")
    return f"http://{'localhost' if everywhere else bracketed(settings.bind_host)}:{settings.text_api_port}"


def search_url(text_api_url: str, settings: Settings) -> str:
    """The search API beside a text API: the same host, at SEARCH_API_PORT."""
    parts = split(text_api_url)
    return f"{parts.scheme}://{bracketed(parts.hostname or '')}:{settings.search_api_port}"


def bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def read(
    target: str, status: int, reason: str, content: bytes, also: tuple[int, ...], has: str | None = None
) -> Answer:
    text = content.decode("utf-8", "replace")
    try:
        document = json_form.parse(text) if text.strip() else None
    except ValueError:
        document = None
    if status < 400 or status in also:
        if not isinstance(document, dict) or (has is not None and has not in document):
            raise Refused(status, f"{target} did not answer as this API does: is it the right URL? (--url)")
        return Answer(status, text, document)
    raise Refused(status, f"{status} {reason}: {detail(document) or f'no reason given by {target}'}")


def detail(document: object) -> str:
    """The reason in a problem document (RFC 9457), with the id that makes posting again safe, if there is one."""
    if not isinstance(document, dict):
        return ""
    said = str(document.get("detail") or document.get("title") or "")
    return f"{said} (id {document['id']})" if document.get("id") else said


def unreachable(url: str, error: Exception) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return f"{url} did not answer in time: ./status.sh shows what runs"
    what = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return f"nobody answers at {url} ({what}): start the system by ./start.sh, or give another --url"

"""API keys. With API_KEYS set, every call but the open ones wants one; a browser sends it once, and gets a cookie.

The cookie holds the time when it ends, and an HMAC of that time under the key. So nothing is kept here, and a cookie
ends by itself, or at once when its key is taken out of API_KEYS.
"""

import hashlib
import hmac
import time
from urllib.parse import quote, urlsplit

from flask import Flask, Response, redirect, render_template, request

from api import incoming
from api.problems import Problem
from settings import Settings

COOKIE = "text_session"
DAYS = 30
OPEN = frozenset({"/health", "/metrics", "/session"})
FILES = ("static", "swagger_file", "console.static")
PURPOSE = b"a session of the web console until "


def digest(key: str) -> bytes:
    """Keys are compared by their digests, which all have the same length."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def key_is_right(given: str, settings: Settings) -> bool:
    # Every key is compared, so that the time says nothing about which one came close.
    matches = [hmac.compare_digest(digest(given), digest(key)) for key in settings.api_key_set]
    return any(matches)


def signature(key: str, ends: str) -> str:
    return hmac.new(key.encode(), PURPOSE + ends.encode(), hashlib.sha256).hexdigest()


def new_cookie(key: str) -> str:
    ends = str(int(time.time()) + DAYS * 24 * 3600)
    return f"{ends}.{signature(key, ends)}"


def cookie_name(key: str) -> str:
    """Of its own for each key: cookies do not tell ports apart, so another installation's would take its place."""
    return f"{COOKIE}_{signature(key, '')[:8]}"


def is_signed_in(settings: Settings) -> bool:
    cookies = [request.cookies.get(cookie_name(key), "") for key in settings.api_key_set]
    return any(cookie_is_right(each, settings) for each in cookies)


def cookie_is_right(cookie: str, settings: Settings) -> bool:
    ends, _, given = cookie.partition(".")
    if not (ends.isascii() and ends.isdigit() and given.isascii()):
        return False
    matches = [hmac.compare_digest(given, signature(key, ends)) for key in settings.api_key_set]
    return any(matches) and len(ends) < 12 and int(ends) > time.time()


def keys_of_request() -> list[str]:
    """The keys that came in headers. WSGI hands headers on as Latin-1; keys are UTF-8."""
    given = request.headers.getlist("X-API-Key")
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        given.append(token.strip())
    return [each.encode("latin-1", "replace").decode("utf-8", "surrogateescape") for each in given]


def refusal() -> Response:
    """401: for a browser the page that asks for the key, for everybody else a problem document."""
    wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    is_button = request.mimetype == "application/x-www-form-urlencoded"
    if wanted == "text/html" and (request.method == "GET" or is_button):
        then = "/" if is_button else wanted_page()
        page = Response(render_template("sign_in.html", then=then, wrong=False), 401, content_type="text/html")
        page.headers["WWW-Authenticate"] = "Bearer"
        return page
    detail = "send a key of API_KEYS as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"
    return Problem(401, detail, headers={"WWW-Authenticate": "Bearer"}).answer()


def wanted_page() -> str:
    """The path that was asked for, with its query, as it was written: unescaped, an id with / ? % or # would be another
    path. gunicorn hands the target on as it came."""
    raw: str = request.environ.get("RAW_URI", "")
    if raw.isascii() and local(raw) == raw:
        return raw
    query = request.query_string.decode("latin-1")
    return local(quote(request.path, safe="/") + (f"?{query}" if query else ""))


def register(app: Flask, settings: Settings) -> None:
    @app.before_request
    def check() -> Response | None:
        if not settings.api_key_set or request.path in OPEN or request.endpoint in FILES:
            return None
        given = keys_of_request()
        if given:
            return None if any(key_is_right(each, settings) for each in given) else refusal()
        return None if is_signed_in(settings) else refusal()

    @app.post("/session")
    def sign_in() -> Response:
        incoming.take_form(request, settings.max_body_bytes)
        key, then = request.form.get("key", "").strip(), local(request.form.get("then", "/"))
        if settings.api_key_set and not key_is_right(key, settings):
            return Response(render_template("sign_in.html", then=then, wrong=True), 401, content_type="text/html")
        answer = Response(status=303, headers={"Location": then})
        if settings.api_key_set:
            answer.set_cookie(
                cookie_name(key),
                new_cookie(key),
                max_age=DAYS * 24 * 3600,
                httponly=True,
                samesite="Lax",  # "Strict" would ask again whoever follows a link from another site
                secure=request.is_secure,
            )
        return answer

    @app.get("/session")
    @app.get("/session/end")
    def opened_by_itself() -> Response:
        """Answers GET at the addresses of pages that ask for the key: after a wrong one, and after the session."""
        return Response(status=303, headers={"Location": "/"})

    @app.post("/session/end")
    def sign_out() -> Response:
        answer = redirect("/", 303)
        for key in settings.api_key_set:
            answer.delete_cookie(cookie_name(key), httponly=True, samesite="Lax")
        return Response(answer.get_data(), 303, answer.headers)


def local(target: str) -> str:
    """A path of this site, or / for anything else: nobody may be sent elsewhere after signing in."""
    try:
        parts = urlsplit(target)
    except ValueError:  # an address that cannot be one
        return "/"
    plain = not parts.scheme and not parts.netloc and target.startswith("/") and "\\" not in target
    return target if plain and target.isprintable() and not target.startswith("//") else "/"

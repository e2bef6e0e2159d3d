"""What keeps the console's buttons safe from other sites, and its pages from what is in the texts.

A button's form carries a token that only a page of ours can know: it is made of a random cookie that scripts and other
sites cannot read. Cookies do not tell ports apart, so what the browser says of the form's origin counts too.
"""

import hashlib
import hmac
import secrets
from urllib.parse import urlsplit

from flask import Response, g, request

from api.problems import Problem

COOKIE = "text_console"
FIELD = "token"
PURPOSE = b"a form of the console"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)


def token() -> str:
    """The token for the forms of the page that is being made."""
    known = request.cookies.get(COOKIE, "")
    if not is_ours(known):
        known = g.setdefault("new_console_cookie", secrets.token_urlsafe(32))
    return made_of(known)


def is_ours(cookie: str) -> bool:
    return len(cookie) == 43 and cookie.isascii() and cookie.replace("-", "").replace("_", "").isalnum()


def made_of(cookie: str) -> str:
    return hmac.new(cookie.encode(), PURPOSE, hashlib.sha256).hexdigest()


def check() -> None:
    """Raises Problem 403 unless the request comes from a form of our own."""
    cookie, given = request.cookies.get(COOKIE, ""), request.form.get(FIELD, "")
    if foreign() or not is_ours(cookie) or not hmac.compare_digest(given.encode(), made_of(cookie).encode()):
        raise Problem(403, "this did not come from a page of this console, or that page is old: load it again")


def foreign() -> bool:
    """Whether the browser says that another site is asking. A proxy may change the host, but not what the browser
    says."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site != "same-origin"
    origin = request.headers.get("Origin")
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:  # no address at all, so not ours
        return True


def harden(response: Response) -> Response:
    """Sets the headers of every page of the console, and the cookie if there is a new one."""
    response.headers["Content-Security-Policy"] = POLICY
    # Not "no-referrer": browsers would then send `Origin: null` with our own forms.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Vary"] = "Accept, Cookie, HX-Request"
    if "new_console_cookie" in g:
        # Not "Strict": whoever follows a link from another site would come without the cookie and get a new one, with
        # which the forms of all open pages are refused. A POST from another site comes without it either way.
        response.set_cookie(
            COOKIE, g.new_console_cookie, httponly=True, samesite="Lax", secure=request.is_secure, path="/"
        )
    return response

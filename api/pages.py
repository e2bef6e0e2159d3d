"""The pages that a browser gets: /docs, and on the search API a search form with its hits, rendered without scripts.

Swagger UI, which /docs shows, is the one exception; its files come from the package flask-swagger-ui.
"""

from importlib.metadata import files
from pathlib import Path
from typing import Any

from flask import Flask, Response, render_template, request, send_file
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import NotFound

from api import auth, incoming, search
from api.parts import Parts
from api.problems import Problem, from_database
from api.schemas import SearchRequest
from db import queries

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SWAGGER_FILES = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"})
MODES = {"semantic": "by meaning", "keyword": "by words", "hybrid": "both"}
SHOWN_CHARS = 400


def register(app: Flask, parts: Parts, title: str) -> None:
    @app.get("/docs")
    def docs() -> Response:
        page = html(render_template("docs.html", title=title))
        page.headers["Content-Security-Policy"] = DOCS_POLICY
        return page

    @app.get("/docs/files/<name>")
    def swagger_file(name: str) -> Response:
        if name not in SWAGGER_FILES:
            raise NotFound
        return send_file(swagger_folder() / name, max_age=3600)

    if parts.role == "search":

        @app.get("/")
        def search_page() -> Response:
            return show_search(parts)


def swagger_folder() -> Path:
    (bundle,) = (file for file in files("flask-swagger-ui") or () if file.name == "swagger-ui-bundle.js")
    return Path(str(bundle.locate())).parent


def html(text: str, status: int = 200) -> Response:
    return Response(text, status, content_type="text/html; charset=utf-8")


def show_search(parts: Parts) -> Response:
    """The form, and below it the hits of `q`, or why there are none; and how far the index is."""
    asked = request.args.get("q", "")
    mode = request.args.get("mode", "semantic")
    found: dict[str, Any] | None = None
    problem: Problem | None = None
    state: queries.Row | None = None
    try:
        if asked.strip():
            found = search.find(parts, SearchRequest.model_validate({"query": asked, "mode": mode}))
        with parts.reader.connect() as connection:
            state = queries.status(connection)
    except ValidationError as error:
        problem = incoming.from_validation(error)
    except SQLAlchemyError as error:
        problem = from_database(error)
    except Problem as error:
        problem = error
    page = render_template(
        "search.html",
        asked=asked,
        mode=mode,
        modes=MODES,
        found=found,
        problem=problem,
        state=state,
        signed_in=auth.COOKIE in request.cookies and bool(parts.settings.api_key_set),
        shown_chars=SHOWN_CHARS,
    )
    return html(page, problem.status if problem else 200)

"""The page at /docs of both APIs: Swagger UI, whose files come from the package flask-swagger-ui, shows the document.

The search API's web console is a package of its own (api.console).
"""

from importlib.metadata import files
from pathlib import Path

from flask import Flask, Response, render_template, send_file
from werkzeug.exceptions import NotFound

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SWAGGER_FILES = frozenset({"swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"})


def register(app: Flask, title: str) -> None:
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


def swagger_folder() -> Path:
    (bundle,) = (file for file in files("flask-swagger-ui") or () if file.name == "swagger-ui-bundle.js")
    return Path(str(bundle.locate())).parent


def html(text: str) -> Response:
    return Response(text, content_type="text/html; charset=utf-8")

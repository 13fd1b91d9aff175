"""/docs: the OpenAPI document to read and to try in a browser, by Swagger UI.

Its files come from the package flask-openapi-swagger and nothing is fetched from elsewhere: the page's policy forbids it.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from flask import Response
from flask_openapi.openapi import OpenAPI
from pydantic import BaseModel

from ovsnet.errors import NotFound

_OURS: Final = resources.files(__package__) / "swagger"
_THEIRS: Final = resources.files("flask_openapi_swagger") / "templates" / "swagger"

_FILES: Final = {
    "start.js": (_OURS / "start.js", "text/javascript"),
    "swagger-ui-bundle.js": (_THEIRS / "js" / "swagger-ui-bundle.js", "text/javascript"),
    "swagger-ui.css": (_THEIRS / "css" / "swagger-ui.css", "text/css"),
}


class FileName(BaseModel):
    """Path of a file of the page."""

    name: str


POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # its icons
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def register(app: OpenAPI) -> None:
    """Serve the page and its files."""

    @app.get("/docs", doc_ui=False)
    def docs() -> Response:
        response = Response((_OURS / "index.html").read_bytes(), mimetype="text/html")
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    @app.get("/docs/<path:name>", doc_ui=False)
    def docs_file(path: FileName) -> Response:
        if path.name not in _FILES:
            raise NotFound(f"there is no file {path.name[:80]!r}", hint="/docs is the page")
        file, mimetype = _FILES[path.name]
        response = Response(file.read_bytes(), mimetype=mimetype)
        response.headers["Cache-Control"] = "max-age=3600"
        return response

"""Problem documents (RFC 9457): every error of the API, whoever raised it, answers as one.

Owns the one table from error code to HTTP status. Called by `create_app` only.
"""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

from flask import Flask, Response, g, json, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from ovsnet import errors
from ovsnet.errors import InvalidRequest, NotFound, OvsnetError, TooManyRequests, Unauthenticated

from .schemas import Refused

MIMETYPE = "application/problem+json"
MAX_REFUSALS = 8

STATUS = {
    "invalid-request": 400,
    "invalid-netns": 400,
    "address-not-in-pool": 400,
    "key-reused": 422,
    "precondition-missing": 428,
    "unauthenticated": 401,
    "forbidden": 403,
    "not-found": 404,
    "pool-not-found": 404,
    "network-not-found": 404,
    "endpoint-not-found": 404,
    "conflict": 409,
    "already-exists": 409,
    "pool-overlap": 409,
    "tag-in-use": 409,
    "address-in-use": 409,
    "in-use": 409,
    "link-exists": 409,
    "port-in-use": 409,
    "attachment-broken": 409,
    "precondition-failed": 412,
    "exhausted": 409,
    "pool-exhausted": 409,
    "internal": 500,
    "bad-config": 500,
    "unavailable": 503,
    "state-unavailable": 503,
    "switch-unavailable": 503,
    "link-failed": 503,
    "too-many-requests": 429,
    "deadline-exceeded": 504,
}

DOCUMENTED = {
    "description": "A problem (RFC 9457). `code` is stable; `hint` says what to do.",
    "content": {MIMETYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}

_log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Make `app` answer every error with a problem document."""
    app.register_error_handler(OvsnetError, from_error)
    app.register_error_handler(HTTPException, _from_http)
    app.register_error_handler(Exception, _from_defect)


def from_error(error: OvsnetError, status: int | None = None) -> Response:
    """The problem document of an error; `status` where HTTP itself gives a better one than the table."""
    status = status or STATUS[error.code]
    instance = quote(request.path)
    g.problem = error  # for the operation's line in the log
    if status == STATUS["internal"]:
        _log.error("%s %s failed", request.method, instance, exc_info=error.__cause__ or error)
    document: dict[str, Any] = errors.problem(error) | {"status": status, "instance": instance}
    response = Response(json.dumps(document), status, mimetype=MIMETYPE)
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = error.details.get("retry_after", "1")
    return response


def from_validation(error: ValidationError) -> Response:
    """The problem document of a request that its schema refuses: the detail names the offending keys, the first few."""
    details: dict[str, str] = {}
    hints: list[str] = []
    for found in error.errors(include_url=False, include_input=False)[:MAX_REFUSALS]:
        cause = found.get("ctx", {}).get("error")
        message = str(cause) if cause else found["msg"][0].lower() + found["msg"][1:]
        key = cause.key if isinstance(cause, Refused) and cause.key else ".".join(map(str, found["loc"]))
        details[key] = message
        if isinstance(cause, Refused) and cause.hint:
            hints.append(cause.hint)
    refusal = InvalidRequest(
        "; ".join(f"{key}: {message}" for key, message in details.items()),
        hint="; ".join(dict.fromkeys(hints)) or "/openapi.json tells what each request takes",
    )
    refusal.details = details
    return from_error(refusal)


def _from_http(error: HTTPException) -> Response:
    status = error.code or STATUS["internal"]
    methods = ", ".join(sorted(error.valid_methods or ())) if isinstance(error, MethodNotAllowed) else ""
    known: dict[int, OvsnetError] = {
        404: NotFound(f"nothing is at {request.path}", hint="/openapi.json lists all paths"),
        405: InvalidRequest(f"{request.method} is not possible at {request.path}", hint=f"it takes {methods}"),
        413: InvalidRequest("the body is too large", hint="send 1 MiB at most"),
        415: InvalidRequest("the body is not declared as JSON", hint="send Content-Type: application/json"),
    }
    response = from_error(known.get(status) or InvalidRequest(error.description or error.name), status)
    for name, value in error.get_headers():
        if name.lower() != "content-type":  # Allow of a 405
            response.headers[name] = value
    return response


def defect(error: Exception) -> OvsnetError:
    """What callers are told of an error that nobody thought of."""
    internal = OvsnetError("ovsnetd failed on this request", hint="its log has the traceback; please report it")
    internal.__cause__ = error
    return internal


def _from_defect(error: Exception) -> Response:
    return from_error(defect(error))

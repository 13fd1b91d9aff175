"""What makes an operation of each request: its id, its line in the log, its observation. Called by `create_app` only."""

from __future__ import annotations

import logging
from urllib.parse import quote

from flask import Flask, Response, g, request

from ovsnet.operations import OK, Observe, Operation

HEADER = "X-Request-Id"  # of a request: the id that the caller wants; of an answer: the one that the log has


def register(app: Flask, observe: Observe) -> None:
    """Have `observe`, the log and the caller told of each request to `app` that is one of the API."""

    @app.before_request
    def begin() -> None:
        if request.blueprint == "cni":  # which tells of itself
            return
        name = (request.endpoint or "unknown").rpartition(".")[2]
        g.operation = Operation("rest", name, observe, request.headers.get(HEADER, ""))

    @app.after_request
    def end(response: Response) -> Response:
        operation: Operation | None = g.get("operation")
        if operation is None:
            return response
        problem = g.get("problem")
        operation.end(problem.code if problem else OK)
        response.headers[HEADER] = operation.id
        # What only looks is not worth a line at the usual level: a monitor asks every few seconds.
        level = logging.DEBUG if request.method in ("GET", "HEAD") else logging.INFO
        operation.tell(
            level,
            method=request.method,
            path=quote(request.path),
            status=response.status_code,
            error=str(problem) if problem else None,
        )
        return response

"""The admin REST API: pools, networks and endpoints as resources under /v1, and /healthz.

An edge: it parses requests into the vocabulary, calls the use cases, and renders what they return. It owns the JSON
shapes (`schemas`) and the table from error code to HTTP status (`problems`), and no logic. The composition root serves
the app; the CNI blueprint may be registered on it.
"""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, jsonify
from flask_openapi.openapi import OpenAPI

from ovsnet.access import Guard, Rates
from ovsnet.audit import Audit
from ovsnet.jobs import Jobs
from ovsnet.operations import Observe, observe_nothing
from ovsnet.web import pages as web

from . import audit as audits
from . import (
    captures,
    changes,
    checks,
    document,
    endpoints,
    events,
    gate,
    health,
    jobs,
    leases,
    networks,
    operations,
    pools,
    problems,
    reconciliation,
    scrape,
    swagger_ui,
    tokens,
    traces,
)
from .resource import Checks, Reconciles, UseCases, looks_of
from .schemas import Problem, Token

MAX_BODY = 1 << 20  # bytes
DESCRIPTION = (
    "Container networks on Open vSwitch. On the unix socket the kernel tells who calls; from elsewhere it takes TLS with a "
    "token or a client certificate. `x-ovsnet-role` is the least role that an operation takes."
)

__all__ = ["MAX_BODY", "UseCases", "create_app"]


def create_app(
    controller: UseCases,
    checker: Checks,
    reconciler: Reconciles,
    *,
    version: str,
    guard: Guard | None = None,
    rates: Rates | None = None,
    observe: Observe = observe_nothing,
    metrics: Callable[[], bytes] = bytes,
    audit: Audit | None = None,
    work: Jobs | None = None,
) -> OpenAPI:
    """The REST API on the use cases as a Flask app; `version` is ovsnetd's, told in `/openapi.json` (OpenAPI 3.1).

    `guard` tells who callers are, by default root on the unix socket and nobody else; `rates` how often they may ask.
    `observe` is told of each operation; `metrics` renders what `/metrics` tells; `audit` remembers what callers change; `work`
    does what takes long.
    """
    guard = guard or Guard()
    audit = audit or Audit(None)
    work = work or Jobs()
    app = OpenAPI(
        "ovsnet.api",
        info={"title": "ovsnet", "version": version, "description": DESCRIPTION},
        validation_error_status="default",  # every operation documents its problems under "default"
        validation_error_model=Problem,
        validation_error_callback=problems.from_validation,
        doc_ui=False,
        static_folder=None,
    )
    app.openapi_version = "3.1.0"
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.json.sort_keys = False  # type: ignore[attr-defined]  # Flask's default provider has it
    problems.register(app)
    operations.register(app, observe)
    gate.register(app, guard, rates or Rates(0))
    for room in (pools, leases, events, endpoints, health, traces, captures):
        app.register_api(room.create_blueprint(controller))
    app.register_api(networks.create_blueprint(controller, work))
    app.register_api(checks.create_blueprint(checker, work))
    app.register_api(reconciliation.create_blueprint(reconciler))
    app.register_api(tokens.create_blueprint(guard.tokens))
    app.register_api(audits.create_blueprint(audit))
    app.register_api(jobs.create_blueprint(work))
    app.register_api(scrape.create_blueprint(metrics))
    # Now: the library builds it at the first call, and not for several threads at once.
    described = document.complete(app.api_doc)

    looks = looks_of(controller) | {"tokens": lambda ref: Token.of(guard.tokens.get(ref))}
    changes.register(app, looks, audit, document.queries(described))

    swagger_ui.register(app)
    app.register_blueprint(web.create_blueprint(controller))

    @app.get("/openapi.json", doc_ui=False)
    def openapi() -> Response:
        return jsonify(described)

    return app

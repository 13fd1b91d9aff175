"""/v1/check: do leases, endpoints, ports and links agree?"""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from .resource import Checks, answer, new_blueprint
from .schemas import Check, CheckRequest, Finding


def create_blueprint(checker: Checks) -> APIBlueprint:
    """The resource on `checker`."""
    blueprint = new_blueprint("check", "/v1/check")

    @blueprint.get("", responses={200: Check})
    def check() -> Response:
        """Tell what disagrees, and what a repair would do."""
        found = [Finding.of(one) for one in checker.check()]
        return answer(Check(ok=not found, mended=[], findings=found))

    @blueprint.post("", responses={200: Check})
    def repair(body: CheckRequest) -> Response:
        """Mend what is certain; tell what was mended and what is left."""
        mended, left = ([], checker.check()) if body.dry_run else checker.repair()
        return answer(
            Check(ok=not left, mended=[Finding.of(one) for one in mended], findings=[Finding.of(one) for one in left])
        )

    return blueprint

"""/v1/check: do leases, endpoints, ports and links agree?"""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, g
from flask_openapi.blueprint import APIBlueprint

from ovsnet.jobs import Jobs

from .jobs import begin, is_asked_for
from .resource import Checks, answer, new_blueprint
from .schemas import Check, CheckRequest, Finding, Operation


def create_blueprint(checker: Checks, jobs: Jobs) -> APIBlueprint:
    """The resource on `checker`; who prefers it gets its answer from `jobs`."""
    blueprint = new_blueprint("check", "/v1/check")

    def look() -> Check:
        found = [Finding.of(one) for one in checker.check()]
        return Check(ok=not found, mended=[], findings=found)

    def mend() -> Check:
        mended, left = checker.repair()
        return Check(
            ok=not left, mended=[Finding.of(one) for one in mended], findings=[Finding.of(one) for one in left]
        )

    def respond(kind: str, work: Callable[[], Check]) -> Response:
        if is_asked_for():
            return begin(jobs, kind, "", lambda _progress: work().model_dump(mode="json"))
        return answer(work())

    @blueprint.get("", responses={200: Check, 202: Operation})
    def check() -> Response:
        """Tell what disagrees, and what a repair would do."""
        return respond("check", look)

    @blueprint.post("", responses={200: Check, 202: Operation})
    def repair(body: CheckRequest) -> Response:
        """Mend what is certain; tell what was mended and what is left."""
        g.rehearsal = body.dry_run
        return respond("check", look) if body.dry_run else respond("repair", mend)

    return blueprint

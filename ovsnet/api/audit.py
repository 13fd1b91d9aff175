"""/v1/audit: who changed what."""

from __future__ import annotations

from flask import Response
from flask_openapi.blueprint import APIBlueprint

from ovsnet.audit import MAX_CHANGES, Audit

from .pages import link
from .resource import answer, new_blueprint
from .schemas import AuditQuery, ChangeRecord, ChangeRecords


def create_blueprint(audit: Audit) -> APIBlueprint:
    """The resource on `audit`."""
    blueprint = new_blueprint("audit", "/v1/audit")

    @blueprint.get("", responses={200: ChangeRecords})
    def list_changes(query: AuditQuery) -> Response:
        """Who changed what by this API, the latest first."""
        limit = query.limit or MAX_CHANGES
        found = audit.changes(
            caller=query.caller, path=query.path, since=query.since, before=query.cursor, limit=limit + 1
        )
        cursor = str(found[limit - 1].id) if len(found) > limit else ""
        return link(answer(ChangeRecords([ChangeRecord.of(one) for one in found[:limit]])), cursor)

    return blueprint

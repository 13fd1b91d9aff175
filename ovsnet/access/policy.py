"""The least role of every operation of the REST API: the one place that says who may what. Pure.

The OpenAPI document repeats it as `x-ovsnet-role`; a test walks that document with every role. What is not in here, for nobody
thought of it, is the admin's.
"""

from __future__ import annotations

from typing import Final

from .roles import Role

# Told to anybody who can connect: whether ovsnetd works, and what the API is.
OPEN: Final = frozenset(
    {"GET /healthz", "GET /openapi.json", "GET /docs", "GET /docs/<path:name>", "GET /ui/static/<name>"}
)

_VIEWER: Final = (
    "GET /v1/pools",
    "GET /v1/pools/<ref>",
    "GET /v1/pools/<ref>/leases",
    "GET /v1/leases/history",
    "GET /v1/networks",
    "GET /v1/networks/<ref>",
    "GET /v1/endpoints",
    "GET /v1/endpoints/<uuid>",
    "GET /v1/check",
    "GET /v1/events",
    "GET /metrics",
    "GET /v1/operations",
    "GET /v1/operations/<id>",
    "POST /v1/trace",
    "GET /",
    "GET /ui/topology.json",
    "GET /ui/pools/<ref>",
    "GET /ui/endpoints",
    "GET /ui/events",
    "GET /ui/search",
    "GET /ui/trace",
)
_NODE: Final = (
    "POST /v1/endpoints",
    "DELETE /v1/endpoints/<uuid>",
    "POST /cni",
    "POST /cni/ipam",
)
_OPERATOR: Final = (
    "POST /v1/pools",
    "PATCH /v1/pools/<ref>",
    "DELETE /v1/pools/<ref>",
    "POST /v1/pools/<ref>/reservations",
    "DELETE /v1/pools/<ref>/reservations",
    "DELETE /v1/pools/<ref>/leases",
    "POST /v1/networks",
    "PATCH /v1/networks/<ref>",
    "DELETE /v1/networks/<ref>",
    "POST /v1/check",
    "POST /v1/reconcile",
    "PATCH /v1/endpoints/<uuid>",
    "POST /v1/captures/<uuid>",
)
_ADMIN: Final = (
    "GET /v1/audit",
    "GET /v1/tokens",
    "POST /v1/tokens",
    "DELETE /v1/tokens/<ref>",
)

LEAST: Final = {
    operation: role
    for role, operations in (
        (Role.VIEWER, _VIEWER),
        (Role.NODE, _NODE),
        (Role.OPERATOR, _OPERATOR),
        (Role.ADMIN, _ADMIN),
    )
    for operation in operations
}


def least_role(method: str, rule: str) -> Role | None:
    """The least role for a method of a route, written as Flask writes it (`/v1/pools/<ref>`); None: anybody."""
    operation = f"{'GET' if method in ('HEAD', 'OPTIONS') else method} {rule}"
    if operation in OPEN:
        return None
    if method == "OPTIONS":  # tells which methods there are, as /openapi.json does
        return Role.VIEWER
    return LEAST.get(operation, Role.ADMIN)

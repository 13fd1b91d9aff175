"""What the OpenAPI document says beyond what the library reads off the operations: who may call them, and how one is known.

Called by `create_app` only.
"""

from __future__ import annotations

import re
from typing import Any

from ovsnet.access import least_role

ROLE = "x-ovsnet-role"  # key of an operation: the least role that may call it; absent: anybody may

_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "A token, made by `POST /v1/tokens`"},
    "certificate": {"type": "mutualTLS", "description": "A client certificate that `certificate_roles` names"},
}


_PARAMETERS = {
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag of the state that the change is meant for, or * for whatever it is; else 412",
        "schema": {"type": "string"},
        "example": "*",
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key with the same request within a day gives the same answer and changes nothing more",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "Prefer": {
        "name": "Prefer",
        "in": "header",
        "description": "respond-async: answer 202 at once, with an operation to ask about (RFC 7240)",
        "schema": {"type": "string", "enum": ["respond-async"]},
    },
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with the operations' roles, the ways to say who one is, and the headers that all changes take."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components["parameters"] = {**_PARAMETERS, "IfMatchAlways": _PARAMETERS["IfMatch"] | {"required": True}}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            role = least_role(method.upper(), _rule(path))
            operation["security"] = [] if role is None else [{name: []} for name in _SCHEMES]
            if role is not None:
                operation[ROLE] = role.value
            headers = [] if method == "get" else ["IdempotencyKey"]
            if path.endswith("}") and method in ("patch", "delete"):
                headers.append("IfMatchAlways" if method == "patch" else "IfMatch")
            if (method, path) == ("get", "/v1/events"):  # the library knows one form of an answer only
                operation["responses"]["200"]["content"]["text/event-stream"] = {"schema": {"type": "string"}}
            if "202" in operation["responses"] and path == "/v1/check":
                headers.append("Prefer")
            if headers:
                references = [{"$ref": f"#/components/parameters/{name}"} for name in headers]
                operation["parameters"] = [*operation.get("parameters", ()), *references]
    return document


def queries(document: dict[str, Any]) -> dict[str, frozenset[str]]:
    """For each operation, such as `GET /v1/pools/<ref>`, the keys that its query may have."""
    return {
        f"{method.upper()} {_rule(path)}": frozenset(
            one["name"] for one in operation.get("parameters", ()) if one.get("in") == "query"
        )
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def _rule(path: str) -> str:
    """As Flask writes it."""
    return re.sub(r"{(\w+)}", r"<\1>", path)

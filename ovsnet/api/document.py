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
    "socket": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Not-Sent",
        "description": "On the unix socket the kernel tells who calls; nothing is sent",
    },
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with the operations' roles and the ways to say who one is."""
    document.setdefault("components", {})["securitySchemes"] = _SCHEMES
    for path, item in document["paths"].items():
        rule = re.sub(r"{(\w+)}", r"<\1>", path)
        for method, operation in item.items():
            role = least_role(method.upper(), rule)
            operation["security"] = [] if role is None else [{name: []} for name in _SCHEMES]
            if role is not None:
                operation[ROLE] = role.value
    return document

"""Roles and callers. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Self

from ovsnet.errors import InvalidRequest


class Role(enum.StrEnum):
    """What a caller may do; each may do all that those before it may."""

    VIEWER = "viewer"  # look
    NODE = "node"  # attach and detach containers, as a runtime on a node does
    OPERATOR = "operator"  # change pools, networks and endpoints
    ADMIN = "admin"  # say who may, and read who did

    def covers(self, least: Role) -> bool:
        """Whether who has this role may do what asks for `least`."""
        order = tuple(Role)
        return order.index(self) >= order.index(least)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The role of that name; InvalidRequest."""
        try:
            return cls(text)
        except ValueError:
            raise InvalidRequest(f"{text[:40]!r} is no role", hint=f"the roles are {', '.join(cls)}") from None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `name` is stable and stands in the audit log, such as `uid:0`, `token:ci` or `cert:CN=ci`."""

    name: str
    role: Role
    unlimited: bool = False  # not held to a rate

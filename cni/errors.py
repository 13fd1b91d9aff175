"""CNI's errors: the specification's codes and ours, and the one table from ovsnet's errors to them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ovsnet.errors import OvsnetError

# Reserved by the specification (section 5 "Error").
INCOMPATIBLE_VERSION: Final = 1
UNSUPPORTED_FIELD: Final = 2
UNKNOWN_CONTAINER: Final = 3
INVALID_ENVIRONMENT: Final = 4
CANNOT_DECODE: Final = 6
INVALID_CONFIG: Final = 7
TRY_AGAIN_LATER: Final = 11
NOT_AVAILABLE: Final = 50
INTERNAL: Final = 999

# The one table from our codes to CNI's; our own begin at 100 and are never given another meaning.
ERROR_CODES: Final[Mapping[str, int]] = {
    "internal": INTERNAL,
    "invalid-request": INVALID_CONFIG,
    "invalid-netns": INVALID_ENVIRONMENT,
    "address-not-in-pool": 100,
    "not-found": 101,
    "pool-not-found": 102,
    "network-not-found": 103,
    "endpoint-not-found": UNKNOWN_CONTAINER,
    "conflict": 110,
    "already-exists": 111,
    "pool-overlap": 112,
    "tag-in-use": 113,
    "address-in-use": 114,
    "in-use": 115,
    "link-exists": 116,
    "port-in-use": 117,
    "attachment-broken": 118,
    "exhausted": 120,
    "pool-exhausted": 121,
    "unavailable": TRY_AGAIN_LATER,
    "state-unavailable": TRY_AGAIN_LATER,
    "switch-unavailable": TRY_AGAIN_LATER,
    "link-failed": TRY_AGAIN_LATER,
    "deadline-exceeded": TRY_AGAIN_LATER,
    "too-many-requests": TRY_AGAIN_LATER,
    "forbidden": 130,
    "bad-config": 131,
    "unauthenticated": 132,
    "key-reused": 133,
    "precondition-missing": 134,
    "precondition-failed": 135,
}


class CniError(Exception):
    """An error in the protocol's own terms: its code, what happened, and what to do about it."""

    def __init__(self, code: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    @classmethod
    def of(cls, error: OvsnetError) -> CniError:
        """What `error` is in CNI's terms."""
        return cls(ERROR_CODES[error.code], error.message, error.hint)

    def render(self, version: str) -> dict[str, Any]:
        """The error document for a configuration of `version`."""
        return {"cniVersion": version, "code": self.code, "msg": self.message, "details": self.hint}

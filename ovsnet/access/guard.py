"""Tells who a caller is: by its token, its certificate, or the kernel's word on the other end of a unix socket.

Reads the WSGI environment as `ovsnet.access.listener` fills it. A header cannot fake what it reads: headers are HTTP_*.
"""

from __future__ import annotations

import grp
from collections.abc import Mapping
from typing import Any

from ovsnet.errors import Forbidden, Unauthenticated

from .roles import Caller, Role
from .tokens import Tokens

PEER = "ovsnet.peer"  # key of the environment: Peer of a unix socket
GONE = "ovsnet.gone"  # a function that tells whether the client has gone, without waiting
SUBJECTS = "ovsnet.subjects"  # names in a verified certificate, such as CN=ci and DNS:ci.example

_LOGIN_HINT = "send `Authorization: Bearer TOKEN`, or a certificate that `certificate_roles` names"


class Guard:
    """`group_roles` maps groups (names) to roles of their members on the unix socket, `certificate_roles` subjects.

    A token counts wherever it is sent. Root on the unix socket is an admin, and held to no rate.
    """

    def __init__(
        self,
        tokens: Tokens | None = None,
        *,
        group_roles: Mapping[str, Role] | None = None,
        certificate_roles: Mapping[str, Role] | None = None,
    ) -> None:
        self.tokens = tokens or Tokens(None)
        self._group_roles = dict(group_roles or {})
        self._certificate_roles = dict(certificate_roles or {})

    def caller(self, environ: Mapping[str, Any]) -> Caller:
        """Who sent this request. Unauthenticated if that is not told or not true, Forbidden for a caller without a role."""
        header = environ.get("HTTP_AUTHORIZATION")
        if header is not None:
            scheme, _, text = header.partition(" ")
            caller = self.tokens.caller(text.strip()) if scheme.lower() == "bearer" else None
            if caller is None:
                raise Unauthenticated("the token is not valid, has ended or was revoked", hint=_LOGIN_HINT)
            return caller
        peer = environ.get(PEER)
        if peer is not None:
            return self._peer(*peer)
        subjects: tuple[str, ...] = environ.get(SUBJECTS, ())
        if not subjects:
            raise Unauthenticated("the request does not tell who sends it", hint=_LOGIN_HINT)
        roles = [(self._certificate_roles[one], one) for one in subjects if one in self._certificate_roles]
        if not roles:
            raise Forbidden(f"{subjects[0]} has no role", hint="name it in the setting certificate_roles")
        role, subject = max(roles, key=lambda one: tuple(Role).index(one[0]))
        return Caller(f"cert:{subject}", role)

    def _peer(self, uid: int, groups: frozenset[int]) -> Caller:
        if uid == 0:
            return Caller("uid:0", Role.ADMIN, unlimited=True)
        roles = [role for name, role in self._group_roles.items() if _gid(name) in groups]
        if not roles:
            raise Forbidden(f"user {uid} has no role", hint="use sudo, or name one of its groups in group_roles")
        return Caller(f"uid:{uid}", max(roles, key=tuple(Role).index))


def _gid(name: str) -> int | None:
    """The number of a group of this host; None if there is none of that name."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None

"""What every request passes before its operation: who asks, may it, and how often.

The least role of an operation stands in `ovsnet.access.policy`. Called by `create_app` only.
"""

from __future__ import annotations

import math

from flask import Flask, Response, g, request

from ovsnet.access import Caller, Guard, Rates, least_role
from ovsnet.access.guard import PEER
from ovsnet.errors import Forbidden, TooManyRequests, Unauthenticated

_LOCAL = "/cni"  # paths below it are for this host's executables


def register(app: Flask, guard: Guard, rates: Rates) -> None:
    """Make `app` ask `guard` about every request, and limit callers by `rates`."""

    @app.before_request
    def admit() -> None:
        rule = request.url_rule
        least = None if rule is None else least_role(request.method, rule.rule)
        try:
            caller = guard.caller(request.environ)
        except Unauthenticated:
            _limit(rates, f"address:{request.remote_addr}")
            if rule is not None and least is None and "Authorization" not in request.headers:
                return
            raise
        if not caller.unlimited:
            _limit(rates, caller.name)
        g.caller = caller
        if least is not None and not caller.role.covers(least):
            raise Forbidden(
                f"{caller.name} is {_article(caller.role)} {caller.role}, and this takes {_article(least)} {least}",
                hint="ask an admin for a token with that role",
            )
        if rule is not None and rule.rule.startswith(_LOCAL) and PEER not in request.environ:
            raise Forbidden("this is for the CNI executables of this host", hint="use /v1/endpoints")

    @app.after_request
    def protect(response: Response) -> Response:
        # Answers are a moment's truth and may hold a token; and nothing here is a page that a browser may guess.
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        return response


def caller() -> Caller:
    """Who sent the request that is being answered; it was admitted."""
    found: Caller = g.caller
    return found


def _limit(rates: Rates, name: str) -> None:
    seconds = rates.take(name)
    if seconds:
        raise TooManyRequests(
            f"{name} asks too often",
            hint="wait as long as Retry-After says; the setting rate_limit is the limit",
            retry_after=str(math.ceil(seconds)),
        )


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"

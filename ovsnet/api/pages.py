"""Lists in pages: `limit` things at a time, and a cursor that says where the next page begins.

A cursor names the last thing of its page, not a number of things: what comes or goes meanwhile makes nobody else appear twice or
not at all. Pure but for the request's URL.
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from flask import Response, request

from ovsnet.errors import InvalidRequest

from .schemas import Page

T = TypeVar("T")


def cut(things: Sequence[T], page: Page, key: Callable[[T], tuple[Any, ...]]) -> tuple[Sequence[T], str]:
    """The things of a page, and the next page's cursor: "" if this is the last one.

    `things` are in the order of their `key`, which no two share.
    """
    begin = 0
    if page.cursor is not None:
        try:
            begin = bisect_right(things, _decode(page.cursor), key=key)
        except TypeError:  # a cursor of another list
            raise _foreign() from None
    end = len(things) if page.limit is None else begin + page.limit
    return things[begin:end], _encode(key(things[end - 1])) if end < len(things) else ""


def link(response: Response, cursor: str) -> Response:
    """`response` with a Link (RFC 8288) to the next page, if there is one."""
    if cursor:
        query = [(name, value) for name, value in request.args.items(multi=True) if name != "cursor"]
        target = urlencode([*query, ("cursor", cursor)])
        response.headers["Link"] = f'<{request.path}?{target}>; rel="next"'
    return response


def _encode(key: tuple[Any, ...]) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[Any, ...]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise _foreign() from None
    if not isinstance(key, list):
        raise _foreign()
    return tuple(key)


def _foreign() -> InvalidRequest:
    return InvalidRequest("the cursor is none of this list", hint='follow the Link of the page before, rel="next"')

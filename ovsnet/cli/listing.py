"""What the commands that list things share: their formats, and `--watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from ovsnet.errors import Unavailable

from .output import Column, print_document, print_json, print_table
from .session import Session

T = TypeVar("T", bound=Mapping[str, Any])

PAUSE = 1.0  # seconds between two looks
PATIENCE = 60.0  # seconds in which ovsnetd may come back while it is watched

watch_option = click.option("-w", "--watch", is_flag=True, help="List again whenever it changes, until interrupted.")


def print_list(
    session: Session,
    ask: Callable[[], Sequence[T]],
    columns: tuple[Column, ...],
    row: Callable[[T], tuple[object, ...]],
    *,
    key: str = "name",
    watch: bool = False,
) -> None:
    """What `ask` answers, in the format that the user wants: `row` is a thing's row of the table, `key` what names it.

    With `watch` again whenever it changes, over restarts of ovsnetd: Unavailable when it does not come back.
    """
    found = ask()
    if not watch:
        _print(session, found, columns, row, key)
        return
    try:
        while True:
            if session.json:
                print_document(found)
            else:
                click.clear()  # on a terminal only
                _print(session, found, columns, row, key)
            found = _changed(ask, found)
            if not session.json and not sys.stdout.isatty():
                click.echo()
    except KeyboardInterrupt:  # the way to end it
        return


def _changed(ask: Callable[[], Sequence[T]], before: Sequence[T]) -> Sequence[T]:
    answered = time.monotonic()
    while True:
        time.sleep(PAUSE)
        try:
            found = ask()
        except Unavailable:
            if time.monotonic() - answered > PATIENCE:
                raise
            continue
        answered = time.monotonic()
        if found != before:
            return found


def _print(
    session: Session,
    found: Sequence[T],
    columns: tuple[Column, ...],
    row: Callable[[T], tuple[object, ...]],
    key: str,
) -> None:
    if session.json:
        print_json(found)
    elif session.output == "name":
        for one in found:
            click.echo(one[key])
    else:
        print_table(columns, map(row, found))

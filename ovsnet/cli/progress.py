"""How long work goes on, told on a terminal's stderr while it is waited for."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ovsnet.client import Client, Operation

_MARKS = "|/-\\"


class _Line:
    """A line that is written over and over, and is gone in the end."""

    def __init__(self) -> None:
        self._times = 0

    def tell(self, text: str) -> None:
        click.echo(f"\r\x1b[K{_MARKS[self._times % len(_MARKS)]} {text}", nl=False, err=True)
        self._times += 1

    def close(self) -> None:
        if self._times:
            click.echo("\r\x1b[K", nl=False, err=True)


def finish(client: Client, operation: Operation, what: str) -> Any:
    """Wait for the end of an operation and give its result, or raise its error; `what` says what it does."""
    if not sys.stderr.isatty():
        return client.finish(operation)
    with closing(_Line()) as line:

        def tell(now: Operation) -> None:
            line.tell(f"{what}: {now['done']} of {now['total']}" if now["total"] else what)

        return client.finish(operation, tell)

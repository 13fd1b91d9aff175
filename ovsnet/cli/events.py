"""`ovsnet events`: what happens to addresses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from ovsnet.errors import Unavailable

from .listing import PATIENCE, PAUSE, print_list
from .output import Column, print_document, print_line
from .resources import short_container
from .session import Session, options

if TYPE_CHECKING:
    from ovsnet.client import Client, Event

_WIDTHS = (25, 8, 15, 15, 12, 15)


@click.command("events")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option("-n", "--limit", type=click.IntRange(0, 1000), default=20, show_default=True, help="Of the past.")
@options
@click.pass_obj
def events(session: Session, follow: bool, limit: int) -> None:
    """Tell what happened to addresses, the oldest first: leased, changed, released; by which container, and why.

    A follower outlives a restart of ovsnetd and misses nothing.
    """
    client = session.client()
    past = client.events(limit=max(limit, 1))  # of none the last id would not be known
    shown = past[-limit:] if limit else []
    if not follow:
        titles = ("TIME", "WHAT", "ADDRESS", "NETWORK", "CONTAINER", "REASON")
        print_list(session, lambda: shown, tuple(map(Column, titles)), _row, key="id")
        return
    for one in shown:
        _print(session, one)
    for one in _followed(client, past[-1]["id"] if past else 0):
        _print(session, one)


def _followed(client: Client, after: int) -> Iterator[Event]:
    """Events without an end, over restarts of ovsnetd; Unavailable when it does not come back."""
    lost = time.monotonic()
    while True:
        try:
            for one in client.follow(after):
                after = one["id"]
                yield one
                lost = time.monotonic()
            lost = time.monotonic()  # it ended in order
        except Unavailable:
            if time.monotonic() - lost > PATIENCE:
                raise
        time.sleep(PAUSE)


def _print(session: Session, one: Event) -> None:
    if session.json:
        print_document(one)
    elif session.output == "name":
        click.echo(one["id"])
    else:
        print_line(_row(one), _WIDTHS)


def _row(one: Event) -> tuple[str, ...]:
    moment = datetime.fromisoformat(one["time"]).astimezone().isoformat(timespec="seconds")
    who = one["labels"].get("k8s-pod-name") or short_container(one["container"]) or one["owner"]["id"]
    return moment, one["what"], one["address"], one["network"], who, one["reason"]

"""`ovsnet reconcile`: what differs on this host from what the store wants, before anything is touched, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import Column, print_json, print_table
from .session import EXIT_FAILURE, Session, options

if TYPE_CHECKING:
    from ovsnet.client import Difference

_COLUMNS = (Column("WHAT"), Column("WHO"), Column("WHY"), Column("WHERE", 1), Column("REMEDY"))


@click.command("reconcile")
@click.option("--dry-run", is_flag=True, help="Only tell what differs.")
@options
@click.pass_obj
@click.pass_context
def reconcile(ctx: click.Context, session: Session, dry_run: bool) -> None:
    """Compare the store with switch, kernel and packet filter of ovsnetd's host, and mend what differs.

    Tells the differences first. Exit code 0 if there are none, or none any more; 1 if something is left.
    """
    client = session.client()
    found = client.reconcile(dry_run=True)
    if not dry_run and not session.json and found["left"]:
        _print(found["left"], "look into it")
        click.echo()
    if not dry_run:
        found = client.reconcile()
    if session.json:
        print_json(found)
    elif not found["done"] and not found["left"]:
        click.echo("nothing differs")
    else:
        _print([one | {"remedy": "mended"} for one in found["done"]] + found["left"], "look into it")
    if not found["ok"]:
        ctx.exit(EXIT_FAILURE)


def _print(differences: list[Difference], nothing: str) -> None:
    rows = ((one["kind"], one["target"], one["reason"], one["where"], one["remedy"] or nothing) for one in differences)
    print_table(_COLUMNS, rows)

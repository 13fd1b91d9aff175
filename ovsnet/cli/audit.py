"""`ovsnet audit`: who changed what by the REST API."""

from __future__ import annotations

import click

from .listing import print_list
from .output import Column
from .session import Session, options


@click.command("audit")
@click.option("--caller", metavar="WHO", default="", help="Only of this caller, such as uid:0 or token:ci.")
@click.option(
    "--path", metavar="PATH", default="", help="Only of what is at this path or below, such as /v1/pools/blue."
)
@click.option("--since", metavar="TIME", default="", help="Only since then: ISO 8601, local time if it names no zone.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="So many at most.")
@options
@click.pass_obj
def audit(session: Session, caller: str, path: str, since: str, limit: int) -> None:
    """Tell who changed what by the REST API and this command, the latest first; -o json has before and after."""
    client = session.client()
    print_list(
        session,
        lambda: client.audit(caller=caller, path=path, since=since, limit=limit),
        (Column("TIME"), Column("WHO"), Column("ROLE", 2), Column("WHAT"), Column("WHERE"), Column("STATUS", 1)),
        lambda one: (one["time"], one["caller"], one["role"], one["operation"], one["path"], one["status"]),
        key="id",
    )

"""`ovsnet trace`: the way of a packet and of its answer, and what stops it."""

from __future__ import annotations

import click

from .output import Column, print_json, print_table
from .session import EXIT_FAILURE, Session, options

_STEPS = (Column("WAY"), Column("WHERE"), Column("WHAT"))


@click.command("trace")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
@click.option(
    "--proto", type=click.Choice(["icmp", "tcp", "udp", "sctp", "arp", "nd"]), help="What it is.  [default: icmp]"
)
@click.option("--dport", type=click.IntRange(1, 65535), help="The destination's port, with tcp, udp and sctp.")
@click.option("--source-address", metavar="IP", default="", help="An address that it claims to come from.")
@options
@click.pass_obj
@click.pass_context
def trace(
    ctx: click.Context,
    session: Session,
    source: str,
    destination: str,
    proto: str | None,
    dport: int | None,
    source_address: str,
) -> None:
    """Tell the way of a packet from endpoint SRC to DST, an endpoint or any address, and that of its answer.

    An endpoint is named by its id or container, the beginning of one, an alias, or its address. With arp (IPv4) and nd (IPv6) it
    asks for the MAC of DST, or of the gateway on the way there. Nothing is sent. Exit code 0 if
    it arrives or leaves the host, 1 if it is dropped: then with the guilty rule, tag or route, and what to change.
    """
    found = session.client().trace(source, destination, protocol=proto or "", port=dport or 0, sender=source_address)
    if session.json:
        print_json(found)
    else:
        rows = (("back" if one["back"] else "there", one["where"], one["what"]) for one in found["steps"])
        click.echo(found["packet"])
        print_table(_STEPS, rows)
        told = {"delivered": "delivered, and so is its answer", "leaves": "leaves this host", "dropped": "dropped"}
        click.echo(f"{told.get(found['outcome'], found['outcome'])}{': ' if found['reason'] else ''}{found['reason']}")
        if found["remedy"]:
            click.echo(f"remedy: {found['remedy']}")
    if found["outcome"] == "dropped":
        ctx.exit(EXIT_FAILURE)

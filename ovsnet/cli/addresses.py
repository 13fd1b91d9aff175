"""`ovsnet ipam show|check|reserve|release`: who has which address, and does everything agree."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import click

from ovsnet.errors import NotFound

from .completion import known
from .listing import print_list, watch_option
from .output import Column, print_json, print_table
from .progress import finish
from .session import EXIT_FAILURE, Session, options

if TYPE_CHECKING:
    from ovsnet.client import Check, Lease

_FINDINGS = (Column("WHAT"), Column("WHO"), Column("WHY"), Column("REMEDY", 1))


@click.command("show")
@click.argument("what", metavar="[POOL|ADDRESS]", required=False, shell_complete=known("pool"))
@watch_option
@options
@click.pass_obj
def show(session: Session, what: str | None, watch: bool) -> None:
    """Show every pool's addresses that are given out, those of one pool, or who has one address."""
    client = session.client()
    address = _address(what)

    def ask() -> list[Lease]:
        pools = [one["name"] for one in client.pools()] if what is None or address else [what]
        found = [
            lease
            for pool in pools
            for lease in client.leases(pool)
            if address is None or ipaddress.ip_address(lease["address"]) == address
        ]
        if address is not None and not found and not watch:
            raise NotFound(f"nobody has {address}", hint="see `ovsnet ipam history` for who had it")
        return found

    print_list(
        session,
        ask,
        (Column("ADDRESS"), Column("POOL"), Column("KIND"), Column("OWNER"), Column("NODE", 1)),
        lambda one: (one["address"], one["pool"], one["owner"]["kind"], one["owner"]["id"], one["node"]),
        key="address",
        watch=watch,
    )


@click.command("check")
@click.option("--repair", is_flag=True, help="Mend what is certain.")
@click.option("--dry-run", is_flag=True, help="With --repair: only tell what would be mended.")
@options
@click.pass_obj
@click.pass_context
def check(ctx: click.Context, session: Session, repair: bool, dry_run: bool) -> None:
    """Compare leases, endpoints, the switch's ports and the live links; exit code 1 if something disagrees."""
    if dry_run and not repair:
        raise click.UsageError("--dry-run goes with --repair")
    client = session.client()
    found: Check = finish(client, client.begin_check(repair=repair, dry_run=dry_run), "comparing")
    if session.json:
        print_json(found)
    elif found["ok"] and not found["mended"]:
        click.echo("everything agrees")
    else:
        rows = [(one, "mended") for one in found["mended"]]
        rows += [(one, one["remedy"] or "look into it") for one in found["findings"]]
        print_table(_FINDINGS, ((one["kind"], one["subject"], one["message"], remedy) for one, remedy in rows))
    if not found["ok"]:
        ctx.exit(EXIT_FAILURE)


@click.command("reserve")
@click.argument("pool", shell_complete=known("pool"))
@click.argument("name")
@click.argument("address", required=False, default="")
@options
@click.pass_obj
def reserve(session: Session, pool: str, name: str, address: str) -> None:
    """Keep ADDRESS of POOL, or the next free one, for NAME: a container's ID, or a pod's `namespace/name`."""
    kept = session.client().reserve(pool, name, address)
    if session.json:
        print_json(kept)
    else:
        click.echo(kept["address"])


@click.command("release")
@click.argument("pool", shell_complete=known("pool"))
@click.argument("what", metavar="NAME|ADDRESS")
@options
@click.pass_obj
def release(session: Session, pool: str, what: str) -> None:
    """Keep no address for NAME any longer, or take back an ADDRESS that Docker was given and has forgotten.

    Whoever has a reserved address keeps it until it goes. An endpoint's address goes with the endpoint only.
    """
    client = session.client()
    if _address(what) is not None and what not in client.pool(pool)["reservations"]:
        client.release_address(pool, what)
    else:
        client.release_reservation(pool, what)


def _address(what: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(what) if what else None
    except ValueError:
        return None

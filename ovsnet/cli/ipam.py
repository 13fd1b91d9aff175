"""`ovsnet ipam`: addresses across pools."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from .listing import print_list
from .output import Column
from .resources import short_container
from .session import Session, options

if TYPE_CHECKING:
    from ovsnet.client import LeaseRecord


@click.group()
def ipam() -> None:
    """Addresses: who has them, and who had them."""


@ipam.command("history")
@click.argument("address")
@click.option("--at", metavar="TIME", default="", help="Only who had it then: 2026-05-17T14:30, with a zone or local.")
@click.option("--pool", metavar="NAME", default="", help="Only in this pool, by name or UUID; it may be gone.")
@options
@click.pass_obj
def ipam_history(session: Session, address: str, at: str, pool: str) -> None:
    """Tell who had an address, the latest first."""
    client = session.client()
    columns = (
        Column("SINCE"),
        Column("UNTIL"),
        Column("KIND", 3),
        Column("OWNER"),
        Column("NETWORK", 1),
        Column("POOL", 4),
        Column("NODE", 5),
        Column("RELEASED BY", 2),
    )

    def row(item: LeaseRecord) -> tuple[object, ...]:
        return (
            _local(item["since"]),
            item["until"] and _local(item["until"]),
            item["owner"]["kind"],
            _owner(item),
            item["network"],
            item["pool"],
            item["node"],
            item["released_by"],
        )

    print_list(session, lambda: client.lease_history(address, at=at, pool=pool), columns, row, key="container")


def _local(moment: str) -> str:
    """A moment in this host's time, to the second; `--at` takes it as it is."""
    return datetime.fromisoformat(moment).astimezone().isoformat(timespec="seconds")


def _owner(item: LeaseRecord) -> str:
    """The pod's name if the runtime told it, else the container, else what the lease's owner is."""
    return item["labels"].get("k8s-pod-name") or short_container(item["container"]) or item["owner"]["id"]

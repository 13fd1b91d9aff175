"""The `ovsnet` command itself, and the commands that are about ovsnet and not about a resource."""

from __future__ import annotations

import click

from ovsnet import __version__
from ovsnet.errors import OvsnetError

from . import addresses
from .apply import apply, export
from .audit import audit
from .bundle import bundle
from .capture import capture
from .cni import cni
from .completion import completion
from .db import db
from .doctor import doctor
from .events import events
from .help import help_
from .ipam import ipam
from .output import print_json, print_sheet
from .reconcile import reconcile
from .resources import endpoint, network, pool
from .session import Root, Session, options
from .tokens import token
from .trace import trace
from .web import web


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"]})
@options
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Container networks on Open vSwitch: pools, networks and endpoints of ovsnetd.

    Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 not found, 4 conflict, 5 unavailable.
    `ovsnet help` lists what is explained at length.
    """
    ctx.ensure_object(Session)


@cli.command()
@options
@click.pass_obj
def status(session: Session) -> None:
    """Tell whether ovsnetd serves requests; exit code 5 if not."""
    health = session.client().health()
    if session.json:
        print_json(health)
    else:
        print_sheet(health)


@cli.command()
@options
@click.pass_obj
def version(session: Session) -> None:
    """Tell the versions of this command and of ovsnetd."""
    try:
        server = session.client().health()["version"]
    except OvsnetError as exc:  # an unhealthy ovsnetd still tells its version; one that is not there has none
        server = exc.details.get("version", "")
    versions = {"client": __version__, "server": server or None}
    if session.json:
        print_json(versions)
    else:
        print_sheet(versions | {"server": server or "not reachable"})


for group in (pool, network, endpoint, ipam, token, cni, db):
    cli.add_command(group)
for command in (events, reconcile, doctor, bundle, audit, trace, capture, web, completion, apply, export, help_):
    cli.add_command(command)
for command in (addresses.show, addresses.check, addresses.reserve, addresses.release):
    ipam.add_command(command)


def main() -> None:
    """The entry point."""
    cli(prog_name="ovsnet")

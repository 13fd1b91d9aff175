"""`ovsnet token`: who may use the REST API from elsewhere."""

from __future__ import annotations

import re

import click

from ovsnet.errors import InvalidRequest

from .listing import print_list, watch_option
from .output import Column, print_json
from .session import Session, for_each, options

_ROLES = ("viewer", "node", "operator", "admin")  # as in ovsnet.access, which would be slow to import
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.group()
def token() -> None:
    """Tokens for callers from other machines; only root and admins may manage them."""


@token.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), required=True, help="What it is good for.")
@click.option(
    "--expires", metavar="TIME", default="30d", help="For how long, such as 90s, 15m, 12h or 30d.  [default: 30d]"
)
@options
@click.pass_obj
def create(session: Session, name: str, role: str, expires: str) -> None:
    """Make a token and print it, this once."""
    made = session.client().create_token(name, role, _seconds(expires))
    if session.json:
        print_json(made)
    else:
        click.echo(made["text"])


@token.command("ls")
@watch_option
@options
@click.pass_obj
def ls(session: Session, watch: bool) -> None:
    """List the tokens that are worth something."""
    print_list(
        session,
        session.client().tokens,
        (Column("ID"), Column("NAME"), Column("ROLE"), Column("EXPIRES"), Column("CREATED", 2), Column("BY", 1)),
        lambda one: (one["id"], one["name"], one["role"], one["expires"], one["created"], one["by"]),
        watch=watch,
    )


@token.command("revoke")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@options
@click.pass_obj
def revoke(session: Session, names: tuple[str, ...]) -> None:
    """Let tokens be worth nothing from now on, by name or id."""
    for_each(names, session.client().revoke_token, session)


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if found is None:
        raise InvalidRequest(f"{text[:40]!r} is no length of time", hint="write it as 90s, 15m, 12h or 30d")
    return int(found[1]) * _UNITS[found[2]]

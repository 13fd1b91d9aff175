"""`ovsnet bundle`: one archive for who is to help. Works when ovsnetd is down."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from .cni import bin_dir_option, conf_dir_option
from .db import with_config
from .doctor import host
from .output import Column, print_json, print_table
from .session import Session, options


@click.command("bundle")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option(
    "--log",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="ovsnetd's log, where systemd does not have it.",
)
@with_config
@bin_dir_option
@conf_dir_option
@options
@click.pass_obj
def bundle(
    session: Session, file: Path | None, log: Path | None, config: Path | None, bin_dir: Path, conf_dir: Path
) -> None:
    """Write settings, state, flows, links, rules, history, logs and the doctor's report to a new FILE (tar.gz), without secrets.

    What cannot be had is told in the archive, and here.
    """
    from ovsnet import bundle as use_case  # noqa: PLC0415  # slow
    from ovsnet.client import Client  # noqa: PLC0415

    here = host(session, config, bin_dir, conf_dir)
    path = file or Path(f"ovsnet-bundle-{here.settings.node}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    pieces = use_case.write(path.absolute(), here, Client(here.socket_path, deadline=use_case.ANSWER), log)
    if session.json:
        files = [{"name": one.name, "bytes": len(one.content), "error": one.error} for one in pieces]
        print_json({"file": str(path.absolute()), "files": files})
        return
    if failed := [one for one in pieces if one.error]:
        print_table((Column("LEFT OUT"), Column("WHY")), ((one.name, one.error) for one in failed))
        click.echo()
    click.echo(path.absolute())

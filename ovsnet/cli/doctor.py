"""`ovsnet doctor`: what is wrong with this host. Looks for itself, whether ovsnetd runs or not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ovsnet.errors import ConfigError

from .cni import bin_dir_option, conf_dir_option
from .db import with_config
from .output import Column, print_json, print_table
from .session import DEFAULT_SOCKET, Session, options

if TYPE_CHECKING:
    from ovsnet.doctor import RealHost

EXIT_CODES = {"ok": 0, "warning": 1, "error": 2}


@click.command("doctor")
@with_config
@bin_dir_option
@conf_dir_option
@click.option("--all", "everything", is_flag=True, help="Tell of what is well, too.")
@options
@click.pass_obj
@click.pass_context
def doctor(
    ctx: click.Context, session: Session, config: Path | None, bin_dir: Path, conf_dir: Path, everything: bool
) -> None:
    """Look for what is wrong with this host: cause and remedy in one line each. Changes nothing; as root it sees more.

    Exit code 0: nothing; 1: warnings only; 2: errors.
    """
    from ovsnet.doctor import examine, worst  # noqa: PLC0415  # slow

    found = examine(host(session, config, bin_dir, conf_dir))
    level = worst(found)
    if session.json:
        print_json({"level": level, "checks": [asdict(one) for one in found]})
    else:
        shown = [one for one in found if everything or one.remedy]
        if shown:
            columns = (Column("CHECK"), Column("LEVEL"), Column("WHAT"), Column("REMEDY"))
            print_table(columns, ((one.check, one.level, one.message, one.remedy) for one in shown))
        if level == "ok":
            click.echo(f"{len(found)} checks, and nothing is wrong")
    ctx.exit(EXIT_CODES[level])


def host(session: Session, config: Path | None, bin_dir: Path, conf_dir: Path) -> RealHost:
    """This host, by the settings of ovsnetd; by the defaults if they are wrong."""
    from ovsnet import config as settings_module  # noqa: PLC0415  # slow
    from ovsnet.doctor import RealHost  # noqa: PLC0415

    trouble = ""
    try:
        settings = settings_module.load(config)
    except ConfigError as exc:
        trouble = str(exc)
        settings = settings_module.Settings.model_construct()
    # Who names no socket means the one of these settings.
    path = str(settings.api_socket) if session.socket == DEFAULT_SOCKET else session.socket
    return RealHost(settings, trouble, path, bin_dir=bin_dir, conf_dir=conf_dir)

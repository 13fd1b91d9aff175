"""`ovsnet db`: the state database of this host. Works on its file and its server, by the settings of ovsnetd; needs root."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ovsnet.errors import InvalidRequest, StateUnavailable

from .output import Column, print_json, print_sheet, print_table
from .session import Session, options

if TYPE_CHECKING:
    from ovsnet.config import Settings
    from ovsnet.store.cluster import Moved

START = "systemctl start ovsnetd"

with_config = click.option(
    "--config", type=click.Path(path_type=Path), help="ovsnetd's settings.  [default: /etc/ovsnet/ovsnet.toml]"
)
with_local = click.option(
    "--local", metavar="ADDR", required=True, help="This host's address in the cluster: ssl:IP:PORT or tcp:IP:PORT."
)


@click.group()
def db() -> None:
    """The state database of this host: cluster, back-up."""


@db.group("cluster")
def db_cluster() -> None:
    """The cluster of hosts that hold the state database together."""


@db_cluster.command("init")
@with_local
@with_config
@options
@click.pass_obj
def cluster_init(session: Session, local: str, config: Path | None) -> None:
    """Make this host's database the first member of a cluster, with all that it holds. ovsnetd must be stopped."""
    from ovsnet.store import cluster  # noqa: PLC0415  # slow

    settings = _settings(config)
    moved = cluster.init(_database(settings), local, settings.state_tls)
    _tell(session, moved, f"{START}; then, on another host: ovsnet db cluster join --local ADDR --remote {local}")


@db_cluster.command("join")
@with_local
@click.option(
    "--remote", "remotes", metavar="ADDR", multiple=True, required=True, help="A member's address. Repeatable."
)
@with_config
@options
@click.pass_obj
def cluster_join(session: Session, local: str, remotes: tuple[str, ...], config: Path | None) -> None:
    """Make this host's database one more member of a cluster. ovsnetd must be stopped, and the database empty."""
    from ovsnet.store import cluster  # noqa: PLC0415  # slow

    settings = _settings(config)
    moved = cluster.join(_database(settings), local, remotes, settings.state_tls)
    _tell(session, moved, f"{START}; then look: ovsnet db cluster status")


@db_cluster.command("status")
@with_config
@options
@click.pass_obj
def cluster_status(session: Session, config: Path | None) -> None:
    """Show the cluster as this host's member sees it; exit code 5 without a leader."""
    from ovsnet.store import cluster  # noqa: PLC0415  # slow

    found = cluster.status(_settings(config).run_dir / "state.ctl")
    if session.json:
        print_json(asdict(found))
    else:
        print_sheet({key: value for key, value in asdict(found).items() if key != "members"})
        click.echo()
        print_table(
            (Column("SERVER"), Column("ADDRESS"), Column("ROLE"), Column("HEARD MS AGO", 1)),
            (
                (one.server_id, one.address, "leader" if one.server_id == found.leader else "", one.last_heard)
                for one in found.members
            ),
        )
    if not found.leader:
        raise StateUnavailable(
            "this member knows no leader", hint="more than half of the members must be up and reach each other"
        )


@db.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@with_config
@options
@click.pass_obj
def db_backup(session: Session, file: Path, config: Path | None) -> None:
    """Write all that the database holds to a new FILE, while it is in use or not."""
    from ovsnet.store import cluster  # noqa: PLC0415  # slow

    settings = _settings(config)
    own = settings.state_database
    if own is None:
        remotes = settings.state_remotes
    else:
        remotes = (f"unix:{settings.run_dir / 'state.sock'}",) if cluster.is_served(own) else ()
    cluster.backup(own, remotes, file.absolute(), settings.state_tls)
    if session.json:
        print_json({"file": str(file.absolute())})
    else:
        click.echo(file.absolute())


@db.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@with_config
@options
@click.pass_obj
def db_restore(session: Session, file: Path, config: Path | None) -> None:
    """Put what a back-up holds in the place of this host's database. ovsnetd must be stopped."""
    from ovsnet.store import cluster  # noqa: PLC0415  # slow

    _tell(session, cluster.restore(_database(_settings(config)), file.absolute()), f"{START}; then: ovsnet ipam check")


def _settings(path: Path | None) -> Settings:
    from ovsnet.config import load  # noqa: PLC0415  # slow

    return load(path)


def _database(settings: Settings) -> Path:
    if settings.state_database is None:
        raise InvalidRequest(
            f"this host has no database of its own: it uses {', '.join(settings.state_remotes)}",
            hint="run this on a host that has it, or set state_listen",
        )
    return settings.state_database


def _tell(session: Session, moved: Moved, then: str) -> None:
    """What is where now, and what to do next."""
    said = {key: None if value is None else str(value) for key, value in asdict(moved).items()} | {"next": then}
    if session.json:
        print_json(said)
    else:
        print_sheet({key: value for key, value in said.items() if value})

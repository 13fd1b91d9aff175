"""`ovsnet cni`: the plugins and the configuration that runtimes find on this host."""

from __future__ import annotations

from pathlib import Path

import click

from ovsnet.errors import Unavailable

from .output import print_json, print_sheet
from .session import Session, options

BIN_DIR = Path("/opt/cni/bin")
CONF_DIR = Path("/etc/cni/net.d")

bin_dir_option = click.option(
    "--bin-dir",
    type=click.Path(path_type=Path),
    default=BIN_DIR,
    show_default=True,
    help="Where the runtime looks for plugins.",
)
conf_dir_option = click.option(
    "--conf-dir",
    type=click.Path(path_type=Path),
    default=CONF_DIR,
    show_default=True,
    help="Where the runtime looks for network configurations.",
)


host_socket_option = click.option(
    "--host-socket",
    type=click.Path(path_type=Path),
    help="Path at which runtimes find cni.sock, if this runs in a container and sees it elsewhere.",
)


@click.group()
def cni() -> None:
    """The CNI plugins on this host."""


@cni.command("install")
@bin_dir_option
@host_socket_option
@options
@click.pass_obj
def cni_install(session: Session, bin_dir: Path, host_socket: Path | None) -> None:
    """Install the CNI plugins, which talk to cni.sock beside the socket given; also while they run."""
    from cni.install import install  # noqa: PLC0415  # only here

    _tell(session, install(bin_dir, host_socket or _socket(session)))


@cni.command("uninstall")
@bin_dir_option
@options
@click.pass_obj
def cni_uninstall(session: Session, bin_dir: Path) -> None:
    """Remove our CNI plugins, and nobody else's."""
    from cni.install import uninstall  # noqa: PLC0415  # only here

    _tell(session, uninstall(bin_dir))


@cni.command("status")
@bin_dir_option
@conf_dir_option
@host_socket_option
@options
@click.pass_obj
def cni_status(session: Session, bin_dir: Path, conf_dir: Path, host_socket: Path | None) -> None:
    """Tell whether what runtimes will find is ours and works; exit code 5 if not."""
    from cni import conflist  # noqa: PLC0415  # only here
    from cni.install import interpreter_trouble, troubles  # noqa: PLC0415

    installed = troubles(bin_dir, host_socket or _socket(session))
    found = {str(bin_dir / name): trouble for name, trouble in installed.items()}
    found["interpreter"] = interpreter_trouble()
    first = conflist.first(conf_dir)
    if first is None:
        found[str(conf_dir)] = "it has no network configuration: make one with `ovsnet cni conf`"
    else:
        found[str(first)] = "; ".join(conflist.troubles(first, bin_dir))
    found["ovsnetd"] = "" if _socket(session).is_socket() else f"it does not run: there is no {_socket(session)}"
    if session.json:
        print_json(found)
    else:
        print_sheet({what: trouble or "ok" for what, trouble in found.items()})
    if any(found.values()):
        raise Unavailable("runtimes will not find ovsnet, or it will not work", hint="see the list")


@cni.command("conf")
@click.argument("name")
@click.option("--network", default="", help="Network to attach to, if its name is another one.")
@click.option("--subnet", "subnets", multiple=True, help="Make the network with it; one of each family at most.")
@click.option("--vlan", type=int, help="VLAN tag of a network that is made. Default: a free one.")
@click.option("--masquerade", is_flag=True, help="What leaves a network that is made gets the host's address.")
@click.option("--cni-version", "version", default="1.0.0", show_default=True)
@click.option("--write", type=click.Path(path_type=Path), help="Put it into this file, not on standard output.")
@click.option("--force", is_flag=True, help="Replace a file of another content.")
@options
@click.pass_obj
def cni_conf(
    session: Session,
    name: str,
    network: str,
    subnets: tuple[str, ...],
    vlan: int | None,
    masquerade: bool,
    version: str,
    write: Path | None,
    force: bool,
) -> None:
    """Print, or write, a network configuration list called NAME, checked as ADD would."""
    from cni import conflist  # noqa: PLC0415  # only here

    document = conflist.make(name, network=network, subnets=subnets, vlan=vlan, masquerade=masquerade, version=version)
    if write is None:
        print_json(document)
    else:
        conflist.write(write, document, force=force)
        _tell(session, [write])


def _socket(session: Session) -> Path:
    return Path(session.socket).absolute().with_name("cni.sock")


def _tell(session: Session, paths: list[Path]) -> None:
    if session.json:
        print_json([str(path) for path in paths])
    else:
        for path in paths:
            click.echo(path)

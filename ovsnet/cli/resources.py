"""`ovsnet pool`, `ovsnet network` and `ovsnet endpoint`: ls, show, create, rm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ovsnet.errors import EndpointNotFound, InvalidRequest
from ovsnet.model import ANTI_SPOOFING

from .completion import known
from .listing import print_list, watch_option
from .output import Column, in_words, print_json, print_sheet
from .progress import finish
from .session import Session, for_each, options

if TYPE_CHECKING:
    from ovsnet.client import Client, Endpoint, Network, Pool

Command = Callable[..., Any]

SHORT_ID = 8
UUID_LENGTH = 36


def _names(noun: str) -> Callable[[Command], Command]:
    return click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=known(noun))


@click.group()
def pool() -> None:
    """Subnet pools, which addresses come from."""


@pool.command("ls")
@watch_option
@options
@click.pass_obj
def pool_ls(session: Session, watch: bool) -> None:
    """List all pools."""
    columns = (
        Column("NAME"),
        Column("SUBNET"),
        Column("GATEWAY", 2),
        Column("LEASED"),
        Column("CAPACITY"),
        Column("NETWORKS", 1),
        Column("SPACE", 4),
        Column("ORIGIN", 3),
    )

    def row(item: Pool) -> tuple[object, ...]:
        return (
            item["name"],
            item["subnet"],
            item["gateway"],
            item["leased"],
            item["capacity"],
            item["networks"],
            item["space"],
            item["origin"],
        )

    print_list(session, session.client().pools, columns, row, watch=watch)


@pool.command("show")
@click.argument("name", shell_complete=known("pool"))
@options
@click.pass_obj
def pool_show(session: Session, name: str) -> None:
    """Show one pool, by name or UUID."""
    _show(session, session.client().pool(name))


@pool.command("leases")
@click.argument("name", shell_complete=known("pool"))
@watch_option
@options
@click.pass_obj
def pool_leases(session: Session, name: str, watch: bool) -> None:
    """List who has which address of a pool."""
    client = session.client()
    print_list(
        session,
        lambda: client.leases(name),
        (Column("ADDRESS"), Column("KIND"), Column("OWNER"), Column("NODE", 1)),
        lambda item: (item["address"], item["owner"]["kind"], item["owner"]["id"], item["node"]),
        key="address",
        watch=watch,
    )


@pool.command("create")
@click.argument("name")
@click.option("--subnet", metavar="CIDR", required=True, help="The subnet, such as 10.1.0.0/24.")
@click.option("--gateway", metavar="IP|none", default="", help="Default: the first assignable address.")
@click.option("--range", "ranges", metavar="R", multiple=True, help="Give only these: address, first-last or prefix.")
@click.option("--exclude", "exclusions", metavar="R", multiple=True, help="Never give these.")
@click.option("--static", "static_ranges", metavar="R", multiple=True, help="Give these only when asked for.")
@options
@click.pass_obj
def pool_create(
    session: Session,
    name: str,
    subnet: str,
    gateway: str,
    ranges: tuple[str, ...],
    exclusions: tuple[str, ...],
    static_ranges: tuple[str, ...],
) -> None:
    """Make a pool."""
    no_gateway = gateway == "none"
    made = session.client().create_pool(
        subnet,
        name=name,
        gateway="" if no_gateway else gateway,
        no_gateway=no_gateway,
        ranges=ranges,
        exclusions=exclusions,
        static_ranges=static_ranges,
    )
    _show(session, made)


@pool.command("set")
@click.argument("name", shell_complete=known("pool"))
@click.option("--subnet", metavar="CIDR", default="", help="Grow the pool: a larger subnet around the old one.")
@click.option("--range", "ranges", metavar="R|none", multiple=True, help="Give only these, instead of the old ones.")
@click.option("--exclude", "exclusions", metavar="R|none", multiple=True, help="Never give these.")
@click.option("--static", "static_ranges", metavar="R|none", multiple=True, help="Give these only when asked for.")
@click.option("--drain/--no-drain", "draining", default=None, help="Give nothing new, or give again.")
@options
@click.pass_obj
def pool_set(
    session: Session,
    name: str,
    subnet: str,
    ranges: tuple[str, ...],
    exclusions: tuple[str, ...],
    static_ranges: tuple[str, ...],
    draining: bool | None,
) -> None:
    """Change a pool that is in use; a change that would strand an address in use is refused and names it."""
    changed = session.client().change_pool(
        name,
        subnet=subnet,
        ranges=_instead(ranges),
        exclusions=_instead(exclusions),
        static_ranges=_instead(static_ranges),
        draining=draining,
    )
    _show(session, changed)


@pool.command("rm")
@click.option("--force", is_flag=True, help="Show what is reserved or Docker's there, and delete it too.")
@_names("pool")
@options
@click.pass_obj
def pool_rm(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Delete pools, by name or UUID."""
    client = session.client()

    def remove(name: str) -> None:
        if force and not session.json:
            for lease in client.leases(name):
                click.echo(f"{name}: {lease['address']} of {lease['owner']['kind']} {lease['owner']['id']}", err=True)
        client.delete_pool(name, force=force)

    for_each(names, remove, session)


def _instead(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """The new list: None for "leave it", empty for `none`."""
    return () if given == ("none",) else given or None


@click.group()
def network() -> None:
    """Networks: an OVS bridge with a VLAN tag, and pools."""


@network.command("ls")
@watch_option
@options
@click.pass_obj
def network_ls(session: Session, watch: bool) -> None:
    """List all networks."""
    columns = (
        Column("NAME"),
        Column("BRIDGE", 2),
        Column("VLAN"),
        Column("SUBNETS"),
        Column("GATEWAYS", 1),
        Column("MTU", 4),
        Column("INTERNAL", 5),
        Column("ORIGIN", 3),
    )

    def row(item: Network) -> tuple[object, ...]:
        return (
            item["name"],
            item["bridge"],
            item["vlan"],
            item["subnets"],
            item["gateways"],
            item["mtu"],
            item["internal"],
            item["origin"],
        )

    print_list(session, session.client().networks, columns, row, watch=watch)


@network.command("show")
@click.argument("name", shell_complete=known("network"))
@options
@click.pass_obj
def network_show(session: Session, name: str) -> None:
    """Show one network, by name or UUID."""
    _show(session, session.client().network(name))


@network.command("create")
@click.argument("name")
@click.option("--subnet", "subnets", metavar="CIDR", multiple=True, help="Make a pool for it; one of each family.")
@click.option(
    "--pool",
    "pools",
    metavar="NAME",
    multiple=True,
    help="Use this pool; one of each family.",
    shell_complete=known("pool"),
)
@click.option("--bridge", metavar="B", default="", help="Default: the settings'.")
@click.option("--vlan", metavar="N", type=int, help="VLAN tag, 0 for untagged. Default: a free one.")
@click.option("--mtu", metavar="N", type=int, help="Bytes. Default: the settings'.")
@click.option("--internal", is_flag=True, help="No gateway on the host.")
@click.option("--masquerade", is_flag=True, help="What leaves by another device of the host gets its address.")
@click.option("--routed", is_flag=True, help="Containers reach those of the other networks that are routed.")
@click.option("--no-anti-spoofing", is_flag=True, help="Let its containers send as whom they like.")
@options
@click.pass_obj
def network_create(
    session: Session,
    name: str,
    subnets: tuple[str, ...],
    pools: tuple[str, ...],
    bridge: str,
    vlan: int | None,
    mtu: int | None,
    internal: bool,
    masquerade: bool,
    routed: bool,
    no_anti_spoofing: bool,
) -> None:
    """Make a network."""
    made = session.client().create_network(
        name,
        bridge=bridge,
        vlan=vlan,
        mtu=mtu,
        pools=pools,
        subnets=subnets,
        internal=internal,
        masquerade=masquerade,
        routed=routed,
        labels={ANTI_SPOOFING: "false"} if no_anti_spoofing else None,
    )
    _show(session, made)


@network.command("set")
@click.argument("name", shell_complete=known("network"))
@click.option("--vlan", metavar="N", type=int, required=True, help="VLAN tag, 0 for untagged.")
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@options
@click.pass_obj
def network_set(session: Session, name: str, vlan: int, dry_run: bool) -> None:
    """Give a network another VLAN tag while traffic goes on."""
    client = session.client()
    before = client.network(name)
    _changed(session, before, client.change_network(before["id"], vlan=vlan, dry_run=dry_run), dry_run=dry_run)


@network.command("rm")
@click.option("--force", is_flag=True, help="Take all endpoints off them first, whoever they belong to.")
@_names("network")
@options
@click.pass_obj
def network_rm(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Delete networks, by name or UUID."""
    client = session.client()

    def remove(name: str) -> None:
        finish(client, client.remove_network(name), f"taking endpoints off {name}")

    for_each(names, remove if force else client.delete_network, session)


@click.group()
def endpoint() -> None:
    """Endpoints: attachments of containers to networks."""


@endpoint.command("ls")
@click.option("--network", metavar="N", help="Only endpoints of this network.", shell_complete=known("network"))
@watch_option
@options
@click.pass_obj
def endpoint_ls(session: Session, network: str | None, watch: bool) -> None:
    """List endpoints, whoever made them."""
    client = session.client()
    columns = (
        Column("ID"),
        Column("NETWORK"),
        Column("OWNER", 1),
        Column("CONTAINER"),
        Column("IFNAME", 2),
        Column("ADDRESSES"),
        Column("MAC", 4),
        Column("VLAN", 3),
        Column("PORT", 5),
        Column("PUBLISHED", 6),
        Column("NODE", 7),
    )

    def row(item: Endpoint) -> tuple[object, ...]:
        return (
            item["id"][:SHORT_ID],
            item["network"],
            item["owner"]["kind"],
            short_container(item["container"]),
            item["ifname"],
            item["addresses"],
            item["mac"],
            item["vlan"],
            item["port"],
            item["published"],
            item["node"],
        )

    print_list(session, lambda: client.endpoints(network), columns, row, key="id", watch=watch)


@endpoint.command("show")
@click.argument("id", shell_complete=known("endpoint"))
@options
@click.pass_obj
def endpoint_show(session: Session, id: str) -> None:  # noqa: A002  # the argument's name in the usage line
    """Show one endpoint, by UUID or the beginning of it."""
    client = session.client()
    _show(session, client.endpoint(uuid_of(client, id)))


@endpoint.command("create")
@click.option(
    "--network", metavar="N", required=True, help="Name or UUID of the network.", shell_complete=known("network")
)
@click.option("--container", metavar="ID", required=True, help="Container ID.")
@click.option("--netns", metavar="PATH", required=True, help="The container's network namespace.")
@click.option("--ifname", metavar="NAME", default="eth0", show_default=True, help="The interface in the container.")
@click.option("--address", "addresses", metavar="IP", multiple=True, help="Ask for it; one of each family.")
@click.option("--mac", metavar="MAC", default="", help="Default: derived from the address.")
@click.option("--mtu", metavar="N", type=int, help="Bytes. Default: the network's.")
@options
@click.pass_obj
def endpoint_create(
    session: Session,
    network: str,
    container: str,
    netns: str,
    ifname: str,
    addresses: tuple[str, ...],
    mac: str,
    mtu: int | None,
) -> None:
    """Attach a container to a network."""
    made = session.client().create_endpoint(network, container, ifname, netns, addresses=addresses, mac=mac, mtu=mtu)
    _show(session, made)


@endpoint.command("rm")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=known("endpoint"))
@options
@click.pass_obj
def endpoint_rm(session: Session, ids: tuple[str, ...]) -> None:
    """Detach endpoints, by UUID or the beginning of it."""
    client = session.client()
    for_each(ids, lambda ref: client.delete_endpoint(uuid_of(client, ref)), session)


@endpoint.command("quarantine")
@click.option("--off", is_flag=True, help="Let everything pass again.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=known("endpoint"))
@options
@click.pass_obj
def endpoint_quarantine(session: Session, ids: tuple[str, ...], off: bool) -> None:
    """Let nothing pass to and from endpoints; they keep their addresses."""
    client = session.client()

    def change(ref: str) -> None:
        client.quarantine(uuid_of(client, ref), on=not off)

    for_each(ids, change, session)


@endpoint.command("set")
@click.argument("id", shell_complete=known("endpoint"))
@click.option("--vlan", metavar="N", type=int, help="Have a VLAN of its own, 0 for untagged.")
@click.option("--network-vlan", is_flag=True, help="Have its network's VLAN again.")
@click.option("--ingress-rate", metavar="BITS", help="Receive no more a second; with k, M or G, or none.")
@click.option("--ingress-burst", metavar="BITS", help="In bursts of so much.")
@click.option("--egress-rate", metavar="BITS", help="Send no more a second; with k, M or G, or none.")
@click.option("--egress-burst", metavar="BITS", help="In bursts of so much.")
@click.option("--no-rate", is_flag=True, help="Receive and send as much as there is.")
@click.option(
    "--publish", metavar="P", multiple=True, help="Have these ports, such as tcp/8080/80, instead of the old."
)
@click.option("--unpublish", is_flag=True, help="Have no ports of the host.")
@click.option("--take-from", metavar="ID", help="Take them, or all, from this endpoint at the same instant.")
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@options
@click.pass_obj
def endpoint_set(
    session: Session,
    /,
    id: str,  # noqa: A002  # the argument's name in the usage line
    vlan: int | None,
    network_vlan: bool,
    no_rate: bool,
    publish: tuple[str, ...],
    unpublish: bool,
    take_from: str | None,
    dry_run: bool,
    **rates: str | None,
) -> None:
    """Change an endpoint while traffic goes on: VLAN, limits, published ports."""
    from ovsnet.docker_options import bits  # noqa: PLC0415  # slow

    limits = {
        name: bits(text, f"--{name.replace('_', '-')}") if text != "none" else 0
        for name, text in rates.items()
        if text is not None
    }
    for one, other, names in (
        (vlan is not None, network_vlan, "--vlan and --network-vlan"),
        (bool(limits), no_rate, "rates and --no-rate"),
        (bool(publish or take_from), unpublish, "ports and --unpublish"),
    ):
        if one and other:
            raise InvalidRequest(f"{names} contradict each other", hint="give one of them")
    client = session.client()
    changes: dict[str, Any] = {}
    if vlan is not None or network_vlan:
        changes["vlan"] = vlan
    if limits or no_rate:
        changes["bandwidth"] = limits or None
    if publish or unpublish:
        changes["published"] = list(publish)
    if take_from is not None:
        changes["take_from"] = uuid_of(client, take_from)
    if not changes:
        raise InvalidRequest("nothing is to be changed", hint="see `ovsnet endpoint set --help`")
    uuid = uuid_of(client, id)
    before = client.endpoint(uuid)
    _changed(session, before, client.change_endpoint(uuid, dry_run=dry_run, **changes), dry_run=dry_run)


def _changed(session: Session, before: Network | Endpoint, after: Network | Endpoint, *, dry_run: bool) -> None:
    """What has changed, or would: all of the thing for machines, for people what differs."""
    if session.json or session.output == "name":
        _show(session, after)
        return
    differing = [(key, value, after.get(key)) for key, value in before.items() if after.get(key) != value]
    for key, was, now in differing:
        if key != "labels":
            click.echo(f"{key}: {in_words(was)} -> {in_words(now)}")
    if not differing:
        click.echo("nothing changes" if dry_run else "nothing has changed")


def _show(session: Session, thing: Pool | Network | Endpoint) -> None:
    if session.json:
        print_json(thing)
    elif session.output == "name":
        click.echo(thing.get("name") or thing["id"])  # an endpoint has no name
    else:
        print_sheet(thing)


def short_container(container: str) -> str:
    """Docker's 64 digits cut as `docker ps` does; other IDs are names, and stay."""
    return container[:12] if len(container) == 64 else container


def uuid_of(client: Client, ref: str) -> str:
    """The UUID of the one endpoint that begins with `ref`."""
    if len(ref) >= UUID_LENGTH:
        return ref
    found = [item["id"] for item in client.endpoints() if ref and item["id"].startswith(ref)]
    if len(found) > 1:
        raise InvalidRequest(f"{ref!r} begins {len(found)} endpoints", hint="give more of the ID")
    if not found:
        raise EndpointNotFound(f"no endpoint begins with {ref!r}", hint="`ovsnet endpoint ls` shows all")
    return found[0]

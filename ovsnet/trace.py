"""The way of a packet from a container to another, or to any address, and back: told step by step, with who is guilty if it ends.

A use case: looks through the rooms and changes nothing, sends nothing. The container's own route, link and addresses come from
its namespace as they are now; what the switch does is vswitchd's own answer; what the host does, ours: routes, isolation between
networks, published ports, masquerading. Called by the controller.
"""

from __future__ import annotations

import ipaddress
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .errors import EndpointNotFound, InvalidNetns, InvalidRequest
from .link import LinkInfo, Netns, Way, open_netns
from .model import Endpoint, IPAddress, Network, SwitchPort

if TYPE_CHECKING:
    from .controller import Controller

_CLIENT_PORT = 40000  # of an imaginary packet; any that is nobody's
_SHORT = 12  # digits of a long id that are told
_ECHO = {4: (8, 0), 6: (128, 129)}  # types of request and reply (RFC 792, RFC 4443)
_ALL, _NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
_FORWARDING = {4: "ipv4/ip_forward", 6: "ipv6/conf/all/forwarding"}
_GUARDS = {  # by table, see ovsnet.switch.sources
    0: "it sends from another MAC address than its own, or with a VLAN tag",
    240: "it sends from an address that is not its own",
    241: "it speaks as a router or a DHCP server",
    242: "it speaks for a neighbour's address",
    243: "it speaks for a neighbour's MAC address",
}


class Outcome(StrEnum):
    """What becomes of the packet."""

    DELIVERED = "delivered"  # and so is its answer
    LEAVES = "leaves"  # this host, and what comes then is not known here
    DROPPED = "dropped"  # it, or the answer to it


class Cause(StrEnum):
    """Why it is not delivered; stable, for scripts."""

    NONE = ""
    QUARANTINED = "quarantined"
    PORT_MISSING = "port-missing"
    DEVICE_DOWN = "device-down"
    NAMESPACE_GONE = "namespace-gone"
    LINK_MISSING = "link-missing"
    LINK_DOWN = "link-down"
    ADDRESS_MISSING = "address-missing"
    NO_ROUTE = "no-route"
    OTHER_INTERFACE = "other-interface"
    NOBODY = "nobody"
    SPOOFED = "spoofed"
    WRONG_TAG = "wrong-tag"
    OTHER_VLAN = "other-vlan"
    WRONG_BRIDGE = "wrong-bridge"
    FLOW = "flow"
    NOT_FORWARDING = "not-forwarding"
    ISOLATED = "isolated"
    ELSEWHERE = "elsewhere"


class Transport(StrEnum):
    """What the packet carries."""

    ICMP = "icmp"  # an echo request, by ICMPv6 to an IPv6 address
    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"
    ARP = (
        "arp"  # nothing: it asks for the MAC of who has the destination, or of the next hop on the way there (RFC 826)
    )
    ND = "nd"  # the same of IPv6: a neighbour solicitation (RFC 4861, section 7.2)


_RESOLVES = {Transport.ARP: 4, Transport.ND: 6}  # IP version of the addresses that are asked for
_PORTLESS = {Transport.ICMP, *_RESOLVES}


@dataclass(frozen=True, slots=True)
class Question:
    """A packet from `source` to `destination`: an endpoint each (its id or container, or the beginning of one, an alias, a
    label's value, or its address), the destination also any other address. `port` is the destination's, 0 where there are none.
    `sender` is an address that it claims to come from, None for the one that the container would choose.
    """

    source: str
    destination: str
    transport: Transport = Transport.ICMP
    port: int = 0
    sender: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens to the packet, or with `back` to the answer, and where."""

    where: str
    what: str
    back: bool = False


@dataclass(frozen=True, slots=True)
class Trace:
    """The answer. `cause` and `reason` say which rule, tag or route is guilty, `remedy` what to change; empty if all is well."""

    outcome: Outcome
    cause: Cause
    packet: str
    steps: tuple[Step, ...]
    reason: str = ""
    remedy: str = ""


class _Ended(Exception):
    """The way ends here, for this reason."""

    def __init__(self, outcome: Outcome, cause: Cause, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.outcome, self.cause, self.reason, self.remedy = outcome, cause, reason, remedy


@dataclass(frozen=True, slots=True)
class _End:
    """An endpoint of this host, or with `endpoint` None a gateway, with what it has at this moment."""

    endpoint: Endpoint | None
    network: Network
    port: SwitchPort
    link: LinkInfo  # of a container with its addresses
    netns: Netns | None = None

    @property
    def name(self) -> str:
        return _name(self.endpoint) if self.endpoint else f"the gateway of network {self.network.name}"

    @property
    def addresses(self) -> str:
        """Those that it has been given."""
        return ", ".join(str(one.ip) for one in self.endpoint.addresses) if self.endpoint else ""

    @property
    def tag(self) -> int:
        """The VLAN tag that its port is to have."""
        return self.endpoint.tag_on(self.network) if self.endpoint else self.network.tag


@dataclass(frozen=True, slots=True)
class _Packet:
    """What is on its way. `ports` are the sender's and the receiver's, None where there are none."""

    source: IPAddress
    destination: IPAddress
    transport: Transport
    ports: tuple[int, int] | None
    answer: bool = False

    def fields(self, in_port: int, source_mac: str, destination_mac: str) -> str:
        """As ovs-fields(7) has it."""
        if self.transport in _RESOLVES:
            return f"in_port={in_port},dl_src={source_mac}," + self._resolving(source_mac, destination_mac)
        old = self.destination.version == 4
        ip, icmp, echo = ("nw", "icmp", "icmp") if old else ("ipv6", "icmp6", "icmpv6")
        found = [
            f"in_port={in_port},dl_src={source_mac},dl_dst={destination_mac}",
            icmp if self.ports is None else f"{self.transport}{'' if old else '6'}",
            f"{ip}_src={self.source},{ip}_dst={self.destination},nw_ttl=64",
        ]
        if self.ports is None:
            found.append(f"{echo}_type={_ECHO[self.destination.version][self.answer]},{echo}_code=0")
        else:
            found.append("tp_src={},tp_dst={}".format(*self.ports))
        return ",".join(found)

    def _resolving(self, source_mac: str, destination_mac: str) -> str:
        """A question for a neighbour's MAC address goes to all, or to all whose address ends alike; the answer to who asked."""
        source, destination = self.source, self.destination
        if self.transport is Transport.ARP:
            told = f"arp_spa={source},arp_tpa={destination},arp_sha={source_mac}"
            if self.answer:
                return f"dl_dst={destination_mac},arp,arp_op=2,{told},arp_tha={destination_mac}"
            return f"dl_dst={_ALL},arp,arp_op=1,{told},arp_tha={_NOBODY}"
        head = f"icmp6,nw_ttl=255,icmpv6_code=0,ipv6_src={source}"
        if self.answer:
            told = f"icmpv6_type=136,nd_target={source},nd_tll={source_mac}"
            return f"dl_dst={destination_mac},{head},ipv6_dst={destination},{told}"
        last = destination.packed[-3:]  # RFC 4291, section 2.7.1; RFC 2464, section 7
        group = ipaddress.IPv6Address(ipaddress.IPv6Address("ff02::1:ff00:0").packed[:-3] + last)
        told = f"icmpv6_type=135,nd_target={destination},nd_sll={source_mac}"
        return f"dl_dst=33:33:ff:{last.hex(':')},{head},ipv6_dst={group},{told}"

    def reply(self) -> _Packet:
        """The answer to it."""
        ports = None if self.ports is None else (self.ports[1], self.ports[0])
        return replace(self, source=self.destination, destination=self.source, ports=ports, answer=not self.answer)

    def __str__(self) -> str:
        if self.transport in _RESOLVES:
            name = "ARP" if self.transport is Transport.ARP else "neighbour discovery"
            said = f"{self.source} is here" if self.answer else f"who has {self.destination}?"
            return f"{name} from {self.source}: {said}"
        if self.ports is None:
            return f"ICMP echo {'reply' if self.answer else 'request'} from {self.source} to {self.destination}"
        ends = ((self.source, self.ports[0]), (self.destination, self.ports[1]))
        source, destination = (f"{f'[{ip}]' if ip.version == 6 else ip}:{port}" for ip, port in ends)
        return f"{self.transport.upper()} from {source} to {destination}"


def trace(controller: Controller, question: Question) -> Trace:
    """The way of that packet. EndpointNotFound, InvalidRequest, SwitchUnavailable, LinkFailed."""
    if (question.transport in _PORTLESS) == bool(question.port):
        raise InvalidRequest(
            f"TCP, UDP and SCTP have ports, {', '.join(sorted(_PORTLESS)).upper()} have none",
            hint="give a port with these, and only then",
        )
    with ExitStack() as held:
        return _Walk(controller, question, held).run()


class _Walk:
    """One trace; `held` keeps the namespaces open that it looks into."""

    def __init__(self, controller: Controller, question: Question, held: ExitStack) -> None:
        self._controller = controller
        self._question = question
        self._held = held
        self._host = f"host {controller.settings.node}"
        self._networks = {one.uuid: one for one in controller.store.networks()}
        self._endpoints = [one for one in controller.store.endpoints() if one.network in self._networks]
        self._open: dict[str, _End] = {}
        self._steps: list[Step] = []
        self._back = False
        self._first: _Packet | None = None
        self._translated = False  # the packet came by a published port

    def run(self) -> Trace:
        """There and back."""
        source, destination, address = self._who()
        outcome, cause, reason, remedy = Outcome.DELIVERED, Cause.NONE, "", ""
        try:
            self._go(source, destination, address)
        except _Ended as end:
            outcome, cause, reason, remedy = end.outcome, end.cause, end.reason, end.remedy
        told = str(self._first or f"{self._question.transport.upper()} to {address}")
        return Trace(outcome, cause, told, tuple(self._steps), reason, remedy)

    def _go(self, source: Endpoint, destination: Endpoint | None, address: IPAddress) -> None:
        start = self._end(source)
        way = self._way(start, address)
        sender = self._question.sender or way.source or next(one.ip for one in start.link.addresses)
        ports = (_CLIENT_PORT, self._question.port) if self._question.port else None
        if self._question.transport in _RESOLVES:
            self._resolve(start, way.gateway or address, sender, destination)
            return
        self._first = _Packet(sender, address, self._question.transport, ports)
        arrived, packet = self._send(start, way, self._first, destination)
        self._back = True
        answer = packet.reply()
        if arrived.endpoint is None:
            self._switch(arrived, start, answer)
            self._arrive(start, answer)
        else:
            self._send(arrived, self._way(arrived, answer.destination), answer, source)

    def _resolve(self, start: _End, hop: IPAddress, sender: IPAddress, to: Endpoint | None) -> None:
        """A question for a MAC address never leaves the network, so that it is the next hop's that is asked for."""
        question = self._first = _Packet(sender, hop, self._question.transport, None)
        if any(one.ip == hop for one in start.network.gateways):
            end = self._gateway(start.network)
            self._switch(start, end, question)
            self._say(self._host, f"arrives, for {hop} is the gateway of network {start.network.name}")
        else:
            end = self._neighbour(start, hop, question, to)
            self._arrive(end, question)
        self._back = True
        self._switch(end, start, question.reply())
        self._say(f"container {start.name}", f"learns that {hop} has MAC {end.link.mac}")

    # -- who ----------------------------------------------------------------------------------------------------------

    def _who(self) -> tuple[Endpoint, Endpoint | None, IPAddress]:
        """The source, the destination if it is an endpoint, and the destination's address."""
        question = self._question
        sources, destinations = self._find(question.source), self._find(question.destination)
        given = _address(question.destination)
        if not sources:
            raise EndpointNotFound(f"no endpoint is {question.source[:80]!r}", hint="`ovsnet endpoint ls` shows all")
        if not destinations and given is None:
            raise EndpointNotFound(
                f"{question.destination[:80]!r} is neither an endpoint nor an address",
                hint="`ovsnet endpoint ls` shows all endpoints",
            )
        shared = {one.network for one in sources} & {one.network for one in destinations}
        source = _one([one for one in sources if one.network in shared] or sources, question.source)
        if source.node != self._controller.settings.node:
            raise InvalidRequest(f"{_name(source)} is on node {source.node}", hint="ask the ovsnetd of that node")
        near = [one for one in destinations if one.network == source.network]
        destination = _one(near or destinations, question.destination) if destinations else None
        versions = {question.sender.version} if question.sender else {one.version for one in source.addresses}
        if (asks := _RESOLVES.get(question.transport)) is not None:
            versions &= {asks}
        addresses = [given] if given else [one.ip for one in destination.addresses] if destination else []
        address = next((one for one in addresses if one.version in versions), None)
        if address is None:
            family = f"IPv{asks}, which {question.transport.upper()} asks for," if asks else "that family"
            raise InvalidRequest(
                f"{_name(source)} and {question.destination[:80]} have no addresses of {family} both",
                hint="name a destination of its own family; ARP is IPv4's, ND is IPv6's",
            )
        return source, destination, address

    def _find(self, ref: str) -> list[Endpoint]:
        if (address := _address(ref)) is not None:
            return [one for one in self._endpoints if any(each.ip == address for each in one.addresses)]
        known = [one for one in self._endpoints if ref in (one.uuid, one.container, *one.aliases, *one.labels.values())]
        return known or [
            one for one in self._endpoints if ref and any(x.startswith(ref) for x in (one.uuid, one.container))
        ]

    def _end(self, endpoint: Endpoint) -> _End:
        """The endpoint with its port and its link, if all that is there and up."""
        if endpoint.uuid in self._open:
            return self._open[endpoint.uuid]
        where = f"container {_name(endpoint)}"
        links = self._controller.links
        if endpoint.quarantined:
            self._drop(
                Cause.QUARANTINED,
                where,
                f"{_name(endpoint)} is in quarantine",
                f"`ovsnet endpoint quarantine --off {endpoint.uuid[:_SHORT]}`",
            )
        port = self._controller.switch.port_of_anybody(endpoint.port)
        if port is None:
            self._drop(Cause.PORT_MISSING, where, f"the switch has no port {endpoint.port}", "`ovsnet reconcile`")
        lower = links.link(endpoint.port)
        if lower is None or not lower.up or not port.number:
            what = f"device {endpoint.port} of the host is {'down' if lower else 'missing'}"
            self._drop(Cause.DEVICE_DOWN, where, what, "`ovsnet reconcile`, and see that ovs-vswitchd runs")
        try:
            netns = self._held.enter_context(open_netns(endpoint.sandbox))
        except InvalidNetns as exc:
            self._drop(Cause.NAMESPACE_GONE, where, exc.message, "start the container, or remove the endpoint")
        found = links.link_on(endpoint.port, netns)
        link = found and links.link(found.name, netns)
        if link is None:
            reason = f"the container has no interface on switch port {endpoint.port}"
            self._drop(Cause.LINK_MISSING, where, reason, "`ovsnet reconcile`, or attach it again")
        if not link.up:
            self._drop(Cause.LINK_DOWN, where, f"interface {link.name} is down", f"set {link.name} up in the container")
        end = self._open[endpoint.uuid] = _End(endpoint, self._networks[endpoint.network], port, link, netns)
        return end

    def _gateway(self, network: Network) -> _End:
        """This host on that network."""
        name = self._controller.names.gateway(network.uuid)
        port, link = self._controller.switch.port_of_anybody(name), self._controller.links.link(name)
        if port is None or link is None or not link.up or not port.number:
            reason = f"the gateway of network {network.name}, port {name}, is missing or down"
            self._drop(Cause.PORT_MISSING, self._host, reason, "`ovsnet reconcile`")
        return _End(None, network, port, link)

    # -- the way ------------------------------------------------------------------------------------------------------

    def _way(self, start: _End, address: IPAddress) -> Way:
        """The container's own route."""
        where = f"container {start.name}"
        way = self._controller.links.way(address, start.netns)
        if way is None:
            gateway = next((one.ip for one in start.network.gateways if one.version == address.version), None)
            other = f"connect it to the other's network, as {start.network.name} has no gateway of that family"
            route = "default" if gateway is None or gateway.version == 4 else "-6 default"
            remedy = f"in the container: `ip route add {route} via {gateway}`, or ask for the route when it is attached"
            self._drop(Cause.NO_ROUTE, where, f"it has no route to {address}", remedy if gateway else other)
        if way.ifindex != start.link.ifindex:
            reason = f"its route to {address} does not lead by {start.link.name}, its interface on {start.network.name}"
            self._drop(Cause.OTHER_INTERFACE, where, reason, "look at its routes, or trace from its other endpoint")
        by = f"by {way.gateway}" if way.gateway else "on its own network"
        self._say(where, f"leaves by {start.link.name}, MAC {start.link.mac}: {address} is {by}")
        return way

    def _send(self, start: _End, way: Way, packet: _Packet, to: Endpoint | None) -> tuple[_End, _Packet]:
        """From a container on: where the packet arrives, and as what."""
        hop = way.gateway or packet.destination
        if any(one.ip == hop for one in start.network.gateways):
            self._switch(start, self._gateway(start.network), packet)
            return self._at_host(start, packet, to)
        end = self._neighbour(start, hop, packet, to)
        if hop != packet.destination:
            self._leave(f"{end.name} is asked to pass it on, and what that does is not known here", "look there")
        self._arrive(end, packet)
        return end, packet

    def _neighbour(self, start: _End, hop: IPAddress, packet: _Packet, to: Endpoint | None) -> _End:
        """Over the switch to who has the address on the network."""
        network = start.network
        there = [one for one in self._endpoints if one.network == network.uuid]
        there = [one for one in there if any(each.ip == hop for each in one.addresses)]
        found = next((one for one in there if to is not None and one.uuid == to.uuid), there[0] if there else None)
        if found is None or found.node != self._controller.settings.node:
            self._beyond(
                start, f"{_name(found)} on node {found.node}" if found else f"{hop}, whom ovsnet does not know,"
            )
        end = self._end(found)
        self._switch(start, end, packet)
        return end

    def _beyond(self, start: _End, who: str) -> NoReturn:
        network = start.network
        uplinks = ", ".join(self._controller.switch.uplinks(network.bridge))
        if uplinks:
            self._leave(
                f"it leaves bridge {network.bridge} by {uplinks} for {who} with VLAN {start.tag}", "go on there"
            )
        reason = f"bridge {network.bridge} has no uplink, and nothing leads to {who}"
        remedy = "see whether the address is right; `ovsnet ipam show` tells who has which"
        self._drop(Cause.NOBODY, f"bridge {network.bridge}", reason, remedy)

    def _switch(self, start: _End, end: _End, packet: _Packet) -> None:
        """From port to port, as vswitchd tells it."""
        where = f"bridge {start.port.bridge}"
        fields = packet.fields(start.port.number, start.link.mac, end.link.mac)
        done = self._controller.vswitchd.trace(start.port.bridge, fields)
        if end.port.name in done.outputs:
            self._say(where, f"from port {start.port.name} to port {end.port.name}, VLAN {start.port.tag}")
            return
        last = done.rules[-1] if done.rules else None
        if last is not None and last.ours and not done.outputs:
            why = _GUARDS.get(last.table, "")
            reason = f"anti-spoofing drops what {start.name} sends, for {why} ({last})"
            own = f"{start.addresses} and {start.endpoint.mac}" if start.endpoint else ""
            remedy = f"it sends from {packet.source} and {start.link.mac}: give it {own} back, or exempt {start.network.name}"
            self._drop(Cause.SPOOFED, where, reason, remedy)
        for one in (start, end):
            if one.port.tag != one.tag:
                reason = f"port {one.port.name} of {one.name} has VLAN tag {one.port.tag}, not {one.tag}"
                remedy = f"`ovs-vsctl set port {one.port.name} tag={one.tag}`, and see who changes it"
                self._drop(Cause.WRONG_TAG, where, reason, remedy)
        if start.tag != end.tag:
            moved = next(one for one in (start, end) if one.tag != one.network.tag)
            reason = (
                f"{moved.name} has a VLAN of its own, {moved.tag}, and not that of its network, {moved.network.tag}"
            )
            self._drop(Cause.OTHER_VLAN, where, reason, f"`ovsnet endpoint set {_id(moved)} --network-vlan`")
        if start.port.bridge != end.port.bridge:
            reason = f"port {end.port.name} of {end.name} is on bridge {end.port.bridge}"
            self._drop(Cause.WRONG_BRIDGE, where, reason, "`ovsnet reconcile`")
        reason = f"bridge {start.port.bridge} does not forward it to port {end.port.name}: {last or 'no flow'}"
        self._drop(Cause.FLOW, where, reason, f"see who has made that flow: `ovs-ofctl dump-flows {start.port.bridge}`")

    def _arrive(self, end: _End, packet: _Packet) -> None:
        where = f"container {end.name}"
        if all(one.ip != packet.destination for one in end.link.addresses):
            reason = f"its interface {end.link.name} does not have the address {packet.destination}"
            self._drop(Cause.ADDRESS_MISSING, where, reason, f"give it the address back: its own are {end.addresses}")
        self._say(where, f"arrives at {end.link.name}")

    def _at_host(self, start: _End, packet: _Packet, to: Endpoint | None) -> tuple[_End, _Packet]:
        """From a network's gateway on: to the host itself, by a published port, to another network, or away."""
        controller, network = self._controller, start.network
        devices = controller.links.links("")
        here = any(one.ip == packet.destination for device in devices for one in device.addresses)
        if self._translated and self._first is not None:
            packet = self._first.reply()
            self._say(self._host, f"goes on as {packet}, as it answers what came by a published port")
        elif here:
            leads = self._published(packet)
            if leads is None:
                self._say(self._host, f"arrives, for {packet.destination} is the host's own")
                return self._gateway(network), packet
            to, packet = leads
            if to.network == network.uuid:  # or the answer would go past the host
                own = (one.ip for one in network.gateways if one.version == packet.source.version)
                packet = replace(packet, source=next(own, packet.source))
            self._translated = True
            self._say(self._host, f"goes on as {packet}, by the port that {_name(to)} has published")
        way = controller.links.way(packet.destination)
        if way is None:
            reason = f"the host has no route to {packet.destination}"
            self._drop(Cause.NO_ROUTE, self._host, reason, "add one on the host, or see whether the address is right")
        device = next((one.name for one in devices if one.ifindex == way.ifindex), "")
        other = next((one for one in self._networks.values() if controller.names.gateway(one.uuid) == device), None)
        apart = self._networks[to.network] if to and to.network != network.uuid else None
        if (other or apart) and not self._translated:
            self._isolation(network, other, apart)
        version = packet.destination.version
        if not _forwards(version):
            remedy = f"`sysctl -w net/{_FORWARDING[version]}=1`"
            self._drop(Cause.NOT_FORWARDING, self._host, f"it does not forward IPv{version}", remedy)
        if other is None:
            self._say(self._host, f"leaves by {device}")
            if network.masquerade:
                self._leave(f"it leaves this host by {device}, from the host's address", "")
            reason = (
                f"it leaves this host by {device} and keeps its address {packet.source}, to which others need a route"
            )
            self._leave(reason, "make the network with --masquerade, or give the others a route")
        self._say(self._host, f"goes on by network {other.name}")
        end = self._neighbour(self._gateway(other), packet.destination, packet, to)
        self._arrive(end, packet)
        return end, packet

    def _isolation(self, network: Network, other: Network | None, apart: Network | None) -> None:
        """May the host pass on what comes from `network` to `other`?"""
        table = f"nftables' table inet {self._controller.rules.table}"
        if other is None or (apart is not None and other is not apart):
            name = apart.name if apart else ""
            reason = f"network {name} has no gateway on this host, so nothing leads there from network {network.name}"
            self._drop(Cause.ISOLATED, self._host, reason, f"attach the container to network {name} as well")
        closed = [one.name for one in (network, other) if not one.routed]
        if other is not network and closed:
            reason = (
                f"networks {network.name} and {other.name} are isolated from each other, by the rule `networks are isolated` in "
                f"chain forward of {table}"
            )
            remedy = f"attach the container to network {other.name} as well, or make both networks with --routed"
            which = f"{closed[0]} is not" if len(closed) == 1 else "neither is"
            self._drop(Cause.ISOLATED, self._host, reason, f"{remedy} ({which})")

    def _published(self, packet: _Packet) -> tuple[Endpoint, _Packet] | None:
        """To whom a port of the host leads, and as what."""
        if packet.ports is None:
            return None
        for one in self._endpoints:
            for each in one.forwardings if one.node == self._controller.settings.node else ():
                port, given = each.port, each.port.host_address
                bound = given is None or given.is_unspecified or given == packet.destination
                same = (port.protocol.value, port.host_port) == (packet.transport.value, packet.ports[1])
                if same and bound and each.address.version == packet.destination.version:
                    ports = (packet.ports[0], port.container_port)
                    return one, replace(packet, destination=each.address, ports=ports)
        return None

    def _drop(self, cause: Cause, where: str, reason: str, remedy: str) -> NoReturn:
        self._say(where, f"dropped: {reason}")
        raise _Ended(Outcome.DROPPED, cause, reason, remedy)

    def _leave(self, reason: str, remedy: str) -> NoReturn:
        raise _Ended(Outcome.LEAVES, Cause.ELSEWHERE, reason, remedy)

    def _say(self, where: str, what: str) -> None:
        self._steps.append(Step(where, what, self._back))


def _name(endpoint: Endpoint) -> str:
    container = endpoint.container[:_SHORT] if len(endpoint.container) == 64 else endpoint.container
    return f"{container} on network {endpoint.network_name}"


def _id(end: _End) -> str:
    return end.endpoint.uuid[:_SHORT] if end.endpoint else ""


def _one(found: list[Endpoint], ref: str) -> Endpoint:
    if len(found) > 1:
        names = ", ".join(sorted(f"{one.uuid[:_SHORT]} ({_name(one)})" for one in found)[:5])
        raise InvalidRequest(f"{ref[:80]!r} is any of {len(found)} endpoints: {names}", hint="give an endpoint's id")
    return found[0]


def _forwards(version: int) -> bool:
    """Whether this host passes on packets of that IP version; one without it does not."""
    try:
        return Path("/proc/sys/net", _FORWARDING[version]).read_text().strip() != "0"
    except FileNotFoundError:
        return False


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None

"""What vswitchd is asked of a packet, and what it says, read into data. The texts are Open vSwitch 3.1's."""

from __future__ import annotations

import ipaddress

import pytest

from ovsnet.switch.vswitchd import read
from ovsnet.trace import Transport, _Packet

HEAD = """\
Flow: tcp,in_port=p1,vlan_tci=0x0000,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01,nw_src=10.0.0.9,nw_dst=10.0.0.2,tp_dst=80

bridge("b0")
------------
"""
FLOODED = f"""{HEAD} 0. priority 0
    NORMAL
     -> no learned MAC for destination, flooding

Final flow: unchanged
Megaflow: recirc_id=0,eth,ip,in_port=p2,dl_src=02:00:00:00:00:02,dl_dst=02:00:00:00:00:01,nw_frag=no
Datapath actions: push_vlan(vid=10,pcp=0),b0,pop_vlan,p1,"p-2"
"""
SPOOFED = f"""{HEAD} 0. in_port=p1,vlan_tci=0x0000/0x1fff,dl_src=02:00:00:00:00:01, priority 65535, cookie 0x6f76abcd00000001
    resubmit(,240)
240. No match.
    drop

Final flow: unchanged
Megaflow: recirc_id=0,eth,ip,in_port=p1,dl_src=02:00:00:00:00:01,nw_src=10.0.0.8/29,nw_frag=no
Datapath actions: drop
"""
FOREIGN = f"""{HEAD} 0. in_port=p3, priority 65534, cookie 0x7
    drop

Final flow: unchanged
Megaflow: recirc_id=0,eth,ip,in_port=p3,nw_frag=no
Datapath actions: drop
"""
NESTED = f"{HEAD}Datapath actions: sample(sample=1.0%,actions(userspace(pid=1,x(y)),p9)),p1\n"


def test_flooded() -> None:
    found = read(FLOODED)
    assert {"b0", "p1", "p-2"} <= found.outputs
    assert [str(one) for one in found.rules] == ["table 0: priority 0"]
    assert not found.rules[0].ours


def test_dropped_by_our_guard() -> None:
    found = read(SPOOFED)
    assert not found.outputs
    assert [(one.table, one.ours) for one in found.rules] == [(0, True), (240, True)]
    assert str(found.rules[-1]) == "table 240: No match."


def test_dropped_by_somebody_elses_flow() -> None:
    found = read(FOREIGN)
    assert not found.outputs
    assert [(str(one), one.ours) for one in found.rules] == [("table 0: in_port=p3, priority 65534", False)]


def test_nested_arguments_are_no_ports() -> None:
    assert "p9" not in read(NESTED).outputs
    assert "p1" in read(NESTED).outputs
    assert read("") == read("nonsense")


MINE, OTHERS, ALL, GROUP = "02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "33:33:ff:03:45:67"
MINE6, THEIRS6, ND = "fd00::1", "fd00::1:2:3:4567", "icmp6,nw_ttl=255,icmpv6_code=0"


@pytest.mark.parametrize(
    ("kind", "ends", "question", "answer", "words"),
    [
        (
            Transport.ARP,
            ("10.0.0.1", "10.0.0.2"),
            f"dl_dst={ALL},arp,arp_op=1,arp_spa=10.0.0.1,arp_tpa=10.0.0.2,arp_sha={MINE},arp_tha=00:00:00:00:00:00",
            f"dl_dst={OTHERS},arp,arp_op=2,arp_spa=10.0.0.2,arp_tpa=10.0.0.1,arp_sha={MINE},arp_tha={OTHERS}",
            ("ARP from 10.0.0.1: who has 10.0.0.2?", "ARP from 10.0.0.2: 10.0.0.2 is here"),
        ),
        (
            Transport.ND,
            (MINE6, THEIRS6),
            f"dl_dst={GROUP},{ND},ipv6_src={MINE6},ipv6_dst=ff02::1:ff03:4567,icmpv6_type=135,nd_target={THEIRS6},nd_sll={MINE}",
            f"dl_dst={OTHERS},{ND},ipv6_src={THEIRS6},ipv6_dst={MINE6},icmpv6_type=136,nd_target={THEIRS6},nd_tll={MINE}",
            (
                f"neighbour discovery from {MINE6}: who has {THEIRS6}?",
                f"neighbour discovery from {THEIRS6}: {THEIRS6} is here",
            ),
        ),
    ],
)
def test_a_question_for_a_neighbour(
    kind: Transport, ends: tuple[str, str], question: str, answer: str, words: tuple[str, str]
) -> None:
    source, destination = map(ipaddress.ip_address, ends)
    asked = _Packet(source, destination, kind, None)
    head = f"in_port=7,dl_src={MINE},"
    assert asked.fields(7, MINE, OTHERS) == head + question
    assert asked.reply().fields(7, MINE, OTHERS) == head + answer
    assert (str(asked), str(asked.reply())) == words

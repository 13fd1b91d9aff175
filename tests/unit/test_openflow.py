"""OpenFlow's bytes, and the flows that guard a port. That a switch understands them is proved in tests/system/test_flows.py."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.model import Sender
from ovsnet.switch import openflow as of
from ovsnet.switch.openflow import Flow
from ovsnet.switch.sources import NODE_MASK, OURS, OURS_MASK, common, guard, node_cookie

NODE = node_cookie("host1")
V4, V6 = ipaddress.ip_address("10.7.0.5"), ipaddress.ip_address("fd07::5")
MAC = "02:6f:0a:07:00:05"
SENDERS = [None, *(Sender(MAC, one, trunk) for one in ((V4,), (V6,), (V4, V6), ()) for trunk in (False, True))]


def told(flow: Flow) -> bytes:
    """The flow as a switch tells of it (OpenFlow 1.3.5, A.3.5.2)."""
    match = of.encode_match(flow.match)
    actions = struct.pack("!HH4x", 4, 8 + len(flow.actions)) + flow.actions if flow.actions else b""
    head = struct.pack(
        "!HBxIIHHHH4xQQQ", 48 + len(match) + len(actions), flow.table, 9, 9, flow.priority, 0, 0, 0, flow.cookie, 9, 9
    )
    return head + match + actions


@pytest.mark.parametrize("sender", SENDERS)
def test_what_is_told_is_what_was_said(sender: Sender | None) -> None:
    flows = [*common(), *guard(NODE, 7, sender)]
    body = struct.pack("!HH4x", 1, 0) + b"".join(map(told, flows))
    assert list(of.flows(body)) == flows
    assert of.last_part(body)
    assert not of.last_part(struct.pack("!HH4x", 1, 1))


def test_a_flow_mod() -> None:
    """`ovs-ofctl ofp-print` reads it as `ADD table:2 priority=3,arp cookie:0x1 actions=resubmit(,4)` (3.1)."""
    flow = Flow(2, 3, 1, frozenset(of.arp()), of.resubmit(4))
    assert of.add(flow, 5).hex() == (
        "040e005800000005"  # version 4, FLOW_MOD, 88 bytes, xid 5
        "00000000000000010000000000000000"  # cookie and mask
        "0200000000000003ffffffff"  # table, add, no timeouts, priority; no buffer
        "ffffffffffffffff00000000"  # any port and group; no flags
        "0001000a80000a020806000000000000"  # ten bytes of match: eth_type 0x0806; padding
        "0004001800000000ffff001000002320000efff804000000"  # apply: resubmit(,4)
    )
    assert len(of.delete(flow, 5)) == 0x58 - 24  # without what it does


def test_a_mark() -> None:
    """As `load:1->NXM_NX_REG15[31]` (ovs-actions(7)): 31 as offset, one bit."""
    assert of.mark(15, 31).hex() == "ffff001800002320000707c000011e040000000000000001"


@given(st.lists(st.binary(max_size=40), max_size=6), st.integers(1, 30))
def test_messages_come_in_pieces(bodies: list[bytes], size: int) -> None:
    stream = b"".join(of.message(of.ECHO_REPLY, number, body) for number, body in enumerate(bodies))
    inbox, found = bytearray(), []
    for start in range(0, len(stream), size):
        inbox += stream[start : start + size]
        found += list(of.split(inbox))
    assert found == [(of.ECHO_REPLY, number, body) for number, body in enumerate(bodies)]
    assert not inbox


def test_what_is_no_openflow() -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        list(of.split(bytearray(b"\4\0\0\4\0\0\0\0")))


def test_ports() -> None:
    one = struct.pack("!I4x6s2x16s32x", 7, bytes(6), b"onp0123456789")
    assert list(of.ports(bytes(8) + one + one)) == [("onp0123456789", 7)] * 2
    assert of.port_status(bytes([of.PORT_DELETED]) + bytes(7) + one) == (of.PORT_DELETED, "onp0123456789", 7)


def test_link_local() -> None:
    assert str(of.link_local("02:6f:0a:07:00:05")) == "fe80::6f:aff:fe07:5"


@pytest.mark.parametrize("sender", SENDERS)
def test_the_way_in_is_shut_first_and_opened_last(sender: Sender | None) -> None:
    shut, *others = guard(NODE, 7, sender)
    assert (shut.table, shut.actions) == (0, b"")
    entries = [flow for flow in others if flow.table == 0]
    assert others[len(others) - len(entries) :] == entries
    assert all(flow.priority > shut.priority and shut.match < flow.match for flow in entries)
    assert bool(entries) == (sender is not None)
    # Each is of this port alone, and says so.
    (port,) = of.in_port(7)
    assert all(port in flow.match and flow.cookie == NODE | 7 for flow in (shut, *others))


def test_few_flows() -> None:
    """vswitchd's work grows with their number."""
    assert len(guard(NODE, 7, None)) == 1
    assert len(guard(NODE, 7, Sender(MAC, (V4,)))) == 5
    assert len(guard(NODE, 7, Sender(MAC, (V4, V6)))) == 13


def test_cookies() -> None:
    assert node_cookie("host1") != node_cookie("host2")
    for node in ("host1", "host2"):
        assert node_cookie(node) & OURS_MASK == OURS
        assert node_cookie(node) & ~(OURS_MASK | NODE_MASK) == 0
    assert {flow.cookie for flow in common()} == {OURS}

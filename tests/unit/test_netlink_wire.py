"""Netlink framing: attributes, what the kernel says to a refused request, deadlines. Needs no privilege."""

from __future__ import annotations

import errno
import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsnet.errors import DeadlineExceeded, InvalidRequest, LinkFailed
from ovsnet.link import messages, wire
from ovsnet.model import Route

KINDS = st.integers(0, 0x3FFF)


@given(st.dictionaries(KINDS, st.binary(max_size=40)))
def test_attributes_survive_the_way(wanted: dict[int, bytes]) -> None:
    encoded = b"".join(wire.attribute(kind, payload) for kind, payload in wanted.items())
    assert len(encoded) % 4 == 0
    assert wire.attributes(encoded) == wanted


@given(st.binary(max_size=200), st.integers(0, 8))
def test_garbage_is_no_exception(data: bytes, offset: int) -> None:
    for payload in wire.attributes(data, offset).values():
        assert payload in data


def test_reads_the_loopback_device() -> None:
    with wire.Socket() as sock:
        by_name, by_index = sock.batch([messages.get_link("lo"), messages.get_link(index=1)])
        assert sock.index_of("lo") == 1
        listed = {messages.read_device(body).name for body in sock.dump(messages.dump_links())}
    device = messages.read_device(by_name)
    assert device == messages.read_device(by_index)
    assert (device.index, device.name, device.kind, device.lower) == (1, "lo", "", None)
    assert "lo" in listed


def test_the_first_refusal_is_told_and_the_rest_was_done() -> None:
    index = 2**31 - 2
    with wire.Socket() as sock:
        address = ipaddress.ip_interface("192.0.2.1/24")
        with pytest.raises(wire.Refused) as refused:
            sock.batch([messages.get_link("lo"), messages.new_address(index, address), messages.get_link(index=index)])
        assert refused.value.what == "add address 192.0.2.1/24"
        assert refused.value.errno in (errno.ENODEV, errno.EPERM)
        (still_in_step,) = sock.batch([messages.get_link(index=1)])
    assert messages.read_device(still_in_step).name == "lo"


def test_what_is_missing_is_an_empty_answer() -> None:
    with wire.Socket() as sock:
        assert sock.batch([messages.get_link("no-such-device")]) == [b""]
        assert sock.index_of("no-such-device") is None
        assert sock.index_of("a-name-longer-than-any-device") is None


def test_silence_ends_at_the_deadline() -> None:
    ignored = wire.Request(1, b"", "wait in vain", reads=True)  # NLMSG_NOOP
    with wire.Socket() as sock:
        sock.wait_at_most(0.05)
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="wait in vain"):
            sock.batch([ignored])
        assert time.monotonic() - start < 2


def test_half_a_list_is_none() -> None:
    class Restless(wire.Socket):
        def _dump(self, request: wire.Request) -> list[bytes] | None:
            super()._dump(request)
            return None  # NLM_F_DUMP_INTR was set

    with Restless() as sock, pytest.raises(LinkFailed, match="list devices: the list changes"):
        sock.dump(messages.dump_links())


def test_a_route_has_one_family() -> None:
    route = Route(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_address("fd00::1"))
    with pytest.raises(InvalidRequest, match="mixes"):
        messages.new_route(1, route, direct=False)

"""With `conflict_probe` set, an address that somebody unknown answers for is passed over, by ARP and by ND."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.harness import Netns, Ovs, Stack, wait_until


@pytest.fixture
def probing(token: str, directory: Path, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A host whose ovsnetd probes."""
    with ExitStack() as undo:
        host = Netns(f"{token}-probe")
        undo.callback(host.delete)
        place = directory / f"probe-{request.node.name[-8:-1]}"
        place.mkdir()
        ovs = Ovs(host, place / "ovs")
        undo.callback(ovs.close)
        ovs.ensure()
        docker = f"/run/docker/plugins/ovsnet-{token}-p.sock"
        # The squatter is a container of ours, for want of anybody else on the network.
        settings = {"conflict_probe": 0.3, "docker_socket": docker, "anti_spoofing": False}
        stack = Stack(host, ovs, token, place / "ovsnetd", **settings)
        undo.callback(stack.close)
        stack.start()
        yield stack


@pytest.mark.parametrize(
    ("prefix", "length"), [pytest.param("10.81.0.", "24", id="ARP"), pytest.param("fd81::", "64", id="ND")]
)
def test_a_squatter_is_passed_over(probing: Stack, netns: Callable[[], Netns], prefix: str, length: str) -> None:
    conf = probing.conf(
        "blue", subnet=f"{prefix}0/{length}".replace("::0/", "::/"), rangeStart=f"{prefix}2", rangeEnd=f"{prefix}3"
    )
    squatter, victim, late = netns(), netns(), netns()
    # A container whose owner gave it one more address: ovsnet knows nothing of that one.
    assert probing.cni("ADD", "squatter", squatter, conf, CNI_ARGS=f"IP={prefix}99").ok
    squatter.run("ip", "addr", "add", f"{prefix}2/{length}", "dev", "eth0", *(["nodad"] if ":" in prefix else []))
    wait_until(lambda: probing.host.pings(f"{prefix}2"), "the squatter answers")
    asked = probing.cni("ADD", "victim", victim, conf, CNI_ARGS=f"IP={prefix}2")
    assert not asked.ok
    assert "answers for" in asked.output["msg"]
    assert probing.cni("ADD", "victim", victim, conf).addresses == [f"{prefix}3"]
    # Nothing else is left in the range: refused, rather than given twice.
    refused = probing.cni("ADD", "late", late, conf)
    assert not refused.ok
    assert "answers for" in refused.output["msg"]
    squatter.run("ip", "addr", "del", f"{prefix}2/{length}", "dev", "eth0")
    assert probing.cni("ADD", "late", late, conf).addresses == [f"{prefix}2"]
    for name, space in (("late", late), ("victim", victim), ("squatter", squatter)):
        assert probing.cni("DEL", name, space, conf).ok
    probing.cli("network", "rm", "blue")
    assert probing.leftovers() == []


def test_docker_passes_over_a_squatter_too(probing: Stack, netns: Callable[[], Netns]) -> None:
    conf = probing.conf("blue", subnet="10.82.0.0/24", rangeStart="10.82.0.2", rangeEnd="10.82.0.3")
    squatter = netns()
    assert probing.cni("ADD", "squatter", squatter, conf, CNI_ARGS="IP=10.82.0.99").ok
    squatter.run("ip", "addr", "add", "10.82.0.2/24", "dev", "eth0")
    wait_until(lambda: probing.host.pings("10.82.0.2"), "the squatter answers")
    pool = probing.show("pool", "show", "blue")["id"]
    ask = partial(probing.docker_call, "IpamDriver.RequestAddress", PoolID=pool, Options=None)
    assert "answers for" in ask(Address="10.82.0.2")["Error"]
    assert ask(Address="")["Address"] == "10.82.0.3/24"
    assert "answers for" in ask(Address="")["Error"]
    probing.docker_call("IpamDriver.ReleaseAddress", PoolID=pool, Address="10.82.0.3")
    assert probing.cni("DEL", "squatter", squatter, conf).ok
    probing.cli("network", "rm", "blue")
    assert probing.leftovers() == []

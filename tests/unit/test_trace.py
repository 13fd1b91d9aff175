"""What vswitchd says of a packet, read into data. The texts are Open vSwitch 3.1's."""

from __future__ import annotations

from ovsnet.switch.vswitchd import read

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

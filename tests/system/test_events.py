"""`ovsnet events -f` and the stream over REST: one follower through ADD, a kill of ovsnetd, and DEL."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.harness import SCRIPTS, Netns, Stack, run, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET = "10.95.1.0/24"


@pytest.fixture
def followed(stack: Stack, tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What `ovsnet events -f` has said until now, events of networks that this module makes only."""
    path = tmp_path / "followed"
    with path.open("wb") as output:
        command: list[str | Path] = [
            SCRIPTS / "ovsnet",
            "--socket",
            stack.socket,
            "events",
            "--follow",
            "-n",
            "0",
            "-o",
            "json",
        ]
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        # It is there when it hears; before, nothing tells.
        stack.cli("network", "create", "hello", "--subnet", "10.95.2.0/24")
        wait_until(lambda: b"hello" in path.read_bytes() or _again(stack), "the follower hears", 30)
        stack.cli("network", "rm", "hello")
        yield lambda: [one for one in map(json.loads, path.read_text().splitlines()) if one["network"] == "heard"]
    finally:
        process.terminate()
        process.wait(10)


def _again(stack: Stack) -> bool:
    """Something that a late follower can hear."""
    stack.cli("network", "rm", "hello")
    stack.cli("network", "create", "hello", "--subnet", "10.95.2.0/24")
    return False


def test_a_follower_outlives_ovsnetd(
    stack: Stack, netns: Callable[[], Netns], followed: Callable[[], list[dict[str, Any]]]
) -> None:
    box, conf = netns(), stack.conf("heard", subnet=SUBNET)
    added = stack.cni("ADD", box.name, box, conf)
    wait_until(lambda: len(followed()) == 2, "gateway and endpoint are heard")
    event = followed()[1]
    assert (event["what"], event["address"], event["reason"]) == ("leased", added.addresses[0], "cni")
    assert (event["container"], event["ifname"], event["network"]) == (box.name, "eth0", "heard")
    stack.kill9()
    stack.start()
    assert stack.cni("DEL", box.name, box, conf).ok
    wait_until(lambda: len(followed()) == 3, "the DEL is heard after the restart", 30)
    assert [one["what"] for one in followed()] == ["leased", "leased", "released"]
    stack.cli("network", "rm", "heard")
    stack.stop()  # within its deadline, although somebody follows
    stack.start()
    assert added.addresses[0] in stack.cli("events").stdout


def test_streams_go_on_after_the_last_event_and_refuse_what_is_none(stack: Stack, netns: Callable[[], Netns]) -> None:
    box, conf = netns(), stack.conf("heard", subnet=SUBNET)
    assert stack.cni("ADD", box.name, box, conf).ok
    assert stack.cni("DEL", box.name, box, conf).ok
    stack.cli("network", "rm", "heard")
    *_, before, third, second, last = stack.show("events")

    def curl(*options: str) -> str:
        return run(
            *("curl", "--silent", "--no-buffer", "--unix-socket", stack.socket, "-H", "Accept: text/event-stream"),
            *(*options, "http://localhost/v1/events"),
            check=False,
        ).stdout

    stream = curl("-H", f"Last-Event-ID: {before['id']}", "--max-time", "3")
    data = [json.loads(line.removeprefix("data: ")) for line in stream.splitlines() if line.startswith("data: ")]
    assert data == [third, second, last]
    assert [line for line in stream.splitlines() if line.startswith("id: ")] == [f"id: {one['id']}" for one in data]
    assert stream.startswith("retry: ")
    assert json.loads(curl("-H", "Last-Event-ID: x"))["code"] == "invalid-request"


def test_pages_that_are_left_take_no_place(stack: Stack) -> None:
    """A reader goes from page to page, each of which follows the events, and nothing happens that would tell who has gone."""
    for _ in range(40):  # a quarter of the `workers` may follow at once, which are 32
        with closing(socket.socket(socket.AF_UNIX)) as page:
            page.settimeout(10)
            page.connect(str(stack.socket))
            page.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
            assert page.recv(4096).startswith(b"HTTP/1.1 200 ")

"""Nonsense on stdin and in the environment: always an error in CNI's form, never a traceback, and nothing is left.

OVSNET_EXAMPLES is the number of cases (4,000; the whole is 10,000). Most go to ovsnetd on the socket of the executables, as these
send them; one in twenty is executed, because to start an interpreter takes most of the time and no part of what is tested.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import Stack, environment

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

EXAMPLES = int(os.environ.get("OVSNET_EXAMPLES", "4000"))
EXECUTED = max(1, EXAMPLES // 20)

VALID: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "fuzz",
    "type": "ovsnet",
    "bridge": "fuzzbr",
    "vlan": 20,
    "mtu": 1400,
    "ipam": {"type": "ovsnet-ipam", "subnet": "10.85.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
    "args": {"cni": {"ips": ["10.85.0.9"], "labels": [{"key": "a", "value": "b"}]}},
    "runtimeConfig": {"mac": "02:00:00:00:00:01", "portMappings": []},
    "prevResult": None,
    "cni.dev/valid-attachments": [],
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
KEYS = st.sampled_from([*VALID, "vlanTrunk", "sysctl", "dns", "network", "log_level", "isGateway"])
RUNTIME = st.dictionaries(st.sampled_from(["portMappings", "bandwidth", "ips", "mac", "ipRanges", "aliases"]), JSON)
IPAM = st.dictionaries(st.sampled_from(["type", "subnet", "pool", "ranges", "routes", "gateway"]), JSON)
NESTED = {"runtimeConfig": RUNTIME, "ipam": IPAM.map(lambda changes: {"type": "ovsnet-ipam"} | changes)}
CONFIGS = st.builds(
    lambda changes, nested: VALID | changes | nested,
    st.dictionaries(KEYS | st.text(max_size=8), JSON, max_size=3),
    st.fixed_dictionaries({}, optional=NESTED),
)
STDIN = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | CONFIGS.map(lambda config: json.dumps(config).encode())
    | CONFIGS.flatmap(lambda config: st.integers(0, 300).map(lambda end: json.dumps(config).encode()[:end]))
)
VALUES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)
ENVIRONMENT = st.fixed_dictionaries(
    # The namespace is never a good one, so that no ADD can succeed.
    {"CNI_COMMAND": st.sampled_from(["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"]) | VALUES},
    optional={
        "CNI_CONTAINERID": st.sampled_from(["c1", "fuzz"]) | VALUES,
        "CNI_IFNAME": st.sampled_from(["eth0", "lo"]) | VALUES,
        "CNI_NETNS": st.sampled_from(["/proc/self/ns/net", "/dev/null", "/"]) | VALUES,
        "CNI_ARGS": st.sampled_from(["IP=10.85.0.9", "IgnoreUnknown=1;X=y"]) | VALUES,
        "CNI_PATH": VALUES,
    },
)


def check(command: str, status: int, output: bytes, *, ipam: bool) -> None:
    """The answer is what a runtime can read. An IPAM plugin looks at no namespace, so its ADD may succeed."""
    assert b"Traceback" not in output
    document = json.loads(output) if output else None
    if status == 202:  # for the executable: another IPAM plugin is to be run
        assert isinstance(document, dict)
        assert (type(document["delegate"]), type(document["again"])) == (str, bool)
    elif status:
        assert isinstance(document, dict)
        assert {type(document[key]) for key in ("cniVersion", "msg", "details")} == {str}
        assert isinstance(document["code"], int)
        assert document["msg"]
        assert document["code"] not in (0, 999)
    else:
        assert command in {"DEL", "GC", "STATUS", "VERSION", *(["ADD", "CHECK"] if ipam else [])}
        assert (document is None) is (command not in ("ADD", "VERSION"))


def fuzz(count: int, run: Callable[[dict[str, str], bytes], tuple[int, bytes]], *, ipam: bool = False) -> None:
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    @given(ENVIRONMENT, STDIN)
    def case(variables: dict[str, str], stdin: bytes) -> None:
        check(variables["CNI_COMMAND"], *run(variables, stdin), ipam=ipam)

    case()


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize(("path", "count"), [("/cni", EXAMPLES - EXECUTED), ("/cni/ipam", EXECUTED)])
def test_nonsense_on_the_socket(stack: Stack, path: str, count: int) -> None:
    def run(variables: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
        body = b"".join(f"{key}={value}\0".encode() for key, value in variables.items()) + b"\0" + stdin
        with closing(socket.socket(socket.AF_UNIX)) as sock:
            sock.settimeout(10)
            sock.connect(str(stack.socket.with_name("cni.sock")))
            sock.sendall(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
            answer = b""
            while chunk := sock.recv(65536):
                answer += chunk
        head, _, content = answer.partition(b"\r\n\r\n")
        return {b"200": 0, b"202": 202}.get(head[9:12], 1), content

    try:
        fuzz(count, run, ipam=path == "/cni/ipam")
    finally:
        for pool in stack.show("pool", "ls"):  # of addresses that were given
            release = Stack.conf("fuzz", "1.1.0", pool=pool["name"]) | {"cni.dev/valid-attachments": []}
            assert stack.cni("GC", "", "", release, plugin="ovsnet-ipam").ok
            stack.cli("pool", "rm", pool["id"])
    assert "Traceback" not in stack.log_tail(1000)


@pytest.mark.usefixtures("nothing_left")
def test_nonsense_for_the_executable(stack: Stack) -> None:
    def run(variables: dict[str, str], stdin: bytes) -> tuple[int, bytes]:
        done = subprocess.run(
            [stack.bin_dir / "ovsnet"],
            input=stdin,
            env=environment(**variables),
            capture_output=True,
            timeout=40,
            check=False,
        )
        assert done.stderr == b""
        return done.returncode, done.stdout

    fuzz(EXECUTED, run)

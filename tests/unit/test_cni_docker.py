"""What `ovsnet-docker` has of its own although cni/protocol.py has it too, for it stands alone; and what it reads."""

from __future__ import annotations

import ast
import ipaddress
from pathlib import Path
from typing import Any

import pytest

from cni import errors, ovsnet_docker, protocol, wire
from cni.ovsnet_docker import Failure, Wishes, settings

DOCS = Path(__file__).parents[2] / "docs" / "cni.md"


def test_it_agrees_with_the_protocol() -> None:
    assert tuple(ovsnet_docker.VERSIONS) == protocol.VERSIONS
    assert ovsnet_docker.SINCE == protocol.SINCE
    assert ovsnet_docker.LIMIT == wire.LIMIT
    for name in (
        "INCOMPATIBLE_VERSION",
        "UNSUPPORTED_FIELD",
        "UNKNOWN_CONTAINER",
        "INVALID_ENVIRONMENT",
        "CANNOT_DECODE",
        "INVALID_CONFIG",
        "TRY_AGAIN_LATER",
        "NOT_AVAILABLE",
        "INTERNAL",
    ):
        assert getattr(ovsnet_docker, name) == getattr(errors, name), name
    for name in (
        "address-not-in-pool",
        "network-not-found",
        "conflict",
        "already-exists",
        "address-in-use",
        "link-exists",
        "attachment-broken",
        "pool-exhausted",
        "forbidden",
    ):
        assert getattr(ovsnet_docker, name.upper().replace("-", "_")) == errors.ERROR_CODES[name], name


def test_every_python_that_install_accepts_can_run_it() -> None:
    tree = ast.parse(Path(ovsnet_docker.__file__).read_text(encoding="utf-8"), feature_version=(3, 8))
    modules = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert {node.level for node in modules} == {0}


def test_the_documentation_has_every_key() -> None:
    section = DOCS.read_text(encoding="utf-8").partition("\n## Containers of Docker\n")[2].partition("\n## ")[0]
    assert [name for name in (*ovsnet_docker.KEYS, *ovsnet_docker.UNSUPPORTED) if f"`{name}`" not in section] == []


def asked(cni_args: str = "", /, **more: Any) -> Wishes:
    return settings({"CNI_ARGS": cni_args}, {"cniVersion": "1.1.0", "name": "blue", "type": "ovsnet-docker"} | more)


def test_the_runtime_beats_the_administrator_and_that_the_arguments() -> None:
    both = (ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1"))
    assert asked("IP=10.0.0.1,fd00::1;MAC=02-00-00-00-00-0A") == Wishes(both, "02:00:00:00:00:0a", ())
    args = {"cni": {"ips": ["10.0.0.2/8"], "mac": "02:00:00:00:00:02"}}
    assert asked("IP=10.0.0.1", args=args) == Wishes((ipaddress.ip_address("10.0.0.2"),), "02:00:00:00:00:02", ())
    runtime = {"ips": ["10.0.0.3"], "aliases": {"blue": ["a", "b"], "x": ["a"]}}
    assert asked("IP=10.0.0.1", args=args, runtimeConfig=runtime) == Wishes(
        (ipaddress.ip_address("10.0.0.3"),), "02:00:00:00:00:02", ("a", "b")
    )
    assert asked(args=None, runtimeConfig=None, ipam={}, network=None, dockerSocket=None) == Wishes((), "", ())


@pytest.mark.parametrize(
    ("code", "words", "given"),
    [
        (7, "did you mean 'dockerSocket'", {"dockersocket": "/x"}),
        (7, "known: args", {"frobnicate": 1}),
        (7, "addresses come from", {"ipam": {"type": "host-local"}}),
        (7, "is not a string", {"network": 5}),
        (7, "no name", {"name": ""}),
        (7, "cannot be a Docker network", {"network": "a/b"}),
        (7, "is not an object", {"runtimeConfig": []}),
        (7, "socket's path", {"dockerSocket": "docker.sock"}),
        (7, "socket's path", {"dockerSocket": "/" + "x" * 107}),
        (7, "two addresses", {"runtimeConfig": {"ips": ["10.0.0.1", "10.0.0.2"]}}),
        (7, "args.cni", {"args": {"cni": {"ips": "10.0.0.1"}}}),
        (7, "unicast", {"runtimeConfig": {"mac": "01:00:00:00:00:01"}}),
        (7, "aliases", {"runtimeConfig": {"aliases": [5]}}),
        (2, "bandwidth", {"runtimeConfig": {"bandwidth": {"ingressRate": 1}}}),
        (4, "CNI_ARGS", {"args_": "X=y"}),
        (4, "no pair", {"args_": "X"}),
        (4, "CNI_ARGS", {"args_": "IP=nonsense"}),
    ],
)
def test_what_is_refused(code: int, words: str, given: dict[str, Any]) -> None:
    arguments = given.pop("args_", "")
    with pytest.raises(Failure) as caught:
        asked(arguments, **given)
    assert caught.value.code == code
    assert words in caught.value.message
    assert caught.value.hint

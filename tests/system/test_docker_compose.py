"""The Compose project of the documentation, with Debian's docker-compose, and Docker's DNS on our networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import IMAGE, Dockerd, Netns, Stack, run, wait_until
from tests.system.containers import create_network, start_container
from tests.system.published import HOST

pytestmark = pytest.mark.usefixtures("nothing_left")

EXAMPLE = Path(__file__).parents[2] / "docs/examples/compose/docker-compose.yml"
PORT = "18088"
FETCH = "echo -e 'GET /hostname HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {} {}"

Compose = Callable[..., Any]


@pytest.fixture
def compose(stack: Stack, dockerd: Dockerd, token: str) -> Compose:
    """Runs docker-compose on the example."""

    def call(*args: str) -> Any:
        variables = {
            "DOCKER_HOST": f"unix://{dockerd.socket}",
            "IMAGE": IMAGE,
            "DRIVER": stack.driver,
            "PORT": PORT,
        }
        project = ("--file", str(EXAMPLE), "--project-name", f"{token}shop")
        settings = [f"{key}={value}" for key, value in variables.items()]
        return run("env", *settings, "/usr/bin/docker-compose", *project, *args, timeout=90)

    return call


def test_the_example_goes_up_and_down(
    stack: Stack, dockerd: Dockerd, compose: Compose, token: str, outside: Netns
) -> None:
    compose("up", "--detach")
    web, db = (
        dockerd.docker("ps", "--quiet", "--filter", f"name={token}shop_{one}").stdout.strip() for one in ("web", "db")
    )
    assert dockerd.address(db, f"{token}shop_back") == "10.78.2.20"
    for name in ("db", "database"):  # by Docker's DNS
        assert dockerd.pings(web, name)
    assert sorted(row["name"] for row in stack.show("network", "ls")) == ["shop-back", "shop-front"]
    assert [row["published"] for row in stack.show("endpoint", "ls") if row["published"]] == [[f"tcp/{PORT}/80"]]

    def page() -> str:
        return str(outside.run("busybox", "sh", "-c", FETCH.format(HOST, PORT), check=False).stdout)

    wait_until(lambda: web[:12] in page(), "the page is served to the outside", 10)
    assert not dockerd.pings(db, HOST, wait=1)
    compose("down", "--timeout", "1")
    assert stack.show("endpoint", "ls") == stack.show("network", "ls") == stack.show("pool", "ls") == []


def test_names_and_aliases_are_resolved(stack: Stack, dockerd: Dockerd) -> None:
    create_network(dockerd, stack, "one", "10.95.1.0/24", "fd95:1::/64")
    create_network(dockerd, stack, "two", "10.95.2.0/24")
    address = start_container(dockerd, "server", "one")
    start_container(dockerd, "client", "one")
    start_container(dockerd, "stranger", "two")
    dockerd.docker("network", "connect", "--alias", "shop", "two", "server")
    second = dockerd.address("server", "two")

    def resolved(container: str, name: str) -> str:
        return str(dockerd.docker("exec", container, "nslookup", name, "127.0.0.11", check=False).stdout)

    assert address in resolved("client", "server")
    assert "fd95:1::" in resolved("client", "server")
    assert "can't find" in resolved("client", "shop") or address not in resolved("client", "shop")
    assert second in resolved("stranger", "shop")
    assert second in resolved("stranger", "server")
    assert address not in resolved("stranger", "server")
    dockerd.docker("network", "disconnect", "two", "server")
    assert second not in resolved("stranger", "server")

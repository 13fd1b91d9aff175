"""Fixtures of the system tests: one host per test run, brought back to life before every test that uses it."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Daemon, Dockerd, Netns, Ovs, Stack, wait_until
from tests.libcni import REFERENCE_DIR, Attachment, Libcni
from tests.system.containers import Pod
from tests.system.faulty import Faulty
from tests.system.published import HOST, HOST6, OUTSIDE, OUTSIDE6

HERE = Path(__file__).parent

Attach = Callable[..., tuple[Attachment, dict[str, Any]]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what is in this directory, and what needs Docker."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("system")
            if "dockerd" in getattr(item, "fixturenames", ()):
                item.add_marker("docker")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows the ends of the daemons' logs with a failure."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            fixture = value.stack if isinstance(value, Faulty) else value
            for daemon in (fixture.server, fixture.vswitchd) if isinstance(fixture, Ovs) else (fixture,):
                if isinstance(daemon, Daemon):
                    report.sections.append((f"log of {daemon.name}", daemon.log_tail()))
    return report


@pytest.fixture(scope="session")
def directory(token: str) -> Iterator[Path]:
    """Everything that the daemons write; its path is short, because sockets' paths are."""
    path = Path(tempfile.mkdtemp(prefix=f"ovsnet-{token}-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def host(token: str) -> Iterator[Netns]:
    """The network namespace that is the host of this test run."""
    namespace = Netns(f"{token}-host")
    yield namespace
    namespace.delete()


@pytest.fixture(scope="session")
def _ovs(host: Netns, directory: Path) -> Iterator[Ovs]:
    with ExitStack() as undo:
        ovs = Ovs(host, directory)
        undo.callback(ovs.close)
        ovs.ensure()
        yield ovs


@pytest.fixture
def ovs(_ovs: Ovs) -> Ovs:
    """The host's switch, running."""
    _ovs.ensure()
    return _ovs


@pytest.fixture(scope="session")
def _stack(host: Netns, _ovs: Ovs, token: str, directory: Path) -> Iterator[Stack]:
    with ExitStack() as undo:
        boot = directory / "boot_id"  # a test that reboots the host writes another one
        boot.write_text("first\n")
        stack = Stack(host, _ovs, token, directory / "ovsnetd", boot_id_file=str(boot))
        undo.callback(stack.close)
        stack.start()
        yield stack


@pytest.fixture
def stack(_stack: Stack, ovs: Ovs) -> Stack:  # noqa: ARG001  # needs it running
    """The host's ovsnetd, ready."""
    _stack.ensure()
    return _stack


@pytest.fixture(scope="session")
def _dockerd(host: Netns, _stack: Stack, token: str, directory: Path) -> Iterator[Dockerd]:  # it stops before ovsnetd
    with ExitStack() as undo:
        dockerd = Dockerd(host, token, directory / "docker")
        undo.callback(dockerd.close)
        dockerd.start()
        yield dockerd


@pytest.fixture
def dockerd(_dockerd: Dockerd, stack: Stack) -> Iterator[Dockerd]:  # noqa: ARG001  # needs it ready
    """The host's dockerd, ready; the containers and networks that a test made go with it."""
    _dockerd.ensure()
    yield _dockerd
    if _dockerd.alive:
        _dockerd.clear()


@pytest.fixture
def netns(token: str) -> Iterator[Callable[[], Netns]]:
    """Makes network namespaces for containers, and deletes them at the end."""
    with ExitStack() as undo:
        numbers = itertools.count()

        def make() -> Netns:
            namespace = Netns(f"{token}-{next(numbers)}")
            undo.callback(namespace.delete)
            return namespace

        yield make


@pytest.fixture
def no_leftovers(stack: Stack) -> Callable[[], None]:
    """Asserts, when called, that ovsnet has left nothing behind: what is removed behind an answer has five seconds."""

    def check() -> None:
        try:
            wait_until(lambda: not stack.leftovers(), "all gone", 5)
        except AssertionError:
            raise AssertionError(f"left behind: {stack.leftovers()}") from None

    return check


@pytest.fixture
def nothing_left(stack: Stack, no_leftovers: Callable[[], None]) -> Iterator[None]:
    """Asserts that the test and its other fixtures leave nothing behind; what they left is removed for the next test."""
    yield
    stack.ensure()
    try:
        no_leftovers()
    finally:
        for noun, force in (("endpoint", ()), ("network", ("--force",)), ("pool", ("--force",))):
            for row in stack.show(noun, "ls"):
                stack.cli(noun, "rm", *force, row["id"], check=False)


@pytest.fixture
def pod(
    request: pytest.FixtureRequest, stack: Stack, ovs: Ovs, netns: Callable[[], Netns]
) -> Iterator[Callable[[], Pod]]:
    """Makes containers of a CNI runtime; at the end they are detached, and the networks removed that they have made."""
    if "dockerd" in request.fixturenames:
        request.getfixturevalue("dockerd")  # Docker's networks go after the pods that are on them
    pods: list[Pod] = []

    def make() -> Pod:
        pods.append(Pod(stack, netns()))
        return pods[-1]

    yield make
    ovs.ensure()
    stack.ensure()
    for each in pods:
        each.detach_all()
    for network in stack.show("network", "ls"):
        if network["origin"] == "cni":
            stack.cli("network", "rm", network["id"])


@pytest.fixture
def outside(stack: Stack, netns: Callable[[], Netns]) -> Iterator[Netns]:
    """Another machine, by a wire to the host."""
    namespace = netns()
    device = f"{stack.prefix}out"
    stack.host.run("ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace.name)
    for where, name, address, address6 in (
        (stack.host, device, HOST, HOST6),
        (namespace, "eth0", OUTSIDE, OUTSIDE6),
    ):
        where.run("ip", "address", "add", f"{address}/24", "dev", name)
        where.run("ip", "address", "add", f"{address6}/64", "dev", name, "nodad")
        where.run("ip", "link", "set", name, "up")
    yield namespace
    stack.host.run("ip", "link", "delete", device)


@pytest.fixture(scope="session")
def _faulty(token: str, directory: Path) -> Iterator[Faulty]:
    with ExitStack() as undo:
        yield Faulty(token, directory, undo)


@pytest.fixture
def faulty(_faulty: Faulty) -> Faulty:
    """A host on which everything may break, beside that of the other tests."""
    _faulty.ensure()
    return _faulty


@pytest.fixture
def libcni(stack: Stack, tmp_path: Path) -> Libcni:
    """Finds our plugins, then the reference ones."""
    return Libcni(stack.host, (stack.bin_dir, REFERENCE_DIR), tmp_path / "results")


@pytest.fixture
def attach(stack: Stack, libcni: Libcni, netns: Callable[[], Netns]) -> Iterator[Attach]:
    """ADD of a list for a container that it makes; DEL follows at the end, also after failures."""
    with ExitStack() as undo:

        def add(conflist: dict[str, Any], **capabilities: Any) -> tuple[Attachment, dict[str, Any]]:
            namespace = netns()
            attachment = Attachment(namespace.name, namespace, capabilities=capabilities)
            undo.callback(libcni.delete, conflist, attachment)
            return attachment, libcni.add(conflist, attachment)

        yield add
    for network in stack.show("network", "ls"):
        stack.cli("network", "rm", network["id"])

"""`devstack/pictures.sh`: the pictures of README.md, of a real stack.

Needs root. Open vSwitch, ovsnetd and dockerd are private and in a network namespace that plays the host, as in the system tests.
The page is photographed by a browser; of the terminal, what the `ovsnet` command writes to one becomes an SVG.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import re
import secrets
import struct
import subprocess
import sys
import tempfile
import termios
from contextlib import ExitStack, suppress
from pathlib import Path

from playwright.sync_api import expect, sync_playwright
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tests.harness import REPO, SCRIPTS, Dockerd, Netns, Ovs, Stack, environment
from tests.system.containers import create_network, start_container

CHROMIUM = "/usr/bin/chromium"
COLUMNS, ROWS = 112, 200
SIZE = {"width": 1280, "height": 900}
SOON = 20_000  # ms
MOST = 200_000  # bytes of a picture
FONTS = "Menlo, Consolas, 'DejaVu Sans Mono', monospace"
PODS = {"shop": ("cart-5d9f7", "cart-8k2xq", "mail-7c4bd", "pay-64b9s"), "tools": ("build-2lq8", "build-9wzt")}
CONTAINERS = ("db-1", "web-1", "web-2")


def populate(undo: ExitStack, directory: Path) -> Stack:
    """A host with containers of Docker and of a CNI runtime on two networks."""
    token = f"p{secrets.token_hex(2)[:3]}"
    host = _netns(undo, f"{token}-host")
    ovs = Ovs(host, directory)
    undo.callback(ovs.close)
    ovs.ensure()
    stack = Stack(host, ovs, token, directory / "ovsnetd", log_level="warning", node="host1", bridge="br0")
    undo.callback(stack.close)
    stack.start()
    dockerd = Dockerd(host, token, directory / "docker")
    undo.callback(dockerd.close)
    dockerd.start()
    create_network(dockerd, stack, "shop", "10.42.0.0/24")
    stack.cli("network", "create", "tools", "--subnet", "10.42.1.0/24", "--subnet", "fd42:1::/64")
    for name in CONTAINERS:
        start_container(dockerd, name, "shop")
    for network, pods in PODS.items():
        for name in pods:
            added = stack.cni("ADD", name, _netns(undo, f"{token}-{name}"), stack.conf(network))
            assert added.ok, added
    stack.cli("ipam", "reserve", next(one["name"] for one in stack.show("pool", "ls")), "printer")
    return stack


def _netns(undo: ExitStack, name: str) -> Netns:
    namespace = Netns(name)
    undo.callback(namespace.delete)
    return namespace


def photograph(stack: Stack, path: Path) -> None:
    """The page's overview, as a browser shows it."""
    command: list[str | Path] = [SCRIPTS / "ovsnet", "--socket", stack.socket, "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as door:
        try:
            assert door.stdout is not None
            url = door.stdout.readline().removeprefix("Open ").strip()
            with sync_playwright() as playwright:
                chromium = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
                )
                page = chromium.new_page(viewport=SIZE)  # type: ignore[arg-type]
                page.set_default_timeout(SOON)
                page.goto(url)
                expect(page.locator("#pulse")).to_have_text("Live")
                expect(page.locator("#drawn")).to_have_attribute("data-nodes", re.compile(r"\d+"))
                page.screenshot(path=path, full_page=True)
                chromium.close()
        finally:
            door.terminate()
            door.wait(10)


def write_session(stack: Stack, path: Path) -> None:
    """What some commands tell on a terminal."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    address = next(one["addresses"][0] for one in stack.endpoints() if one["container"] == PODS["tools"][0])
    for number, command in enumerate(
        (
            ["network", "ls"],
            ["endpoint", "ls"],
            ["trace", "cart-5d9f7", "pay-64b9s"],
            ["trace", "cart-5d9f7", address.partition("/")[0]],
        )
    ):
        if number:
            console.print()
        console.print(Text.assemble(("# ", "bold green"), (f"ovsnet {' '.join(command)}", "bold")))
        console.print(Text.from_ansi(_on_a_terminal(stack, command).rstrip()), overflow="fold")
    # Without the fonts that the form would fetch from elsewhere.
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("font-family: Fira Code", f"font-family: {FONTS}")
    path.write_text(console.export_svg(title="ovsnet", code_format=form, unique_id="ovsnet"), encoding="utf-8")
    console.file.close()


def _on_a_terminal(stack: Stack, command: list[str]) -> str:
    """What `ovsnet` writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    process = subprocess.Popen(
        stack.host.argv(SCRIPTS / "ovsnet", *command),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment(OVSNET_SOCKET=str(stack.socket), TERM="xterm-256color"),
    )
    os.close(theirs)
    told = b""
    with suppress(OSError):  # EIO: the other end is closed
        while part := os.read(ours, 65536):
            told += part
    os.close(ours)
    process.wait(60)
    return told.decode().replace("\r\n", "\n")


def main() -> int:
    """Exit status 0 when all pictures are made, and none is too large."""
    parser = argparse.ArgumentParser(prog="pictures.sh", description="The pictures of README.md.")
    parser.add_argument("directory", nargs="?", type=Path, default=REPO / "docs/pictures", help="(%(default)s)")
    directory: Path = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    pictures = [directory / "page.png", directory / "terminal.svg"]
    with ExitStack() as undo:
        stack = populate(undo, Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="ovsnet-pictures-"))))
        photograph(stack, pictures[0])
        write_session(stack, pictures[1])
    for each in pictures:
        print(f"{each}: {each.stat().st_size} bytes")
    return int(any(each.stat().st_size > MOST for each in pictures))


if __name__ == "__main__":
    sys.exit(main())

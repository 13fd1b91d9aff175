"""The page in a browser, on the real stack: three networks and thirty endpoints, seen, searched, followed as they change."""

from __future__ import annotations

import ipaddress
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import ConsoleMessage, Page, expect, sync_playwright

from tests.crowd import crowd
from tests.harness import SCRIPTS, Dockerd, Stack
from tests.system.containers import Pod, create_network, start_container

pytestmark = pytest.mark.usefixtures("nothing_left")

CHROMIUM = "/usr/bin/chromium"
AXE = Path(__file__).parent / "data" / "axe.min.js"
SOON = 20_000  # ms; a page that is not told looks again after 15 s
HEIGHTS = {1280: 900, 390: 844}
LOOKS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1280, "light"), (390, "dark"))


@pytest.fixture
def url(stack: Stack) -> Iterator[str]:
    """Where `ovsnet web` lets a browser in."""
    command: list[str | Path] = [SCRIPTS / "ovsnet", "--socket", stack.socket, "web"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("Open ").strip()
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture
def reserve(stack: Stack, pod: Callable[[], Pod]) -> Iterator[Callable[[str, str, str], None]]:  # noqa: ARG001  # before its end
    """Keeps addresses for names until the end of the test."""
    with ExitStack() as undo:

        def keep(pool: str, name: str, address: str) -> None:
            stack.cli("ipam", "reserve", pool, name, address)
            undo.callback(stack.cli, "ipam", "release", pool, name)

        yield keep


class Browser:
    """A page, and what a person would find wrong with it."""

    def __init__(self, page: Page, shots: Path, *, whole: bool) -> None:
        self.page = page
        self.wrong: list[str] = []
        self._shots = shots
        self._whole = whole
        page.set_default_timeout(SOON)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))

    def _said(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):  # what the policy forbids, and what cannot be loaded, is told there too
            self.wrong.append(said.text)

    def examine(self, name: str, *, always: bool = False) -> None:
        """Looks at the page wide and light, and narrow and dark: nothing is wider than the window, nothing serious says axe.

        Takes a few seconds: without `--whole` only some pages are examined.
        """
        if not self._whole and not always:
            return
        for width, scheme in LOOKS:
            self.page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
            self.page.emulate_media(color_scheme=scheme)
            self.page.screenshot(path=self._shots / f"{name}-{width}-{scheme}.png", full_page=True)
            over = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert over <= 0, f"{name} is {over} px wider than {width}"
            found: dict[str, Any] = self.page.evaluate(f"{AXE.read_text(encoding='utf-8')}; axe.run()")
            serious = [
                f"{one['id']}: {node['html'][:200]} {node['failureSummary']}"
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
                for node in one["nodes"][:3]
            ]
            assert not serious, f"{name} {width} {scheme}: {serious}"
        self.page.set_viewport_size({"width": 1280, "height": HEIGHTS[1280]})
        self.page.emulate_media(color_scheme="light")


@pytest.fixture
def browser(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Browser]]:
    """Opens windows; what was seen is kept in the directory that SCREENSHOTS names."""
    whole = bool(request.config.getoption("whole"))
    shots = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield lambda **how: Browser(chromium.new_context(**how).new_page(), shots, whole=whole)
        finally:
            chromium.close()


@pytest.mark.long
def test_the_page_shows_what_is_there_and_follows_it(
    stack: Stack,
    dockerd: Dockerd,
    pod: Callable[[], Pod],
    reserve: Callable[[str, str, str], None],
    url: str,
    browser: Callable[..., Browser],
) -> None:
    nets = {name: stack.conf(name, **ipam) for name, ipam in (("blue", BLUE), ("green", GREEN))}
    address, member = "", pod()
    for name, count in (("blue", 18), ("green", 10)):
        for _ in range(count):
            neighbour, member = member, pod()
            address = member.attach(nets[name])
    create_network(dockerd, stack, "grey", "10.97.3.0/24")
    for number in range(2):
        start_container(dockerd, f"grey-{number}", "grey")
    endpoints = stack.endpoints()
    (one, *_) = (each for each in endpoints if each["network"] == "blue")
    stack.cli("endpoint", "quarantine", one["id"])
    pool = next(each for each in stack.show("pool", "ls") if each["subnet"] == BLUE["subnet"])
    reserve(pool["name"], "printer", "10.97.1.99")
    assert len(endpoints) == 30

    window = browser()
    page = window.page
    page.goto(url)
    assert "key=" not in page.url
    tiles = page.locator(".tiles")
    for text in ("1 bridge", "3 networks", "4 pools", "30 endpoints"):
        expect(tiles).to_contain_text(text)
    expect(page.locator("#pulse")).to_have_text("Live")
    expect(page.locator("#drawn")).to_have_attribute("data-nodes", str(1 + 3 + 30))
    expect(page.locator("main")).to_contain_text("1 quarantined")
    for name, tally in (("blue", "18 cni"), ("green", "10 cni"), ("grey", "2 docker")):
        expect(page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))).to_contain_text(
            tally
        )
    window.examine("overview", always=True)

    page.get_by_role("link", name="10.97.1.0/24", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Pool")
    assert page.locator("ol.map > li").count() == 256
    assert page.locator("ol.map > li.leased").count() == 18
    assert page.locator("ol.map > li.reserved").count() == 1
    held = page.get_by_role("table")
    row = held.get_by_role("row").filter(
        has=page.get_by_role("rowheader", name=one["addresses"][0].partition("/")[0], exact=True)
    )
    expect(row).to_contain_text(one["container"])
    expect(row.locator("time")).to_contain_text(re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"))
    window.examine("pool", always=True)

    for text in (member.id, address, next(each["mac"] for each in endpoints if each["container"] == member.id)):
        page.get_by_role("searchbox").fill(text)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text(text)
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.get_by_role("rowheader", name=member.id)).to_be_visible()
    page.get_by_role("searchbox").fill("green")
    page.keyboard.press("Enter")
    expect(page.locator("tbody tr")).to_have_count(10)
    window.examine("search")

    page.get_by_role("link", name="Endpoints").click()
    expect(page.locator("tbody tr")).to_have_count(30)
    window.examine("endpoints")

    # A container that starts and stops is seen, wherever the reader is, and the keyboard stays where it was.
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("#pulse")).to_have_text("Live")
    page.get_by_role("link", name="grey", exact=True).focus()
    start_container(dockerd, "grey-late", "grey")
    expect(tiles).to_contain_text("31 endpoints")
    expect(page.locator("#drawn")).to_have_attribute("data-nodes", str(1 + 3 + 31))
    expect(page.get_by_role("link", name="grey", exact=True)).to_be_focused()
    dockerd.docker("rm", "--force", "grey-late")
    expect(tiles).to_contain_text("30 endpoints")
    page.get_by_role("link", name="Events").click()
    expect(page.locator("tbody tr").first).to_contain_text("released")
    window.examine("events")

    page.get_by_role("link", name="Trace").click()
    for source, outcome in ((one["container"], "dropped"), (neighbour.id, "delivered")):
        page.get_by_label("From", exact=True).fill(source)
        page.get_by_label("To", exact=True).fill(address.partition("/")[0])
        page.get_by_label("Protocol").select_option("tcp")
        page.get_by_label("Port").fill("80")
        page.get_by_role("button", name="Trace").click()
        expect(page.locator(".outcome")).to_contain_text(outcome)
        expect(page.locator("ol.path li.ended")).to_have_count(int(outcome == "dropped"))
    window.examine("trace", always=True)

    page.goto(url.partition("?")[0] + "ui/pools/none")
    expect(page.get_by_role("alert")).to_be_visible()
    assert [text for text in window.wrong if "404" in text]  # the browser tells of the page itself
    window.wrong = [text for text in window.wrong if "404" not in text]
    window.examine("error")
    assert not window.wrong

    # Without JavaScript all is there to read.
    plain = browser(java_script_enabled=False)
    plain.page.goto(url)
    expect(plain.page.locator(".tiles")).to_contain_text("30 endpoints")
    plain.page.get_by_role("link", name="10.97.1.0/24", exact=True).click()
    assert plain.page.locator("ol.map > li.leased").count() == 18
    assert not plain.wrong

    # Nobody comes in without the key.
    page.context.clear_cookies()
    answer = page.goto(url.partition("?")[0])
    assert answer is not None
    assert answer.status == 403


@pytest.mark.whole
def test_a_thousand_endpoints(stack: Stack, url: str, browser: Callable[..., Browser]) -> None:
    """Of the real store: each page is examined, and found with few things on it."""
    stack.cli("network", "create", "many", "--subnet", "10.97.16.0/20")
    try:
        with crowd(stack, "many", THOUSAND) as made:
            window = browser()
            page = window.page
            page.goto(url)
            expect(page.locator(".tiles")).to_contain_text("1,000 endpoints")
            expect(page.locator("#drawn")).to_have_attribute("data-nodes", str(1 + 1 + 1))  # bridge, network, number
            expect(page.get_by_role("row").nth(1)).to_contain_text("1,000 cni")
            window.examine("thousand-overview", always=True)
            page.get_by_role("link", name="10.97.16.0/20", exact=True).click()
            first = ipaddress.ip_network("10.97.16.0/24")
            shown = [one for one in made if one.addresses[0].ip in first]
            assert page.locator("ol.map > li.leased").count() == len(shown) > 100
            window.examine("thousand-pool", always=True)
            page.get_by_role("link", name="Endpoints").click()
            expect(page.locator("main")).to_contain_text("page 1 of 10")
            expect(page.locator("tbody tr")).to_have_count(100)
            window.examine("thousand-endpoints", always=True)
            page.get_by_role("searchbox").fill(str(made[-1].addresses[0].ip))
            page.keyboard.press("Enter")
            expect(page.locator("tbody tr")).to_have_count(1)
            page.get_by_role("searchbox").fill("many")
            page.keyboard.press("Enter")
            expect(page.locator("tbody tr")).to_have_count(100)
            window.examine("thousand-search", always=True)
            assert not window.wrong
    finally:
        stack.cli("network", "rm", "many")


THOUSAND = 1000
BLUE = {"subnet": "10.97.1.0/24"}
GREEN = {"ranges": [[{"subnet": "10.97.2.0/24"}], [{"subnet": "fd97:2::/64"}]]}

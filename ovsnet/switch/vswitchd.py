"""What ovs-vswitchd would do with a packet, in its own words, read into data: its command `ofproto/trace` (ovs-vswitchd(8)).

Asked by its control socket, on a connection of its own each time; nothing is sent and nothing is learned. The reading is pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import SwitchUnavailable
from ..ovsdb import ask
from .sources import OPTION, OURS, OURS_MASK, SOURCE

_HINT = "check that ovs-vswitchd runs, and that switch_run_dir is its directory"
_RULE = re.compile(r"^ {0,2}(\d{1,3})\. (.*)$", re.MULTILINE)
_COOKIE = re.compile(r", cookie 0x([0-9a-f]+)")
_ACTIONS = re.compile(r"^Datapath actions: (.*)$", re.MULTILINE)
_ARGUMENTS = re.compile(r"\([^()]*\)")


@dataclass(frozen=True, slots=True)
class Rule:
    """A flow that a packet met: `text` is its match and priority, or says that there was none."""

    table: int
    text: str
    cookie: int = 0

    @property
    def ours(self) -> bool:
        """Whether it is anti-spoofing's, of this or another ovsnet."""
        return self.cookie & OURS_MASK == OURS or SOURCE <= self.table <= OPTION

    def __str__(self) -> str:
        return f"table {self.table}: {self.text}"


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The way of a packet through the switch: the flows that it met, in order, and names of the ports that it leaves by."""

    rules: tuple[Rule, ...]
    outputs: frozenset[str]


class Vswitchd:
    """The ovs-vswitchd whose run directory is `directory`; it has `timeout` seconds for an answer."""

    def __init__(self, directory: Path, timeout: float) -> None:
        self._directory = directory
        self._timeout = timeout

    def trace(self, bridge: str, fields: str) -> Forwarded:
        """What becomes of a packet with these fields (ovs-fields(7)) on that bridge. SwitchUnavailable."""
        try:
            answer = ask(
                f"unix:{self._control()}",
                "ofproto/trace",
                ["--names", bridge, fields],
                self._timeout,
                SwitchUnavailable,
            )
        except SwitchUnavailable as exc:
            raise SwitchUnavailable(exc.message, hint=_HINT) from None
        return read(str(answer))

    def _control(self) -> Path:
        """Its control socket bears its process id, unless it was told a name."""
        try:
            pid = int((self._directory / "ovs-vswitchd.pid").read_text())
        except (OSError, ValueError):
            return self._directory / "ovs-vswitchd.ctl"
        return self._directory / f"ovs-vswitchd.{pid}.ctl"


def read(text: str) -> Forwarded:
    """From the answer of `ofproto/trace --names`."""
    rules = []
    for table, rule in _RULE.findall(text):
        cookie = _COOKIE.search(rule)
        rules.append(Rule(int(table), _COOKIE.sub("", rule), int(cookie[1], 16) if cookie else 0))
    outputs: set[str] = set()
    for actions in _ACTIONS.findall(text):
        outputs.update(one.strip('"') for one in _without_arguments(actions).split(",") if one != "drop")
    return Forwarded(tuple(rules), frozenset(outputs))


def _without_arguments(actions: str) -> str:
    while (bare := _ARGUMENTS.sub("", actions)) != actions:
        actions = bare
    return actions

"""The soak, in its shortest form; and that it would notice."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests import soak
from tests.harness import Netns


def test_an_address_on_two_containers_is_noticed(netns: Callable[[], Netns]) -> None:
    spaces = [netns() for _ in range(3)]
    for number, space in enumerate(spaces):
        space.run("ip", "address", "add", f"192.0.2.{max(1, number)}/32", "dev", "lo", "scope", "global")
    running = [soak.Running(space.name, space) for space in spaces]
    one, other, third = (space.name for space in spaces)
    assert soak.holders(running) == {"192.0.2.1": [one, other], "192.0.2.2": [third]}
    running[1].there = lambda: False  # it has ended
    assert soak.holders(running) == {"192.0.2.1": [one], "192.0.2.2": [third]}
    spaces[2].delete()
    assert soak.holders(running) == {"192.0.2.1": [one]}


@pytest.mark.whole
@pytest.mark.faults
@pytest.mark.docker
@pytest.mark.timeout(300)
def test_half_a_minute_of_the_soak(capsys: pytest.CaptureFixture[str]) -> None:
    status = soak.main(["--minutes", "0.5", "--every", "2", "--json"])
    printed = capsys.readouterr()
    assert status == 0, printed
    figures = json.loads(printed.out.splitlines()[-1])
    assert figures["wrong"] == []
    assert figures["faults"]
    assert all(figures["containers"][kind] for kind in ("CNI", "Docker"))

"""Fixtures and settings of all tests."""

from __future__ import annotations

import secrets
import shutil
import sys
from pathlib import Path
from typing import Protocol

import hypothesis
import pytest
import structlog

# A busy machine is no failure of the code: examples have no deadline of their own, the test has one.
hypothesis.settings.register_profile("ovsnet", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ovsnet")

_FAULT = "fault"  # of user_properties, which xdist carries from its workers to the one that reports
_FAULT_COLUMNS = ("fault", "rounds", "lost", "leaked", "doubled", "back", "gate")
# Unconfigured, structlog prints to standard output, where tests of the command look.
structlog.configure(
    processors=[structlog.processors.JSONRenderer(default=repr)],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)


@pytest.fixture(scope="session")
def token() -> str:
    """Four characters that tell this test run from all others; fit for a `device_prefix`."""
    return f"t{secrets.token_hex(2)[:3]}"


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' checker, which devstack/test.sh puts beside the interpreter."""
    beside = Path(sys.executable).with_name("promtool")
    found = str(beside) if beside.exists() else shutil.which("promtool")
    assert found is not None, "there is no promtool: run devstack/test.sh once"
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds --whole."""
    parser.addoption("--whole", action="store_true", help="also run the tests marked `whole`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is marked `whole` unless it was asked for, and begins with what is marked `long`."""
    left_out = [] if config.getoption("whole") else [one for one in items if one.get_closest_marker("whole")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [one for one in items if one not in set(left_out)]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class FaultRow(Protocol):
    """Records a row of the table of faults."""

    def __call__(
        self,
        *,
        fault: str,
        gate: str,
        rounds: int = 1,
        lost: int | None = None,
        leaked: int | None = None,
        doubled: int | None = None,
        back: float | None = None,
    ) -> None:
        """What was broken and what had to hold, in words; how often; what was counted: `lost` pings or requests, `leaked`
        and `doubled` leases, ports, links or rules; `back` the longest time until all was well, in seconds. None: not a
        question of this fault.
        """


@pytest.fixture
def fault_row(request: pytest.FixtureRequest) -> FaultRow:
    """Writes what a test of a fault has measured into the table at the end of the run; once for each row, before it asserts."""

    def record(
        *,
        fault: str,
        gate: str,
        rounds: int = 1,
        lost: int | None = None,
        leaked: int | None = None,
        doubled: int | None = None,
        back: float | None = None,
    ) -> None:
        seconds = None if back is None else f"{back:.2f} s"
        cells = (fault, rounds, lost, leaked, doubled, seconds, gate)
        request.node.user_properties.append((_FAULT, ["" if cell is None else str(cell) for cell in cells]))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of faults, of all workers."""
    rows = [
        [*cells, "" if report.passed else "FAILED"]
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, cells in report.user_properties
        if name == _FAULT and isinstance(cells, list)
    ]
    if not rows:
        return
    table = [[*_FAULT_COLUMNS, ""], *sorted(rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    terminalreporter.section("faults")
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.line("  ".join(cells).rstrip())

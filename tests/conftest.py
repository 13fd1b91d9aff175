"""Fixtures and settings of all tests."""

from __future__ import annotations

import secrets

import hypothesis
import pytest

# A busy machine is no failure of the code: examples have no deadline of their own, the test has one.
hypothesis.settings.register_profile("ovsnet", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ovsnet")


@pytest.fixture(scope="session")
def token() -> str:
    """Four characters that tell this test run from all others; fit for a `device_prefix`."""
    return f"t{secrets.token_hex(2)[:3]}"


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

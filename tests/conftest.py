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

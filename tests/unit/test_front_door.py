"""The documents at the front door name only what is there."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", (REPO / document).read_text(encoding="utf-8"))
    assert [target for target in targets if not (REPO / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_can_be_run(document: str) -> None:
    scripts = set(re.findall(r"\bdevstack/\w+\.sh|\.ci/run", (REPO / document).read_text(encoding="utf-8")))
    assert [script for script in sorted(scripts) if not os.access(REPO / script, os.X_OK)] == []


@pytest.mark.parametrize("script", sorted(path.name for path in (REPO / "devstack").glob("*.sh")))
def test_every_script_says_what_it_does(script: str) -> None:
    first, second = (REPO / "devstack" / script).read_text(encoding="utf-8").splitlines()[:2]
    assert first in {"#!/usr/bin/env bash", "# shellcheck shell=bash"}
    assert second.startswith("# ")

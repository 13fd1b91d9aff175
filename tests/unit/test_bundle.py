"""What goes into a support bundle, and what never does: secrets planted in every place where somebody may have one."""

from __future__ import annotations

import json
import re
import stat
import tarfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ovsnet import bundle
from ovsnet.bundle import Piece, gather
from ovsnet.client import Client
from ovsnet.config import Settings
from ovsnet.doctor import RealHost
from ovsnet.doctor.host import STATE, Ran, Row
from ovsnet.errors import AlreadyExists, Unavailable
from ovsnet.redact import REDACTED, Redactor

PLANTED = "hunter2-correct-horse"


@pytest.mark.parametrize(
    "text",
    [
        f"password={PLANTED}",
        f"--db-password {PLANTED}".replace(" ", "="),
        f'{{"apiToken": "{PLANTED}"}}',
        f'{{\\"secret\\": \\"{PLANTED}\\"}}',
        f"token: {PLANTED}, more",
        f"https://user:{PLANTED}@host/path",
        f"Authorization: Bearer {PLANTED}",
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        f"-----BEGIN EC PRIVATE KEY-----\n{PLANTED}",
    ],
)
def test_forms_of_secrets_are_taken_out_of_texts(text: str) -> None:
    redacted = Redactor().text(f"before {text} after")
    assert PLANTED not in redacted
    assert redacted.startswith("before ")
    assert REDACTED in redacted
    assert Redactor().text(redacted) == redacted


@pytest.mark.parametrize(
    "text",
    [
        '{"address": "10.1.0.2", "key": 5}',
        "cookie=0x6f76, duration=3.2s, table=0, actions=NORMAL",
        "Bearer of bad news",
        "ovsnet/hunter: port onp1 of network blue",
    ],
)
def test_harmless_texts_stay(text: str) -> None:
    assert Redactor().text(text) == text


def test_a_secret_is_taken_out_wherever_it_turns_up() -> None:
    redactor = Redactor(frozenset({"ovsnet.made-with"}))
    assert redactor.values({"state_token": PLANTED, "mtu": 1500}) == {"state_token": REDACTED, "mtu": 1500}
    assert redactor.text(f"somebody printed {PLANTED}!") == f"somebody printed {REDACTED}!"
    quoted = 'a "quoted" \\secret'
    redactor.values({"state_password": quoted})
    assert redactor.text(json.dumps({"note": quoted})) == json.dumps({"note": REDACTED})
    assert redactor.labels({"note": PLANTED, "ovsnet.made-with": "blue"}) == {
        "note": REDACTED,
        "ovsnet.made-with": "blue",
    }
    assert redactor.names({"MY_TOKEN": "other-secret", "HOME": "/root"}) == ["HOME", "MY_TOKEN"]
    assert redactor.text("/root has other-secret") == f"/root has {REDACTED}"


def test_configurations_show_their_form() -> None:
    conf = {
        "cniVersion": "1.0.0",
        "plugins": [
            {
                "type": "ovsnet",
                "vlan": 7,
                "ipMasq": True,
                "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]], "note": PLANTED},
            },
            {"type": "other", "kubernetes": {"api_token": PLANTED, "pin": 1234, "on": False}, "list": [PLANTED]},
        ],
    }
    assert Redactor().configuration(conf) == {
        "cniVersion": "1.0.0",
        "plugins": [
            {
                "type": "ovsnet",
                "vlan": 7,
                "ipMasq": True,
                "ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}]], "note": REDACTED},
            },
            {"type": "other", "kubernetes": {"api_token": REDACTED, "pin": REDACTED, "on": False}, "list": [REDACTED]},
        ],
    }


JSON = st.recursive(
    st.just(PLANTED) | st.integers(10_000, 99_999) | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["plugins", "note", "api_token", "ipam", "x", ""]), inner, max_size=4)
    ),
    max_leaves=30,
)


@given(conf=JSON)
def test_no_value_of_an_unknown_key_is_shown(conf: Any) -> None:
    shown = json.dumps(Redactor().configuration(conf))
    assert PLANTED not in shown
    assert not re.search("[0-9]", shown)


def test_a_collector_that_hangs_or_fails_costs_its_file_only() -> None:
    stuck = threading.Event()

    def fails() -> str:
        raise Unavailable(f"no password={PLANTED}", hint="see")

    def breaks() -> str:
        raise ZeroDivisionError("oops")

    def hangs() -> str:
        stuck.wait(60)
        return "late"

    try:
        found = gather({"a": lambda: "fine", "b": hangs, "c": fails, "d": breaks}, Redactor(), 1.0)
    finally:
        stuck.set()
    assert [(one.name, one.content) for one in found] == [
        ("a", b"fine"),
        ("b", b"ERROR: no answer within 1 s\n"),
        ("c", f"ERROR: no password={REDACTED} see\n".encode()),
        ("d", b"ERROR: defect: ZeroDivisionError('oops')\n"),
    ]


class MadeUp:
    """A host whose programs print a secret, whose rows have one in their labels, and whose ovsnetd is down."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings.model_validate({"node": "n", "state_dir": root / "state", "run_dir": root / "run"})
        self.settings_trouble = f"x.toml:1: token = {PLANTED}"
        self.root = True
        self.bin_dir = root / "bin"
        self.conf_dir = root / "net.d"
        self.conf_dir.mkdir()
        (self.conf_dir / "10-a.conflist").write_text(
            json.dumps({"name": "a", "plugins": [{"type": "b", "password": PLANTED}]})
        )
        (self.conf_dir / "11-b.conf").write_text(PLANTED)

    def run(self, *argv: str, stdin: str = "") -> Ran:
        del stdin
        return Ran(1 if "nft" in argv else 0, f"{argv[0]} says {PLANTED}\n", f"{argv[0]} fails with {PLANTED}")

    def read(self, path: str | Path) -> str | None:
        return Path(path).read_text() if Path(path).exists() else None

    def rows(self, database: str, table: str) -> list[Row]:
        if database == STATE:
            return (
                [{"name": table, "labels": {"note": "a-label's-value", "db-password": PLANTED}}]
                if table != "Block"
                else []
            )
        return [{"name": table, "external_ids": {"ovsnet-owner": "n", "owner": "somebody-else's-value"}}]

    def __getattr__(self, name: str) -> Any:
        raise Unavailable(f"{name} is not made up")


def contents(path: Path) -> Mapping[str, str]:
    with tarfile.open(path) as archive:
        found = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        return {name.partition("/")[2]: file.read().decode() for name, file in found.items() if file is not None}


def test_planted_secrets_are_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOY_TOKEN", "deploy-value-77")
    monkeypatch.setenv("HARMLESS", "value-of-harmless")
    log = tmp_path / "log"
    log.write_text(f"started with {PLANTED} and deploy-value-77\n")
    path = tmp_path / "x.tar.gz"
    pieces = bundle.write(path, cast(RealHost, MadeUp(tmp_path)), Client(str(tmp_path / "none.sock")), log)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(one.name for one in tmp_path.iterdir()) == ["log", "net.d", "x.tar.gz"]
    found = contents(path)
    assert set(found) == {"manifest.json", *(one.name for one in pieces)}
    for name, text in found.items():
        for secret in (PLANTED, "deploy-value-77", "value-of-harmless", "a-label's-value", "somebody-else's-value"):
            assert secret not in text, name
    assert json.loads(found["environment.json"]).count("HARMLESS") == 1
    assert json.loads(found["OVSNet/Network.json"]) == [
        {"name": "Network", "labels": {"note": REDACTED, "db-password": REDACTED}}
    ]
    assert json.loads(found["cni.json"]) == {
        "10-a.conflist": {"name": "a", "plugins": [{"type": "b", "password": REDACTED}]},
        "11-b.conf": None,
    }
    assert "started with" in found["logs/ovsnetd.log"]
    assert found["health.json"].startswith("ERROR: ovsnetd is not reachable")
    assert "nft fails with" in found["rules.txt"]
    errors = {one["name"]: one["error"] for one in json.loads(found["manifest.json"])["files"]}
    assert errors["versions.json"] == ""
    assert "not reachable" in errors["metrics.txt"]


def test_a_bundle_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_text("mine")
    with pytest.raises(AlreadyExists):
        bundle.write(path, cast(RealHost, MadeUp(tmp_path)), Client("/nowhere"))
    with pytest.raises(AlreadyExists):  # who came meanwhile
        bundle._write(path, [Piece("a", b"", "", 0.0)])
    assert path.read_text() == "mine"
    with pytest.raises(Unavailable):
        bundle._write(tmp_path / "none" / "x", [])
    assert sorted(one.name for one in tmp_path.iterdir()) == ["net.d", "x.tar.gz"]

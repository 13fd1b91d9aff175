"""`ovsnet bundle` of a real host: what is needed is in it, what was planted is not; it and the doctor work without ovsnetd."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Ovs, Stack, environment
from tests.system.containers import Pod
from tests.system.test_doctor import diagnose

pytestmark = pytest.mark.usefixtures("nothing_left")

SUBNET = "10.93.1.0/24"
PLANTED = ("in-a-label-4711", "in-a-configuration-4711", "in-the-environment-4711")


def gather(stack: Stack, ovs: Ovs, path: Path) -> tuple[Mapping[str, str], dict[str, str]]:
    """The files of a bundle, and what was left out of it, and why."""
    env = environment(CONTAINER_TOKEN=PLANTED[2], OVS_RUNDIR=str(ovs.vswitchd.directory))
    options = ("--config", stack.config, "--log", stack.log, "--conf-dir", path.parent / "net.d")
    said = json.loads(stack.cli("bundle", path, *options, "-o", "json", env=env).stdout)
    assert said["file"] == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        files = {entry.name: archive.extractfile(entry) for entry in archive.getmembers()}
        texts = {name.partition("/")[2]: file.read().decode() for name, file in files.items() if file is not None}
    for name, text in texts.items():
        assert [one for one in PLANTED if one in text] == [], name
    return texts, {one["name"]: one["error"] for one in said["files"] if one["error"]}


def test_bundle_of_a_host_with_secrets(stack: Stack, ovs: Ovs, pod: Callable[[], Pod], tmp_path: Path) -> None:
    (tmp_path / "net.d").mkdir()
    other = {"name": "other", "plugins": [{"type": "bridge", "password": PLANTED[1]}]}
    (tmp_path / "net.d" / "10-other.conflist").write_text(json.dumps(other))
    box = pod()
    conf: dict[str, Any] = stack.conf("bundled", subnet=SUBNET)
    address = box.attach(conf | {"args": {"cni": {"labels": [{"key": "note", "value": PLANTED[0]}]}}})
    with stack.log.open("a") as log:
        log.write(f"somebody says {PLANTED[2]}\n")

    found, left_out = gather(stack, ovs, tmp_path / "up.tar.gz")
    assert not left_out.keys() & {"flows.txt", "links.json", "rules.txt", "metrics.txt", "health.json", "doctor.json"}
    (endpoint,) = json.loads(found["OVSNet/Endpoint.json"])
    assert (endpoint["container"], endpoint["labels"]["note"]) == (box.id, "[redacted]")
    assert endpoint["port"] in {one["name"] for one in json.loads(found["Open_vSwitch/Port.json"])}
    assert "n_packets=" in found["flows.txt"]
    assert endpoint["port"] in {one["ifname"] for one in json.loads(found["links.json"])}
    assert f"table inet ovsnet-{stack.prefix}" in found["rules.txt"]
    assert address in {one["address"] for one in json.loads(found["journal/events.json"])}
    assert json.loads(found["settings.json"])["settings"]["node"] == stack.prefix
    assert json.loads(found["cni.json"])["10-other.conflist"]["plugins"] == [
        {"type": "bridge", "password": "[redacted]"}
    ]
    assert "somebody says [redacted]" in found["logs/ovsnetd.log"]
    assert "ovsnet_operation_seconds" in found["metrics.txt"]

    stack.stop()  # and its state server: the file is read
    assert set(diagnose(stack)) == {"ovsnetd"}
    found, left_out = gather(stack, ovs, tmp_path / "down.tar.gz")
    assert {"metrics.txt", "health.json"} <= left_out.keys()
    assert json.loads(found["OVSNet/Endpoint.json"]) == [endpoint]
    stack.start()

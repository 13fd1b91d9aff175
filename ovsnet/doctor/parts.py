"""Checks of the parts that ovsnet is made of or meets: ovsnetd, the databases, Open vSwitch, Docker, CNI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cni import conflist, install

from ..errors import OvsnetError
from .host import STATE, SWITCH, Host
from .trouble import Trouble, Unreadable, error, warning

_TESTED = (2, 17)  # the oldest Open vSwitch that has what we ask of it
_START = "systemctl start ovsnetd"
_PLUGIN_DIR = Path("/run/docker/plugins")  # where Docker looks for sockets; /var/run is the same
_DOCKER = ("docker", "network", "ls", "--no-trunc", "--format")


def root(host: Host) -> Iterator[Trouble]:
    """Without root much cannot be looked at."""
    if not host.root:
        yield warning("this does not run as root: kernel, namespaces and files are not looked at", "use sudo")


def settings(host: Host) -> Iterator[Trouble]:
    """With wrong settings ovsnetd does not start."""
    if host.settings_trouble:
        yield error(
            f"{host.settings_trouble}; the defaults are taken here",
            "correct the settings: docs/settings.md has the keys",
        )


def ovsnetd(host: Host) -> Iterator[Trouble]:
    """Whether it serves requests."""
    try:
        complaint = host.health()
    except OvsnetError as exc:
        yield error(f"{exc.message}: traffic goes on; what follows is looked up without it", exc.hint or f"`{_START}`")
        return
    if complaint:
        yield error(f"ovsnetd cannot attach containers: {complaint}", "see the lines below, and its log")


def state_database(host: Host) -> Iterator[Trouble]:
    """Our own database, of its server or its file."""
    settings = host.settings
    if settings.state_database is not None and host.file(settings.state_database) is None:
        yield warning("ovsnetd has not run here yet: there is no state database", f"`{_START}`")
        return
    try:
        host.rows(STATE, "Network")
    except Unreadable as exc:
        yield error(exc.message, exc.hint or f"`{_START}`, and see {settings.run_dir / 'state.log'}")


def switch_database(host: Host) -> Iterator[Trouble]:
    """The database of Open vSwitch."""
    try:
        rows = host.rows(SWITCH, "Open_vSwitch")
    except Unreadable as exc:
        yield error(
            f"{host.settings.switch_remote}: {exc.message}",
            "`systemctl start openvswitch-switch`, or set switch_remote",
        )
        return
    if not rows:
        yield error("the switch's database is empty", "`ovs-vsctl --no-wait init`")


def vswitchd(host: Host) -> Iterator[Trouble]:
    """Without it no port is made."""
    host.rows(SWITCH, "Open_vSwitch")
    if not host.forwards():
        yield error(
            "ovs-vswitchd does not run: no port can be made, and with the userspace datapath nothing passes",
            "`systemctl restart openvswitch-switch`",
        )


def ovs_version(host: Host) -> Iterator[Trouble]:
    """Older ones lack what we ask of them."""
    text = next((str(row["ovs_version"]) for row in host.rows(SWITCH, "Open_vSwitch") if row["ovs_version"]), "")
    if not text:  # only the distribution's start script writes it down
        text = host.run("ovs-vswitchd", "--version").out
    found = re.search(r"(\d+)\.(\d+)", text)
    if found is None:
        yield warning("the version of Open vSwitch cannot be told", "`ovs-vswitchd --version`")
    elif (version := (int(found[1]), int(found[2]))) < _TESTED:
        yield warning(
            f"Open vSwitch {found[0]} is older than {'.'.join(map(str, _TESTED))}, the oldest that is known to do",
            "upgrade it" if version else "",
        )


def datapath(host: Host) -> Iterator[Trouble]:
    """A bridge keeps the datapath that it was made with."""
    kernel = host.file("/sys/module/openvswitch") is not None
    for row in host.rows(SWITCH, "Bridge"):
        if row["external_ids"].get("ovsnet-owner") != host.settings.node:
            continue
        has, wants = row["datapath_type"] or "system", host.settings.datapath
        if has == "system" and not kernel:
            yield error(
                f"bridge {row['name']} has the kernel's datapath, and the module openvswitch is not loaded",
                "`modprobe openvswitch`, or set datapath to netdev and make the bridge anew",
            )
        elif wants not in ("auto", has):
            yield warning(
                f"bridge {row['name']} has datapath {has}, and the settings want {wants}",
                "it changes only when the bridge is made anew: remove its networks first",
            )
        elif wants == "auto" and has == "netdev" and kernel:
            yield warning(
                f"bridge {row['name']} has the userspace datapath, and the kernel has a faster one",
                "remove its networks, so that it is made anew; or set datapath to netdev",
            )


def docker(host: Host) -> Iterator[Trouble]:
    """Whether Docker finds our driver, and has no other idea of which networks there are."""
    settings = host.settings
    driver = settings.docker_socket.stem
    listed = host.run(*_DOCKER, "{{.ID}} {{.Driver}} {{.Name}}")
    if listed.status != 0:
        return  # there is no Docker, it does not run, or we may not ask it
    directory = settings.docker_socket.parent
    if Path(str(directory).replace("/var/run", "/run", 1)) not in (_PLUGIN_DIR, _PLUGIN_DIR / driver):
        yield warning(
            f"Docker does not look for plugins in {directory}",
            f"set docker_socket to {_PLUGIN_DIR / 'ovsnet.sock'}, or name it in /etc/docker/plugins/{driver}.spec",
        )
    if not host.serves(settings.docker_socket):
        yield error(f"nobody serves {settings.docker_socket}, so that Docker has no driver {driver}", f"`{_START}`")
    theirs = {
        words[0]: words[2]
        for line in listed.out.splitlines()
        if len(words := line.split(" ", 2)) == 3 and words[1] == driver
    }
    ours = {docker_id: row["name"] for row in host.rows(STATE, "Network") for docker_id in _several(row["docker_ids"])}
    for docker_id in theirs.keys() - ours.keys():
        yield error(
            f"Docker has network {theirs[docker_id]} of driver {driver}, which ovsnet does not know",
            f"`docker network rm {docker_id[:12]}`, and create it again",
        )
    if settings.docker_scope == "local" and not settings.state_remotes and not settings.state_listen:
        for docker_id in ours.keys() - theirs.keys():
            yield warning(
                f"network {ours[docker_id]} is Docker's ({docker_id[:12]}), and Docker does not know it",
                f"if no other Docker uses it: `ovsnet network rm {ours[docker_id]}`",
            )


def cni_plugins(host: Host) -> Iterator[Trouble]:
    """Whether runtimes execute what fits this ovsnetd."""
    if not _has_cni(host):
        return
    for name, complaint in install.troubles(host.bin_dir, host.settings.cni_socket).items():
        if complaint:
            what, _, remedy = complaint.partition(": ")
            yield error(f"{host.bin_dir / name}: {what}", remedy or "`ovsnet cni install`")
    if complaint := install.interpreter_trouble():
        yield error(f"the plugins' interpreter does not work: {complaint}", "install python3")


def cni_config(host: Host) -> Iterator[Trouble]:
    """Whether a runtime that takes the first configuration gets ours."""
    first = conflist.first(host.conf_dir) if _has_cni(host) else None
    if first is None:
        return
    for complaint in conflist.troubles(first, host.bin_dir):
        yield warning(
            complaint,
            "`ovsnet cni conf NAME --write FILE`, with a name that comes first; or leave it, if runtimes name their network",
        )


def _has_cni(host: Host) -> bool:
    """Whether a plugin of ours is installed; others' are not our business."""
    return any(host.file(host.bin_dir / name) for name in install.PROGRAMS)


def _several(value: object) -> list[str]:
    """The elements of a column that is a set: one alone stands for itself."""
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]

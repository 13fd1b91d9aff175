"""A host of its own on which ovsnetd dies on order, has a small disk for its state, and a wall clock that can be set."""

from __future__ import annotations

import grp
import itertools
import json
import secrets
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from ovsnet.client import Client
from ovsnet.crashpoints import SWITCH, Point
from ovsnet.errors import OvsnetError
from tests.forked import ForkedStack
from tests.harness import CniResult, Netns, Ovs, run, wait_until

PORT = 18071  # of the host, for whoever publishes: it is looked for in the rules
DISK = 32 << 20  # bytes
GROUP = 1  # daemon: any that exists will do

# The wall clock of a process, by an offset in seconds that a file holds; the kernel has one for all.
_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long offset(void)
{
    char text[32] = "0";
    int file = open(getenv("FAULTY_CLOCK"), O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t got = read(file, text, sizeof text - 1);
        text[got > 0 ? got : 0] = 0;
        close(file);
    }
    return atol(text);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += offset();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec fine;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &fine))
        return -1;
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now)
{
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (now)
        *now = fine.tv_sec;
    return fine.tv_sec;
}
"""


class Faulty:
    """A host with an ovsnetd that dies on order, and a network with a container that has nothing to do with it."""

    def __init__(self, token: str, directory: Path, undo: ExitStack) -> None:
        self._undo = undo
        self._numbers = itertools.count()
        self.token = f"{token[0]}{secrets.token_hex(2)[:3]}"
        self.host = Netns(f"{self.token}-host")
        undo.callback(self.host.delete)
        place = directory / f"faulty-{self.token}"
        place.mkdir()
        ovs = Ovs(self.host, place / "ovs")
        undo.callback(ovs.close)
        ovs.ensure()
        self.order = place / "order"
        self.clock = place / "clock"
        self.boot = place / "boot"
        self.boot.write_text(f"{uuid.uuid4()}\n")
        self.disk = place / "state"
        self.disk.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=750", "faulty", self.disk)
        undo.callback(run, "umount", "--lazy", self.disk)
        shim = place / "clock.so"
        run("cc", "-shared", "-fPIC", "-O1", "-x", "c", "-o", shim, "-", stdin=_CLOCK)
        self.stack = ForkedStack(
            self.host,
            ovs,
            self.token,
            place / "ovsnetd",
            crash_at=str(self.order),
            boot_id_file=str(self.boot),
            state_dir=str(self.disk),
            socket_group=grp.getgrgid(GROUP).gr_name,
        )
        self.stack.env |= {SWITCH: "1", "LD_PRELOAD": str(shim), "FAULTY_CLOCK": str(self.clock)}
        self.api = Client(str(self.stack.socket))
        self.slowest = 0.0  # seconds from a start until all agreed
        self.begun = 0.0  # when ovsnetd was started last, monotonic seconds
        undo.callback(self.stack.close)
        self.stack.start()

    def ensure(self) -> None:
        """Brings it back to life."""
        self.stack.ovs.ensure()
        if not self.stack.alive:
            self.start()

    def netns(self) -> Netns:
        """A new namespace for a container; it is deleted with the host."""
        namespace = Netns(f"{self.token}-{next(self._numbers)}")
        self._undo.callback(namespace.delete)
        return namespace

    def set_clock(self, seconds: int) -> None:
        """Sets the wall clock of ovsnetd and its database by so much beside the host's."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self.clock)

    def kill(self) -> None:
        """kill -9 of ovsnetd, and starts it again."""
        self.stack.kill9()
        self.start()

    def start(self) -> None:
        """Starts ovsnetd; returns when the last of its sockets answers."""
        self.begun = time.monotonic()
        self.stack.launch()

        def serves() -> bool:
            assert self.stack.alive, self.stack.log_tail()
            try:
                return "Implements" in self.stack.docker_call("Plugin.Activate")
            except (FileNotFoundError, ConnectionRefusedError):
                return False

        wait_until(serves, "ovsnetd serves", 30)

    def die(self, point: Point, act: Callable[[], object]) -> None:
        """Has ovsnetd die at `point`, which `act` or what follows its answer reaches, and starts it again."""
        self.order.write_text(point)
        with suppress(OvsnetError, OSError, ValueError):  # whoever asked is told that it broke off
            act()
        wait_until(lambda: not self.stack.alive, f"ovsnetd dies at {point}", 30)
        assert not self.order.exists()
        self.start()

    def converged(self) -> None:
        """Leases, endpoints, ports and links agree, and soon enough after the start."""
        wait_until(lambda: self.api.check()["ok"], "all agrees", 10)
        self.slowest = max(self.slowest, time.monotonic() - self.begun)

    def cni(self, command: str, space: Netns, conf: dict[str, Any], container: str = "", **how: Any) -> CniResult:
        """As a runtime does; the container has the namespace's name unless told otherwise."""
        return self.stack.cni(command, container or space.name, space, conf, **how)

    def addresses(self, container: str) -> list[str]:
        """What the database says that a container has, without prefix lengths."""
        rows = [row for row in self.endpoints() if row["container"] == container]
        return [one.partition("/")[0] for row in rows for one in row["addresses"]]

    def endpoints(self) -> list[dict[str, Any]]:
        """All endpoints."""
        return [dict(row) for row in self.api.endpoints()]

    def call(self, method: str, **body: Any) -> dict[str, Any]:
        """A call of Docker that must succeed."""
        answer = self.stack.docker_call(method, **body)
        assert {answer.get("Err", ""), answer.get("Error", "")} == {""}, (method, body, answer)
        return answer

    def clear(self) -> None:
        """Removes all endpoints, networks and pools."""
        for row in self.api.endpoints():
            self.api.delete_endpoint(row["id"])
        for network in self.api.networks():
            self.api.delete_network(network["id"])
        for pool in self.api.pools():
            self.api.delete_pool(pool["id"], force=True)

    def traces(self) -> set[str]:
        """All that is there: rows, leases, ports and links (but for spare ports, and links on them), published ports, limits."""
        found = {f"{noun} {row['name']}" for noun in ("pool", "network") for row in getattr(self.api, f"{noun}s")()}
        found |= {f"endpoint {row['container']}" for row in self.endpoints()}
        found |= {
            f"lease {lease['address']} of {lease['owner']['kind']}"
            for pool in self.api.pools()
            for lease in self.api.leases(pool["name"])
        }
        columns = ("--columns=name,external_ids", "list", "Port")
        spare = set()
        for name, ids in json.loads(self.stack.ovs.vsctl("--format=json", *columns))["data"]:
            marks = dict(ids[1])
            if marks.get("ovsnet-role") == "spare":
                spare.add(name)
            elif "ovsnet-owner" in marks:
                found.add(f"port {name}")
        links = {link["ifname"] for link in self.stack.host.ip("link", "show") if link.get("link") not in spare}
        found |= {f"link {name}" for name in links - spare if name.startswith(self.stack.prefix)}
        rules = self.stack.host.run("nft", "list", "ruleset").stdout
        found |= {f"rule {line.strip()}" for line in rules.splitlines() if str(PORT) in line or "limit rate" in line}
        return found

    def left(self, before: set[str]) -> set[str]:
        """What is there that was not before and does not go soon, or the other way round."""
        with suppress(AssertionError):
            wait_until(lambda: self.traces() == before, "as before")
        return self.traces() ^ before

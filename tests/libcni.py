"""What libcni does with a network configuration list, for tests: the order, prevResult, runtimeConfig, the cached results.

As https://github.com/containernetworking/cni/blob/v1.2.3/libcni/api.go has it, whose names are kept. Plugins are executed on
a host of the tests (harness.Netns), never on the machine's own network.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import Netns, environment

JSON = dict[str, Any]
REFERENCE_DIR = Path("/usr/lib/cni")


class PluginFailed(AssertionError):
    """A plugin of the list ended with an error; `code` is CNI's."""

    def __init__(self, plugin: str, command: str, output: str, stderr: str) -> None:
        super().__init__(f"{plugin} {command}: {output.strip()} {stderr.strip()}")
        try:
            error = json.loads(output)
        except ValueError:
            error = {}
        self.code: int | None = error.get("code")
        self.message: str = error.get("msg", "")


@dataclass(frozen=True)
class Attachment:
    """What libcni calls RuntimeConf: a container's interface, and what its runtime offers to plugins that ask for it."""

    container: str
    netns: Netns
    ifname: str = "eth0"
    args: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict)


class Libcni:
    """Runs configuration lists on `host`; `path` is CNI_PATH, `cache` the directory of the results."""

    def __init__(self, host: Netns, path: Sequence[Path], cache: Path) -> None:
        self._host = host
        self._path = path
        self._cache = cache
        cache.mkdir(exist_ok=True)

    def add(self, conflist: JSON, attachment: Attachment) -> JSON:
        """ADD of every plugin with its predecessor's result; the last one's, which is also kept."""
        result: JSON | None = None
        for plugin in conflist["plugins"]:
            result = self._execute("ADD", conflist, plugin, attachment, result)
        assert result is not None
        self._cached(conflist, attachment).write_text(
            json.dumps({"container": attachment.container, "ifname": attachment.ifname, "result": result})
        )
        return result

    def delete(self, conflist: JSON, attachment: Attachment) -> None:
        """DEL in the opposite order with the result that ADD has left, if any; then that is forgotten."""
        previous = self.cached_result(conflist, attachment)
        for plugin in reversed(conflist["plugins"]):
            self._execute("DEL", conflist, plugin, attachment, previous)
        self._cached(conflist, attachment).unlink(missing_ok=True)

    def check(self, conflist: JSON, attachment: Attachment) -> None:
        """CHECK with the result that ADD has left, which there must be."""
        previous = self.cached_result(conflist, attachment)
        assert previous is not None, "libcni refuses CHECK without a cached result"
        if not conflist.get("disableCheck"):
            for plugin in conflist["plugins"]:
                self._execute("CHECK", conflist, plugin, attachment, previous)

    def gc(self, conflist: JSON, valid: Iterable[Attachment]) -> None:
        """GC: tells the plugins which attachments are valid."""
        ids = [{"containerID": each.container, "ifname": each.ifname} for each in valid]
        extra = {"cni.dev/valid-attachments": ids, "cni.dev/attachments": ids}
        for plugin in conflist["plugins"]:
            self._execute("GC", conflist, plugin | extra)

    def status(self, conflist: JSON) -> None:
        """STATUS of every plugin."""
        for plugin in conflist["plugins"]:
            self._execute("STATUS", conflist, plugin)

    def cached_result(self, conflist: JSON, attachment: Attachment) -> JSON | None:
        """What ADD has returned, as long as there was no DEL."""
        path = self._cached(conflist, attachment)
        if not path.exists():
            return None
        result: JSON = json.loads(path.read_text())["result"]
        return result

    def _cached(self, conflist: JSON, attachment: Attachment) -> Path:
        return self._cache / f"{conflist['name']}-{attachment.container}-{attachment.ifname}"

    def _execute(
        self,
        command: str,
        conflist: JSON,
        plugin: JSON,
        attachment: Attachment | None = None,
        previous: JSON | None = None,
    ) -> JSON | None:
        """One plugin; its result, None for a command that has none. PluginFailed if it fails."""
        config = plugin | {"name": conflist["name"], "cniVersion": conflist["cniVersion"]}
        variables = {"CNI_COMMAND": command, "CNI_PATH": ":".join(map(str, self._path))}
        if attachment is not None:
            wanted = {name for name, on in plugin.get("capabilities", {}).items() if on}
            if runtime := {name: value for name, value in attachment.capabilities.items() if name in wanted}:
                config["runtimeConfig"] = runtime
            variables |= {
                "CNI_CONTAINERID": attachment.container,
                "CNI_NETNS": str(attachment.netns.path),
                "CNI_IFNAME": attachment.ifname,
                "CNI_ARGS": attachment.args,
            }
        if previous is not None:
            config["prevResult"] = previous
        executable = next(path for path in (each / plugin["type"] for each in self._path) if path.exists())
        done = self._host.run(executable, check=False, stdin=json.dumps(config), env=environment(**variables))
        if done.returncode:
            raise PluginFailed(plugin["type"], command, done.stdout, done.stderr)
        result: JSON | None = json.loads(done.stdout) if done.stdout.strip() else None
        return result

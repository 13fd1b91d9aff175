"""Network configuration lists on disk: which one a runtime takes, whether it can work, and one of our own.

Owns what libcni does to find configurations (libcni/conf.go: files of three extensions, by name). Called by `ovsnet cni`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ovsnet.errors import AlreadyExists, Forbidden, InvalidRequest, Unavailable

from . import ovsnet_docker
from .errors import CniError
from .netconf import IPAM_TYPE
from .protocol import CAPABILITIES, VERSIONS, Call, parse_add

EXTENSIONS: Final = (".conf", ".conflist", ".json")
_PROBE: Final = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "probe",
    "CNI_IFNAME": "eth0",
    "CNI_NETNS": "/run/netns/probe",
}


def first(conf_dir: Path) -> Path | None:
    """The file that a runtime takes which takes one (Kubernetes' do), or None. Unavailable if the directory cannot be read."""
    try:
        found = sorted(path for path in conf_dir.iterdir() if path.suffix in EXTENSIONS)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise Unavailable(f"{conf_dir} cannot be read: {exc.strerror}", hint="check its permissions") from None
    return next(iter(found), None)


def troubles(path: Path, bin_dir: Path) -> list[str]:
    """Why a runtime that takes this file would not have our networks; none is good."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        return [f"{path} cannot be read: {exc}"]
    plugins = document.get("plugins", [document]) if isinstance(document, dict) else []
    types = [str(one.get("type", "")) if isinstance(one, dict) else "" for one in plugins]
    if not types or types[0] not in ("ovsnet", "ovsnet-docker"):
        return [f"{path} comes first and is not ovsnet's: its plugin is {types[0] if types else 'none'!r}"]
    missing = [name for name in types if not os.access(bin_dir / name, os.X_OK)]
    found = [f"plugin {name!r} of {path} is not in {bin_dir}" for name in missing]
    try:
        _check(plugins[0] | {"name": document.get("name"), "cniVersion": document.get("cniVersion", "")})
    except InvalidRequest as exc:
        found.append(f"{path}: {exc}")
    return found


def make(
    name: str,
    *,
    network: str = "",
    subnets: Sequence[str] = (),
    vlan: int | None = None,
    masquerade: bool = False,
    version: str = "1.0.0",
) -> dict[str, Any]:
    """A configuration list, checked as ADD would check it. InvalidRequest."""
    ours: dict[str, Any] = {"type": "ovsnet", "capabilities": dict.fromkeys(CAPABILITIES, True)}
    if network:
        ours["network"] = network
    if vlan is not None:
        ours["vlan"] = vlan
    if masquerade:
        ours["ipMasq"] = True
    if subnets:
        ours["ipam"] = {"type": IPAM_TYPE, "ranges": [[{"subnet": _subnet(one)}] for one in subnets]}
    if version not in VERSIONS:
        raise InvalidRequest(f"CNI has no version {version!r}", hint=f"use one of {', '.join(VERSIONS)}")
    _check(ours | {"name": name, "cniVersion": version})
    return {"cniVersion": version, "name": name, "plugins": [ours]}


def write(path: Path, document: dict[str, Any], *, force: bool = False) -> None:
    """Put a list in place in one step. The same one again is success; AlreadyExists for another one, unless `force`."""
    content = (json.dumps(document, indent=2) + "\n").encode()
    if path.suffix not in EXTENSIONS:
        raise InvalidRequest(f"runtimes do not look at {path.name}", hint="name it NN-something.conflist")
    try:
        if path.exists() and not force:
            if path.read_bytes() == content:
                return
            raise AlreadyExists(f"{path} has another content", hint="see what it is, then use --force")
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # no runtime reads half a file
        with contextlib.ExitStack() as undo:
            undo.callback(temporary.unlink, missing_ok=True)
            temporary.write_bytes(content)
            temporary.chmod(0o644)
            temporary.replace(path)
    except PermissionError as exc:
        raise Forbidden(f"cannot write {path}: {exc.strerror}", hint="run as root") from None
    except OSError as exc:
        raise Unavailable(f"cannot write {path}: {exc.strerror}", hint="check the path and the file system") from None


def _subnet(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as exc:
        raise InvalidRequest(f"subnet {text[:60]!r}: {exc}", hint="write it as 10.20.0.0/16") from None


def _check(config: dict[str, Any]) -> None:
    if config.get("type") == "ovsnet-docker":
        try:
            ovsnet_docker.settings(_PROBE, config)
        except ovsnet_docker.Failure as exc:
            raise InvalidRequest(exc.message, hint=exc.hint) from None
        return
    try:
        parse_add(Call(_PROBE, config, str(config["cniVersion"])))
    except CniError as exc:
        raise InvalidRequest(exc.message, hint=exc.hint) from None

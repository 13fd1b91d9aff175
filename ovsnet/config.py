"""Settings of ovsnetd: read from a TOML file, overridden by the environment, checked to the last key.

Owns the `Settings` model and the only code that reads the settings file. The composition root and the CLI call it. Every key's
description is its documentation: `docs/settings.md` is tied to them by a test.
"""

from __future__ import annotations

import ipaddress
import os
import platform
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from .access.roles import Role
from .errors import ConfigError, InvalidRequest
from .ipam import Supernet
from .model import TlsFiles
from .names import DeviceNames, check_ifname

DEFAULT_PATH = Path("/etc/ovsnet/ovsnet.toml")
ENV_PREFIX = "OVSNET_"

Seconds = Annotated[float, Field(gt=0, le=3600)]


class DefaultPool(BaseModel):
    """An element of `default_pools`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    size: int

    @property
    def supernet(self) -> Supernet:
        """What is carved from."""
        return Supernet(ipaddress.ip_network(self.base), self.size)

    @model_validator(mode="after")
    def _carvable(self) -> Self:
        try:
            _ = self.supernet
        except InvalidRequest as exc:
            raise ValueError(str(exc)) from None
        return self


class Settings(BaseSettings):
    """All settings of ovsnetd. Environment variables `OVSNET_<KEY>` override the file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=True)

    node: str = Field(
        default_factory=platform.node,
        min_length=1,
        max_length=128,
        description="Name of this host in the cluster. Default: the host name. Never change it while leases stand.",
    )
    run_dir: Path = Field(Path("/run/ovsnet"), description="Directory for sockets, pid files and control sockets.")
    state_dir: Path = Field(
        Path("/var/lib/ovsnet"), description="Directory of the state database and the event journal."
    )
    socket: Path | None = Field(
        None,
        description="Unix socket for REST and CNI. Default: ovsnet.sock in run_dir. Mode 0660, group socket_group.",
    )
    socket_group: str = Field("ovsnet", description="Group that may use the socket beside root, if it exists.")
    group_roles: tuple[str, ...] = Field(
        (),
        description="Roles of groups on the socket, such as monitoring=viewer: viewer, node, operator or admin. Root is an "
        "admin, socket_group is operators unless it is named here. With other groups than that the socket has mode 0666.",
    )
    listen: tuple[str, ...] = Field(
        (),
        description="Addresses and ports on which REST is served by TLS, such as 0.0.0.0:7643 or [::]:7643. Empty: on none.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate for listen. A file that is replaced is read again."
    )
    tls_private_key: Path | None = Field(None, description="PEM file with the private key of tls_certificate.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file with the authorities whose certificates clients may show. Without it clients send tokens.",
    )
    certificate_roles: tuple[str, ...] = Field(
        (),
        description="Roles of client certificates, by common name or alternative name, such as CN=ci=operator or "
        "DNS:grafana.example=viewer.",
    )
    rate_limit: float = Field(
        100.0,
        ge=0,
        le=1_000_000,
        description="Requests a second that a caller of REST may make in the long run, and twice as many at once; root on the "
        "socket is not limited. 0: nobody is.",
    )
    docker_socket: Path = Field(
        Path("/run/docker/plugins/ovsnet.sock"),
        description="Unix socket for Docker's remote driver protocol (mode 0600). Its file name is the driver's name.",
    )
    docker_scope: Literal["local", "global"] = Field(
        "local", description='Scope that Docker is told: "local" for single hosts, "global" for swarm.'
    )
    state_remotes: tuple[str, ...] = Field(
        (),
        description=(
            "Remotes of an existing OVSNet database, such as ssl:10.0.0.1:6645. "
            "Empty: ovsnetd starts and watches an ovsdb-server of its own on state_dir/ovsnet.db."
        ),
    )
    state_listen: tuple[str, ...] = Field(
        (),
        description=(
            "Remotes on which ovsnetd's own ovsdb-server listens for other hosts, such as pssl:6645. "
            "With them it runs that server even if state_remotes names others to fall back on."
        ),
    )
    state_private_key: Path | None = Field(
        None, description="PEM file with the private key for ssl: and pssl: remotes and for an ssl: cluster."
    )
    state_certificate: Path | None = Field(None, description="PEM file with the certificate of state_private_key.")
    state_ca: Path | None = Field(
        None,
        description="PEM file with the certificates of the authorities that the other hosts' certificates are from.",
    )
    switch_remote: str = Field(
        "unix:/var/run/openvswitch/db.sock", description="Remote of the Open_vSwitch database of this host."
    )
    switch_run_dir: Path = Field(
        Path("/var/run/openvswitch"),
        description="Directory in which ovs-vswitchd has its bridges' management sockets (its OVS_RUNDIR).",
    )
    anti_spoofing: bool = Field(
        True,
        description="Containers send only from their own MAC and addresses, and are neither router nor DHCP server. A network "
        "can be an exception, see docs/anti-spoofing.md.",
    )
    bridge: str = Field("ovsbr0", description="Bridge for networks that name none; made when first needed.")
    datapath: Literal["auto", "system", "netdev"] = Field(
        "auto",
        description='Datapath of bridges that ovsnet makes: "system" (kernel), "netdev" (userspace), "auto" chooses.',
    )
    device_prefix: str = Field("on", description="One to four letters or digits that begin our device names.")
    mtu: int | None = Field(
        None,
        ge=68,
        le=65535,
        description="MTU of networks that name none, in bytes. Default: what their bridge's uplinks, or else the device of the "
        "host's default route, can carry.",
    )
    vlan_first: int = Field(1, ge=1, le=4094, description="First VLAN tag that may be chosen by ovsnet itself.")
    vlan_last: int = Field(4094, ge=1, le=4094, description="Last VLAN tag that may be chosen by ovsnet itself.")
    spare_ports: int = Field(
        4,
        ge=0,
        le=256,
        description="Switch ports made ahead, tagged and configured, per active network; of those that come back four times as"
        " many are kept. 0 switches it off.",
    )
    spare_idle: Seconds = Field(
        600.0, description="Seconds without an attach after which a network's spare ports are removed."
    )
    default_pools: tuple[DefaultPool, ...] = Field(
        (DefaultPool(base="10.192.0.0/10", size=24), DefaultPool(base="fd6f:7673::/32", size=64)),
        description=(
            "Supernets from which pools are carved for who names no subnet, each with base (a prefix) and size (the prefix "
            "length of a pool). Nothing is carved that overlaps a pool, a route or an address of the host."
        ),
    )
    address_cooldown: float = Field(
        60.0,
        ge=0,
        le=86400,
        description="Seconds for which a released address is given to nobody else while another one is free.",
    )
    journal_days: float = Field(
        30.0,
        ge=0,
        le=36500,
        description="Days for which the event journal remembers who had an address. 0: no journal is kept.",
    )
    docker_api: Path | None = Field(
        None,
        description=(
            "Unix socket of the dockerd that uses this driver, such as /var/run/docker.sock, to ask what it still knows before "
            "anything of it is removed as abandoned. Default: it is not asked, and its networks and pools always stay."
        ),
    )
    reap_after: float = Field(
        60.0,
        ge=0,
        le=86400,
        description=(
            "Seconds for which an endpoint or lease has to look abandoned before it is removed: its namespace gone without a "
            "DEL, or forgotten by Docker. 0: nothing ever is."
        ),
    )
    conflict_probe: float = Field(
        0.0,
        ge=0,
        le=5,
        description=(
            "Seconds to listen for somebody who answers by ARP or ND for an address before it is handed out; such an address "
            "is passed over. 0 switches the probe off. It needs the network's gateway on this host."
        ),
    )
    crash_at: Path | None = Field(
        None,
        description="For tests only, and refused without OVSNETD_CRASH_TEST=1 in the environment: file that names the crash "
        "point at which ovsnetd kills itself.",
    )
    metrics_endpoints: int = Field(
        250,
        ge=0,
        le=10000,
        description="Most endpoints of this host whose traffic /metrics tells one by one, six series each. 0 leaves traffic out.",
    )
    reconcile_interval: Seconds = Field(
        60.0,
        description="Seconds between two comparisons of all that this host has with what it should have. Most changes are "
        "noticed, and mended, at once.",
    )
    boot_id_file: Path = Field(
        Path("/proc/sys/kernel/random/boot_id"),
        description="File whose content tells one boot of the host from the next, after which no attachment lives.",
    )
    workers: int = Field(32, ge=2, le=512, description="Threads that serve requests on each socket.")
    deadline: Seconds = Field(20.0, description="Seconds after which a request fails with deadline-exceeded.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description='Log lines: "console" for people, "json" for machines, "auto": console on a terminal.'
    )

    @field_validator("device_prefix")
    @classmethod
    def _prefix(cls, value: str) -> str:
        return _plain(lambda: DeviceNames(value).prefix)

    @field_validator("bridge")
    @classmethod
    def _bridge(cls, value: str) -> str:
        return _plain(lambda: check_ifname(value))

    @field_validator("vlan_last")
    @classmethod
    def _vlans(cls, value: int, info: Any) -> int:
        first = info.data.get("vlan_first")
        if first is not None and value < first:
            raise ValueError(f"vlan_last {value} lies below vlan_first {first}")
        return value

    @field_validator("group_roles", "certificate_roles")
    @classmethod
    def _roles(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            name, _, role = one.rpartition("=")
            if not name:
                raise ValueError(f"{one!r} is not written as NAME=ROLE")
            _plain(lambda role=role: Role.parse(role))
        return value

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            _plain(lambda one=one: split_address(one))
        return value

    @model_validator(mode="after")
    def _served_by_tls(self) -> Self:
        if self.listen and (self.tls_certificate is None or self.tls_private_key is None):
            raise ValueError("listen needs tls_certificate and tls_private_key: REST leaves the host by TLS only")
        if self.certificate_roles and self.tls_client_ca is None:
            raise ValueError("certificate_roles needs tls_client_ca, which vouches for the certificates")
        return self

    @field_validator("state_ca")
    @classmethod
    def _tls(cls, value: Path | None, info: Any) -> Path | None:
        given = [value, *(info.data.get(key) for key in ("state_private_key", "state_certificate"))]
        if None in given and any(given):
            raise ValueError("state_private_key, state_certificate and state_ca are given together or not at all")
        return value

    @property
    def state_tls(self) -> TlsFiles | None:
        """The files for TLS with the state database, if it is spoken."""
        if self.state_private_key is None or self.state_certificate is None or self.state_ca is None:
            return None
        return TlsFiles(self.state_private_key, self.state_certificate, self.state_ca)

    @property
    def state_database(self) -> Path | None:
        """The file of ovsnetd's own state server; None if other hosts have the database."""
        return None if self.state_remotes and not self.state_listen else self.state_dir / "ovsnet.db"

    @property
    def cni_socket(self) -> Path:
        """The unix socket for the CNI executables, beside the one for REST."""
        return self.api_socket.with_name("cni.sock")

    @property
    def api_socket(self) -> Path:
        """The unix socket for REST and CNI."""
        return self.socket or self.run_dir / "ovsnet.sock"

    @property
    def api_socket_mode(self) -> int:
        """Mode of that socket: open to all where groups have roles to which it cannot belong as well."""
        return 0o660 if self.roles_of_groups.keys() <= {self.socket_group} else 0o666

    @property
    def roles_of_groups(self) -> dict[str, Role]:
        """The role of each group on the REST socket."""
        return {self.socket_group: Role.OPERATOR} | _roles(self.group_roles)

    @property
    def roles_of_certificates(self) -> dict[str, Role]:
        """The role of each subject of a client's certificate."""
        return _roles(self.certificate_roles)

    @property
    def names(self) -> DeviceNames:
        """Device names of this controller."""
        return DeviceNames(self.device_prefix)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what the file says; nothing else is read."""
        del settings_cls, dotenv_settings, file_secret_settings
        return env_settings, init_settings


def split_address(text: str) -> tuple[str, int]:
    """An IP address and a port from `10.0.0.1:7643` or `[::1]:7643`; InvalidRequest."""
    host, _, port = text.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        bracketed = ipaddress.ip_address(plain).version == 6
        number = int(port) if port.isascii() and port.isdecimal() else 0
    except ValueError:
        number = 0
    if not 0 < number < 1 << 16 or bracketed != (plain != host):
        raise InvalidRequest(f"{text[:80]!r} is no address with a port", hint="write 10.0.0.1:7643 or [::1]:7643")
    return plain, number


def _roles(pairs: tuple[str, ...]) -> dict[str, Role]:
    return {name: Role(role) for name, _, role in (one.rpartition("=") for one in pairs)}


def _plain(check: Any) -> str:
    try:
        return str(check())
    except InvalidRequest as exc:
        raise ValueError(str(exc)) from None


def load(path: Path | None = None) -> Settings:
    """Settings from `path` (default `/etc/ovsnet/ovsnet.toml`, which may be missing) and the environment.

    Raises ConfigError that names the file, the line and the key, and for an unknown key the nearest known one.
    """
    file = path or DEFAULT_PATH
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path is not None:
            raise ConfigError(f"{file}: no such file", hint="create it, or leave out --config") from None
        text = ""
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: cannot be read: {exc}") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file}: not valid TOML: {exc}") from None
    known = set(Settings.model_fields)
    for key in values:
        if key not in known:
            raise ConfigError(f"{_at(file, text, key)}: unknown key {key!r}", hint=_nearest(key, known))
    for variable in os.environ:
        key = variable.removeprefix(ENV_PREFIX).lower()
        if variable.startswith(ENV_PREFIX) and key not in known:
            raise ConfigError(f"environment: unknown setting {variable!r}", hint=_nearest(key, known))
    try:
        return Settings(**values)
    except SettingsError as exc:  # the environment's text for a list is no JSON
        raise ConfigError(f"environment: {exc}", hint=f'write a list as {ENV_PREFIX}KEY=["one", "two"]') from None
    except ValidationError as exc:
        first = exc.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "?"
        where = (
            f"environment: {ENV_PREFIX}{key.upper()}"
            if ENV_PREFIX + key.upper() in os.environ
            else _at(file, text, key)
        )
        raise ConfigError(f"{where}: {key}: {first['msg']}") from None


def _at(file: Path, text: str, key: str) -> str:
    pattern = re.compile(rf"\s*(\[+\s*)?[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return f"{file}:{number}"
    return str(file)


def _nearest(key: str, known: set[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "see docs/settings.md for the keys"

"""ovsnetd: the composition root. Reads the settings, builds the parts, serves the sockets, and stops in order.

Nothing else in ovsnet knows how the parts fit together. Traffic never depends on this process: ports, links and the state
server stay as they are when it ends.
"""

from __future__ import annotations

import fcntl
import grp
import logging
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import click
import structlog
from flask import Flask

import cnm
from cni import listener
from cni.blueprint import create_blueprint, serve
from cnm.listener import Listener as DockerListener
from cnm.peer import requester

from . import __version__, access, api, config, crashpoints
from .access.listener import Tls, new_server
from .audit import Audit
from .check import Checker
from .controller import Controller
from .docker import DockerDriver
from .errors import ConfigError, OvsnetError
from .jobs import Jobs
from .journal import Journal
from .link import Links
from .metrics import Metrics
from .nat import DockerUser, Limits, Rules
from .operations import add_request_id
from .ports import Ports
from .precedence import Precedence
from .reaper import Reaper
from .reconcile import Reconciler
from .spoofing import SpoofGuard
from .store import StateServer, Store
from .switch import Flows, Switch

LOG = logging.getLogger("ovsnet")

_LOOK_SECONDS = 5.0
_BACKLOG = 1024  # a thousand CNI executables may start at once
_IDLE_CONNECTION = 30  # seconds after which a silent client's connection is closed


class Daemon:
    """All parts of one ovsnetd, started and stopped in order."""

    def __init__(self, settings: config.Settings) -> None:
        self.settings = settings
        self._undo = ExitStack()
        self._listeners: list[Server | listener.Listener | DockerListener] = []

    def start(self) -> None:
        """Bring everything up; what has come up is taken down again when a later part fails."""
        settings = self.settings
        if settings.crash_at is not None:
            crashpoints.arm(settings.crash_at)
        with ExitStack() as undo:
            settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
            # First of all: what comes after would adopt another ovsnetd's state server and take its spare ports for stale.
            undo.enter_context(_only_one(settings.run_dir / "ovsnetd.lock"))
            for path in (settings.api_socket, settings.cni_socket, settings.docker_socket):
                _remove_stale(path)
            remotes, room = settings.state_remotes, None
            if settings.state_database is not None:
                state = StateServer(
                    settings.state_database, settings.run_dir, listen=settings.state_listen, tls=settings.state_tls
                )
                state.start()
                undo.callback(state.stop)
                remotes, room = (state.remote, *remotes), state.reserve.check
            store = Store(
                remotes,
                node=settings.node,
                timeout=settings.deadline,
                cooldown=settings.address_cooldown,
                tls=settings.state_tls,
                room=room,
            )
            store.start()
            undo.callback(store.stop)
            switch = Switch(
                settings.switch_remote, node=settings.node, datapath=settings.datapath, timeout=settings.deadline
            )
            switch.start()
            undo.callback(switch.stop)
            links = undo.enter_context(Links(settings.names))
            flows = Flows(settings.switch_run_dir, node=settings.node, timeout=settings.deadline)
            flows.start()
            undo.callback(flows.stop)
            spoofing = SpoofGuard(settings, flows)
            ports = Ports(
                switch,
                links,
                spoofing,
                settings.names,
                expects=store,
                spares=settings.spare_ports,
                idle=settings.spare_idle,
                timeout=settings.deadline,
            )
            journal = None
            if settings.journal_days:
                journal = Journal(settings.state_dir / "journal.db", settings.journal_days)
            controller = Controller(
                settings,
                store=store,
                switch=switch,
                links=links,
                ports=ports,
                spoofing=spoofing,
                rules=Rules(settings.names),
                limits=Limits(settings.names),
                journal=journal,
            )
            store.wait_ready(settings.deadline)
            if journal is not None:
                journal.start(store.watch)
                undo.callback(journal.stop)
            metrics = Metrics(version=__version__, endpoints=settings.metrics_endpoints)
            metrics.watch(controller)
            driver = DockerDriver(controller)
            undo.callback(driver.stop)
            reaper = Reaper(controller, driver)
            reconciler = Reconciler(controller, metrics.drift, [reaper.watched])
            reconciler.start_up()
            ports.start()
            undo.callback(ports.stop)
            reconciler.start()
            undo.callback(reconciler.stop)
            guard = Guard(controller.keep_rules)
            guard.start()
            undo.callback(guard.stop)
            reaper.start()
            undo.callback(reaper.stop)
            work = Jobs()
            undo.callback(work.stop)
            app = api.create_app(
                controller,
                Checker(controller, metrics.drift),
                reconciler,
                version=__version__,
                guard=access.Guard(
                    access.Tokens(settings.state_dir / "tokens.json"),
                    group_roles=settings.roles_of_groups,
                    certificate_roles=settings.roles_of_certificates,
                ),
                rates=access.Rates(settings.rate_limit),
                observe=metrics.observe,
                metrics=metrics.render,
                audit=Audit(journal),
                work=work,
            )
            app.register_blueprint(create_blueprint(controller, metrics.observe))
            precedence = Precedence()
            plugins = listener.Listener(
                _listen(settings.cni_socket, 0o660, settings.socket_group),
                partial(serve, controller, metrics.observe),
                threads=settings.workers,
                serving=precedence.runtime,
            )
            plugins.start()
            undo.callback(settings.cni_socket.unlink, missing_ok=True)
            undo.callback(plugins.stop)
            self._listeners.append(plugins)
            for server in (
                Listener(settings.api_socket, app, settings, precedence),
                *(TlsListener(one, app, settings, precedence) for one in settings.listen),
            ):
                server.start()
                undo.callback(server.stop)
                self._listeners.append(server)
            docker = DockerListener(
                _listen(settings.docker_socket, 0o600, ""),
                cnm.create_plugin(
                    driver,
                    scope=settings.docker_scope,
                    requester=requester,
                    observe=metrics.observe,
                ),
                threads=settings.workers,
                serving=precedence.runtime,
            )
            docker.start()
            undo.callback(settings.docker_socket.unlink, missing_ok=True)
            undo.callback(docker.stop)
            self._listeners.append(docker)
            undo.callback(controller.captures.stop)
            undo.callback(controller.events.close)  # before the listeners, which wait for who follows
            self._undo = undo.pop_all()

    def stop(self) -> None:
        """Take everything down in reverse order; spare ports go, endpoints stay."""
        self._undo.close()

    @property
    def failed(self) -> bool:
        """Whether a listener has died."""
        return any(not listener.alive for listener in self._listeners)


class Guard:
    """Calls `look` every few seconds, whatever comes of it."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        """Start."""
        self._thread.start()

    def stop(self) -> None:
        """Let the last look end."""
        self._stopping.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while True:
            try:
                self._look()
            except OvsnetError as exc:
                LOG.warning("the packet filter could not be looked after: %s", exc)
            except Exception:
                LOG.exception("looking after the packet filter failed by a defect")
            if self._stopping.wait(_LOOK_SECONDS):
                return


class Server:
    """A WSGI application on an address, served by cheroot in threads of its own."""

    def __init__(self, address: str | tuple[str, int], app: Flask, threads: int, precedence: Precedence) -> None:
        self._server = new_server(
            address, app, threads=threads, backlog=_BACKLOG, idle=_IDLE_CONNECTION, precedence=precedence
        )
        self._name = address if isinstance(address, str) else f"{address[0]} port {address[1]}"
        self._thread = threading.Thread(target=self._serve, name=f"listener-{Path(self._name).name}", daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Finish running requests."""
        self._server.stop()
        self._thread.join(timeout=10.0)

    @property
    def alive(self) -> bool:
        """Whether the thread that accepts connections runs."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        try:
            self._server.serve()
        except Exception:
            LOG.exception("the listener on %s failed", self._name)


class Listener(Server):
    """A WSGI application on a unix socket."""

    def __init__(self, path: Path, app: Flask, settings: config.Settings, precedence: Precedence) -> None:
        super().__init__(str(path), app, settings.workers, precedence)
        self._path = path
        self._mode = settings.api_socket_mode
        self._group = settings.socket_group

    def start(self) -> None:
        """Bind the socket, with its mode and group from the first moment, and serve."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        with _private():
            self._server.prepare()
        _open_to(self._path, self._mode, self._group)
        super().start()

    def stop(self) -> None:
        """Finish running requests and remove the socket."""
        super().stop()
        self._path.unlink(missing_ok=True)


class TlsListener(Server):
    """A WSGI application on a TCP port, by TLS."""

    def __init__(self, address: str, app: Flask, settings: config.Settings, precedence: Precedence) -> None:
        super().__init__(config.split_address(address), app, settings.workers, precedence)
        if settings.tls_certificate is None or settings.tls_private_key is None:
            raise ConfigError(
                "listen needs tls_certificate and tls_private_key", hint="REST leaves the host by TLS only"
            )
        self._server.ssl_adapter = Tls(settings.tls_certificate, settings.tls_private_key, settings.tls_client_ca)
        self._address = address

    def start(self) -> None:
        """Bind the port and serve. ConfigError if it cannot be had."""
        try:
            self._server.prepare()
        except OSError as exc:
            raise ConfigError(f"{self._address} cannot be listened on: {exc}", hint="correct listen") from None
        super().start()


@contextmanager
def _private() -> Iterator[None]:
    """What is made here is nobody else's until it is opened: nobody may connect between bind and chmod."""
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


def _open_to(path: Path, mode: int, group: str) -> None:
    """Give a socket its group and mode."""
    if group:
        try:
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
        except KeyError:
            LOG.info("there is no group %s: only root may use %s", group, path)
    path.chmod(mode)


def _listen(path: Path, mode: int, group: str) -> socket.socket:
    """A listening socket, with its mode and group from the first moment."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    sock = socket.socket(socket.AF_UNIX)
    with _private():
        sock.bind(str(path))
    _open_to(path, mode, group)
    sock.listen(_BACKLOG)
    return sock


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Holds the lock of this directory; the kernel releases it whatever becomes of the process. ConfigError if it is held."""
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another ovsnetd runs in {path.parent}", hint="stop it, or configure another run_dir"
            ) from None
        yield


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody serves. ConfigError if somebody does, or if it is none."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"{path} exists and is not a socket", hint="remove it, or configure another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2.0)
        with suppress(OSError):  # so many wait for whoever serves it, or it is of another kind
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise ConfigError(f"{path} is served already", hint="is another ovsnetd running?")


def notify(message: str) -> None:
    """Tell systemd (sd_notify(3)) if it asked for it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(2.0)
        sock.sendto(message.encode(), address)


def configure_logging(level: str, form: str) -> None:
    """One stream of structured lines on stderr, for structlog's loggers and the standard library's."""
    as_json = form == "json" or (form == "auto" and not sys.stderr.isatty())
    shared: list[Callable[..., Any]] = [
        structlog.stdlib.add_log_level,
        add_request_id,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if as_json else []),
                renderer,
            ],
            foreign_pre_chain=shared,
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in ("ovsdbapp", "pyroute2"):  # a line per transaction, ten per netlink message
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


@click.command(help="The ovsnet controller: serves Docker, CNI and the REST API on this host.")
@click.option(
    "--config", "path", type=click.Path(path_type=Path), help=f"Settings file. Default: {config.DEFAULT_PATH}."
)
@click.option("--remove-rules", is_flag=True, help="Take our rules out of this host's packet filter, and end.")
@click.version_option(__version__)
def main(path: Path | None, *, remove_rules: bool) -> None:
    """Run until SIGTERM or SIGINT. Exit status 0 after a clean stop, 1 if it cannot start or a part dies, 2 for bad settings."""
    try:
        settings = config.load(path)
    except ConfigError as exc:
        click.echo(f"ovsnetd: {exc}", err=True)
        sys.exit(2)
    configure_logging(settings.log_level, settings.log_format)
    if remove_rules:
        _remove_rules(settings)
        return
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    daemon = Daemon(settings)
    try:
        daemon.start()
    except OvsnetError as exc:
        LOG.error("cannot start: %s", exc)
        sys.exit(2 if isinstance(exc, ConfigError) else 1)
    notify("READY=1")
    LOG.info("ready on %s and %s", settings.api_socket, settings.docker_socket)
    failed = False
    while not asked.wait(1.0) and not failed:
        failed = daemon.failed
    notify("STOPPING=1")
    daemon.stop()
    LOG.info("stopped")
    sys.exit(1 if failed else 0)


def _remove_rules(settings: config.Settings) -> None:
    """For who gives ovsnet up: everything of ours goes from the packet filter. Exit status 1 if ovsnetd runs, or it fails."""
    try:
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        with _only_one(settings.run_dir / "ovsnetd.lock"):
            Rules(settings.names).unload()
            Limits(settings.names).unload()
            DockerUser(settings.names).remove()
    except OvsnetError as exc:
        LOG.error("the rules stay: %s", exc)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""What our ports may send, kept in force on every bridge, whatever happens to vswitchd.

One thread keeps a connection to the management socket of each bridge on which ports are guarded (every bridge has one,
ovs-vswitchd(8)). Whoever wants a port guarded only adds to what is wanted and sends it; when a bridge comes back, all that is
wanted is compared with what is there, and the differences are written. A connection costs 0.2 ms a change, `ovs-ofctl` 5 ms.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from pathlib import Path

from ..errors import SwitchUnavailable
from ..model import Sender
from . import openflow as of
from .openflow import Flow
from .sources import NODE_MASK, OURS, OURS_MASK, common, guard, node_cookie

LOG = logging.getLogger(__name__)

_RETRY = 0.01  # seconds between attempts to connect: as long is a port open after vswitchd is there again
_RARE_RETRY = 0.5  # the same once it has been away for long
_LONG = 60.0
_FAREWELL = 2.0  # seconds that a bridge has to let us go
_LOOK = 5.0  # seconds between looks whether somebody else has removed flows of ours
_SILENCE = 30.0  # seconds without any answer after which a connection is made anew
_CHUNK = 1 << 18
_LEARNT = 16_384  # MACs that a bridge may still think behind a port: twice what it learns by default


class _State(Enum):
    AWAY = auto()
    READING = auto()  # connected; its configuration, ports and flows are asked for
    UP = auto()


@dataclass(eq=False)
class _Line:
    """A bridge and the connection to it."""

    bridge: str
    path: str
    wanted: dict[str, Sender | None] = field(default_factory=dict)  # by port
    numbers: dict[str, int] = field(default_factory=dict)  # of those that the bridge has
    places: dict[str, str] = field(default_factory=dict)  # MAC -> the port behind which it was admitted last
    state: _State = _State.AWAY
    sock: socket.socket | None = None
    inbox: bytearray = field(default_factory=bytearray)
    outbox: bytearray = field(default_factory=bytearray)
    waiting: dict[int, Future[None]] = field(default_factory=dict)  # by the xid of a barrier
    parked: list[Future[None]] = field(default_factory=list)  # until it is up
    reading: dict[int, tuple[list[bytes], Callable[[list[bytes]], None]]] = field(default_factory=dict)
    asked: dict[int, Future[frozenset[Flow]]] = field(default_factory=dict)
    lost: float = field(default_factory=time.monotonic)
    heard: float = 0.0
    next_try: float = 0.0
    next_look: float = 0.0
    trouble: str = ""  # why it cannot be used

    @property
    def events(self) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outbox else 0)


class Flows:
    """The flows that guard the ports of one node; `directory` is vswitchd's run directory. Thread-safe.

    A future of `guard` is done once the switch has the flows. SwitchUnavailable from it says why it cannot have them.
    """

    def __init__(self, directory: Path, *, node: str, timeout: float) -> None:
        self._directory = directory
        self._cookie = node_cookie(node)
        self._timeout = timeout
        self._lock = threading.RLock()
        self._lines: dict[str, _Line] = {}
        self._xids = count(1)
        self._wake = -1
        self._selector = selectors.DefaultSelector()
        self._thread: threading.Thread | None = None
        self._running = False

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; it connects to bridges as they are named."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="openflow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Close the connections; the flows stay as they are."""
        self._running = False
        if self._thread is None:
            return
        os.eventfd_write(self._wake, 1)
        self._thread.join(self._timeout)
        if self._thread.is_alive():
            raise SwitchUnavailable("the OpenFlow connections do not stop")
        self._thread = None
        with self._lock:
            for line in self._lines.values():
                # Spare ports that have just been removed: nobody will hear when the switch has done so.
                for number in [number for name, number in line.numbers.items() if name not in line.wanted]:
                    line.outbox += of.delete_by_cookie(self._cookie | number, of.EXACT, next(self._xids))
                self._flush(line)
                self._close(line, "ovsnetd stops")
                self._fail(line, "ovsnetd stops")
            self._lines.clear()
        self._selector.close()
        os.close(self._wake)

    # -- what is wanted -----------------------------------------------------------------------------------------------

    def guard(self, bridge: str, senders: Mapping[str, Sender | None], numbers: Mapping[str, int]) -> Future[None]:
        """Let the ports of that bridge send as `senders` say, None for nothing at all; `numbers` are those of new ports.

        A port that was guarded before never stands open meanwhile.
        """
        done: Future[None] = Future()
        with self._lock:
            line = self._line(bridge)
            before = {name: (line.wanted.get(name), line.numbers.get(name)) for name in senders}
            line.wanted.update(senders)
            if line.state is not _State.AWAY:  # or it tells the numbers when it is back
                line.numbers.update(numbers)
            if line.state is not _State.UP:
                if line.trouble:
                    done.set_exception(self._unavailable(line))
                else:
                    line.parked.append(done)
                return done
            if absent := [name for name in senders if name not in line.numbers]:
                done.set_exception(
                    SwitchUnavailable(f"bridge {bridge} has no port {absent[0]}", hint="see who deleted it")
                )
                return done
            xid = next(self._xids)
            for name in senders:
                number = line.numbers[name]
                old: tuple[Flow, ...] = ()
                if before[name][1] == number:
                    old = guard(self._cookie, number, before[name][0])
                else:
                    # Should it have had another port's number.
                    line.outbox += of.delete_by_cookie(self._cookie | number, of.EXACT, xid)
                self._change(line, old, guard(self._cookie, number, senders[name]), xid)
                self._note_place(line, name, senders[name], xid)
            self._end(line, xid, done)
        return done

    def admit(self, bridge: str, port: str, sender: Sender) -> Future[None]:
        """`guard` for a port that is guarded already."""
        return self.guard(bridge, {port: sender}, {})

    def wait(self, done: Future[None]) -> None:
        """Wait for what `guard` has begun; SwitchUnavailable."""
        try:
            done.result(self._timeout)
        except FutureTimeout:
            raise SwitchUnavailable(
                f"ovs-vswitchd has not taken the flows of a port within {self._timeout:.0f} s",
                hint="check that it runs, and that switch_run_dir is its directory",
            ) from None

    def forget(self, ports: Iterable[str]) -> None:
        """Ports that are gone, or are about to be. Their flows go when the switch has taken the ports off the bridge."""
        gone = set(ports)
        with self._lock:
            for line in self._lines.values():
                for name in gone & line.wanted.keys():
                    del line.wanted[name]

    def restore(self, bridge: str, senders: Mapping[str, Sender | None]) -> Future[None]:
        """Have exactly these ports of the bridge guarded, with as few changes as that takes."""
        done: Future[None] = Future()
        with self._lock:
            line = self._line(bridge)
            line.wanted = dict(senders)
            if line.trouble:
                done.set_exception(self._unavailable(line))
                return done
            line.parked.append(done)
            if line.state is _State.UP:
                self._read(line)
        return done

    def leave(self, bridge: str) -> None:
        """Take every flow of ours off the bridge, and the common ones with the last of all; one that is away has none."""
        try:
            self.restore(bridge, {}).result(min(self._timeout, _FAREWELL))
            found = self._ask(bridge, OURS, OURS_MASK)
        except (SwitchUnavailable, FutureTimeout) as exc:
            LOG.info("bridge %s keeps its flows, if it has any: %s", bridge, exc)
        else:
            shared = any(flow.cookie != OURS and not self._is_ours(flow) for flow in found)
            which = (self._cookie, OURS_MASK | NODE_MASK) if shared else (OURS, OURS_MASK)
            done: Future[None] = Future()
            with self._lock:
                line, xid = self._line(bridge), next(self._xids)
                line.outbox += of.delete_by_cookie(*which, xid)
                self._end(line, xid, done)
            self.wait(done)
        finally:
            with self._lock:
                if (gone := self._lines.pop(bridge, None)) is not None:
                    self._close(gone, "no port is guarded there any more")
                    self._fail(gone, "no port is guarded there any more")

    # -- what is there ------------------------------------------------------------------------------------------------

    def desired(self, bridge: str) -> frozenset[Flow]:
        """The flows that the bridge should have of ours, as far as it has the ports."""
        with self._lock:
            line = self._lines.get(bridge)
            return frozenset() if line is None else self._desired(line)

    def observe(self, bridge: str) -> frozenset[Flow]:
        """The flows that it has of ours; SwitchUnavailable."""
        return frozenset(filter(self._is_ours, self._ask(bridge, OURS, OURS_MASK)))

    def missing(self, bridge: str, port: str) -> frozenset[Flow]:
        """The flows of a port that is to be guarded which the switch does not have; SwitchUnavailable."""
        with self._lock:
            line = self._line(bridge)
            number, sender = line.numbers.get(port, 0), line.wanted.get(port)  # port 0 is nobody's
        return frozenset(guard(self._cookie, number, sender)) - self._ask(bridge, self._cookie | number, of.EXACT)

    def _ask(self, bridge: str, cookie: int, mask: int) -> frozenset[Flow]:
        done: Future[frozenset[Flow]] = Future()
        with self._lock:
            line = self._lines.get(bridge)
            if line is None or line.state is not _State.UP:
                raise SwitchUnavailable(
                    f"bridge {bridge} cannot be asked for its flows", hint="check that ovs-vswitchd runs"
                )
            xid = next(self._xids)
            line.asked[xid] = done

            def parse(parts: list[bytes]) -> None:
                line.asked.pop(xid).set_result(frozenset(flow for part in parts for flow in of.flows(part)))

            line.reading[xid] = [], parse
            line.outbox += of.ask_flows(cookie, mask, xid)
            self._flush(line)
        try:
            return done.result(self._timeout)
        except FutureTimeout:
            raise SwitchUnavailable(
                f"bridge {bridge} does not tell its flows", hint="check that ovs-vswitchd runs"
            ) from None

    def _is_ours(self, flow: Flow) -> bool:
        return flow.cookie == OURS or flow.cookie & (OURS_MASK | NODE_MASK) == self._cookie

    def _desired(self, line: _Line) -> frozenset[Flow]:
        flows = set(common())
        for name, sender in line.wanted.items():
            if name in line.numbers:
                flows.update(guard(self._cookie, line.numbers[name], sender))
        return frozenset(flows)

    # -- the lines, with the lock held --------------------------------------------------------------------------------

    def _line(self, bridge: str) -> _Line:
        line = self._lines.get(bridge)
        if line is None:
            line = self._lines[bridge] = _Line(bridge, str(self._directory / f"{bridge}.mgmt"))
            os.eventfd_write(self._wake, 1)
        return line

    def _unavailable(self, line: _Line) -> SwitchUnavailable:
        return SwitchUnavailable(
            f"bridge {line.bridge} cannot guard ports: {line.trouble}",
            hint="let it speak OpenFlow13 (column protocols), or switch anti_spoofing off",
        )

    def _change(self, line: _Line, old: Iterable[Flow], new: Iterable[Flow], xid: int) -> None:
        """Write the difference, in the order of the new ones."""
        have, want = set(old), tuple(new)
        for flow in have.difference(want):
            line.outbox += of.delete(flow, xid)
        for flow in want:
            if flow not in have:
                line.outbox += of.add(flow, xid)

    def _note_place(self, line: _Line, name: str, sender: Sender | None, xid: int) -> None:
        """Have the bridge learn that a MAC is no longer behind another port: that may still stand, and the bridge learns only
        from what is sent, so that who only listens would not be reached for minutes.
        """
        if sender is None:
            return
        if line.places.pop(sender.mac, name) != name:
            line.outbox += of.announce(sender.mac, line.numbers[name], xid)
        line.places[sender.mac] = name  # in the order of time
        if len(line.places) > _LEARNT:
            del line.places[next(iter(line.places))]

    def _end(self, line: _Line, xid: int, done: Future[None]) -> None:
        line.outbox += of.barrier(xid)
        line.waiting[xid] = done
        self._flush(line)

    def _flush(self, line: _Line) -> None:
        """Send what the socket takes; the thread sends the rest."""
        if line.sock is None:
            return
        try:
            while line.outbox:
                sent = line.sock.send(memoryview(line.outbox)[:_CHUNK], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                del line.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError as exc:
            self._close(line, exc.strerror or str(exc))
            return
        with suppress(KeyError):
            if self._selector.get_key(line.sock).events != line.events:
                self._selector.modify(line.sock, line.events, line)
                os.eventfd_write(self._wake, 1)

    def _connect(self, line: _Line) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(line.path)
        except OSError:  # not there yet, or its backlog is full
            sock.close()
            now = time.monotonic()
            line.next_try = now + (_RETRY if now - line.lost < _LONG else _RARE_RETRY)
            return
        line.sock, line.state, line.heard = sock, _State.READING, time.monotonic()
        self._selector.register(sock, line.events, line)
        # All at once: as long as this takes, ports stand open.
        line.outbox += of.hello(next(self._xids)) + of.message(of.GET_CONFIG_REQUEST, next(self._xids))
        self._read(line)

    def _close(self, line: _Line, why: str) -> None:
        """The connection is over. Who waits goes on waiting: what is wanted is written when it is there again."""
        if line.sock is None:
            return
        with suppress(KeyError):
            self._selector.unregister(line.sock)
        line.sock.close()
        if line.state is _State.UP:
            LOG.info("the OpenFlow connection to bridge %s has ended: %s", line.bridge, why)
            line.lost = time.monotonic()
        line.sock, line.state, line.next_try = (
            None,
            _State.AWAY,
            0.0 if line.state is _State.UP else time.monotonic() + _RETRY,
        )
        line.inbox.clear()
        line.outbox.clear()
        line.next_look = 0.0
        line.reading.clear()
        line.numbers.clear()
        line.places.clear()  # if it comes back, it has learnt nothing yet
        line.parked += line.waiting.values()
        line.waiting.clear()
        for asked in line.asked.values():
            asked.set_exception(SwitchUnavailable(f"bridge {line.bridge} has ended the connection: {why}"))
        line.asked.clear()

    def _fail(self, line: _Line, why: str) -> None:
        """Nobody waits for this line any longer."""
        line.trouble = why
        for done in line.parked:
            done.set_exception(self._unavailable(line))
        line.parked.clear()

    def _read(self, line: _Line) -> None:
        """Ask for everything, to write what is missing."""
        ports, flows = next(self._xids), next(self._xids)
        line.reading[ports] = [], lambda parts: self._note_ports(line, parts)
        line.reading[flows] = [], lambda parts: self._settle(line, parts)
        line.outbox += of.ask_ports(ports) + of.ask_flows(OURS, OURS_MASK, flows)
        self._flush(line)

    def _note_ports(self, line: _Line, parts: list[bytes]) -> None:
        for part in parts:
            for name, number in of.ports(part):
                self._port_changed(line, of.PORT_ADDED, name, number)

    def _settle(self, line: _Line, parts: list[bytes]) -> None:
        """Write what differs, from there on the bridge is up."""
        have = {flow for part in parts for flow in of.flows(part) if self._is_ours(flow)}
        xid = next(self._xids)
        want = [*common()]
        for name, sender in line.wanted.items():
            if name in line.numbers:
                shut, *others = guard(self._cookie, line.numbers[name], sender)
                want += [*others, shut]  # it stands open, and what may pass is to pass all the time
        changes = len(have.symmetric_difference(want))
        self._change(line, have, want, xid)
        if line.state is not _State.UP:
            LOG.info("bridge %s guards %d ports, %d flows differed", line.bridge, len(line.numbers), changes)
        elif changes:
            LOG.warning(
                "somebody has changed %d flows of ours on bridge %s: they are as they were", changes, line.bridge
            )
        line.state, line.next_look = _State.UP, time.monotonic() + _LOOK
        parked, line.parked = line.parked, []
        done: Future[None] = Future()
        done.add_done_callback(lambda future: _pass_on(future, parked))
        self._end(line, xid, done)

    def _look(self, line: _Line) -> None:
        """See by their number whether all flows are there; reading thousands would disturb what is urgent."""
        line.next_look = time.monotonic() + _LOOK
        shared = len(common())
        for cookie, mask, expected in (
            (OURS, of.EXACT, shared),
            (self._cookie, OURS_MASK | NODE_MASK, len(self._desired(line)) - shared),
        ):

            def compare(parts: list[bytes], expected: int = expected) -> None:
                if sum(map(of.count, parts)) != expected:
                    self._read(line)

            xid = next(self._xids)
            line.reading[xid] = [], compare
            line.outbox += of.ask_count(cookie, mask, xid)
        self._flush(line)

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._running:
            try:
                for key, events in self._selector.select(self._pause()):
                    if key.data is None:
                        with suppress(BlockingIOError):
                            os.eventfd_read(self._wake)
                    else:
                        with self._lock:
                            self._serve(key.data, events)
                with self._lock:
                    self._tend()
            except Exception:
                LOG.exception("the OpenFlow connections failed by a defect")
                time.sleep(_RETRY)

    def _pause(self) -> float:
        now = time.monotonic()
        with self._lock:
            times = [
                line.next_try if line.sock is None else line.next_look or now + _LOOK for line in self._lines.values()
            ]
        return max(0.0, min([*times, now + _LOOK]) - now)

    def _tend(self) -> None:
        now = time.monotonic()
        for line in list(self._lines.values()):
            if line.sock is None:
                if line.next_try <= now:
                    self._connect(line)
            elif now - line.heard > _SILENCE:
                self._close(line, f"it has been silent for {_SILENCE:.0f} s")
            elif line.state is _State.UP and line.next_look <= now:
                self._look(line)

    def _serve(self, line: _Line, events: int) -> None:
        if line.sock is None:
            return
        if events & selectors.EVENT_WRITE:
            self._flush(line)
        if not events & selectors.EVENT_READ or line.sock is None:
            return
        try:
            received = line.sock.recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as exc:
            received, why = b"", exc.strerror or str(exc)
        else:
            why = "vswitchd has closed it"
        if not received:
            self._close(line, why)
            return
        line.heard = time.monotonic()
        line.inbox += received
        try:
            for kind, xid, body in of.split(line.inbox):
                self._take(line, kind, xid, body)  # when it closes the line, nothing is left of the inbox
        except (ValueError, IndexError) as exc:
            LOG.error("bridge %s sends what is no OpenFlow 1.3: %s", line.bridge, exc)
            self._close(line, "what it sends cannot be read")

    def _take(self, line: _Line, kind: int, xid: int, body: bytes) -> None:
        match kind:
            case of.ECHO_REQUEST:
                line.outbox += of.message(of.ECHO_REPLY, xid, body)
                self._flush(line)
            case of.GET_CONFIG_REPLY:
                line.trouble = ""
                again = next(self._xids)
                line.reading[again] = [], lambda parts: self._note_ports(line, parts)
                line.outbox += of.only_port_status(next(self._xids))
                line.outbox += of.set_config(of.config_flags(body), next(self._xids))
                line.outbox += of.ask_ports(again)  # of what changed before it was to tell
                self._flush(line)
            case of.MULTIPART_REPLY if xid in line.reading:
                parts, then = line.reading[xid]
                parts.append(body)
                if of.last_part(body):
                    del line.reading[xid]
                    then(parts)
            case of.BARRIER_REPLY:
                if (done := line.waiting.pop(xid, None)) is not None:
                    done.set_result(None)
            case of.PORT_STATUS:
                self._port_changed(line, *of.port_status(body))
            case of.ERROR:
                self._refused(line, xid, *of.error(body))

    def _port_changed(self, line: _Line, reason: int, name: str, number: int) -> None:
        if reason == of.PORT_DELETED:
            if line.numbers.get(name) == number:
                del line.numbers[name]
            if number not in line.numbers.values():
                line.outbox += of.delete_by_cookie(self._cookie | number, of.EXACT, next(self._xids))
                self._flush(line)
        elif name in line.wanted and line.numbers.get(name) != number:
            if line.state is _State.UP:
                self.guard(line.bridge, {name: line.wanted[name]}, {name: number})
            else:
                line.numbers[name] = number

    def _refused(self, line: _Line, xid: int, kind: int, code: int) -> None:
        why = f"OpenFlow error {kind}, code {code}"
        if line.state is not _State.UP:
            self._close(line, why)
            self._fail(line, "it does not speak OpenFlow 1.3" if kind == of.HELLO_FAILED else why)
            line.next_try = time.monotonic() + _RARE_RETRY
            return
        LOG.error("bridge %s refuses what it is told: %s", line.bridge, why)
        line.reading.pop(xid, None)
        if (asked := line.asked.pop(xid, None)) is not None:
            asked.set_exception(SwitchUnavailable(f"bridge {line.bridge} does not tell its flows: {why}"))
        if (done := line.waiting.pop(xid, None)) is not None:
            done.set_exception(
                SwitchUnavailable(f"bridge {line.bridge} refuses a flow: {why}", hint="see vswitchd's log")
            )


def _pass_on(done: Future[None], others: Iterable[Future[None]]) -> None:
    """Give the outcome to those who wait for it."""
    for other in others:
        if (exc := done.exception()) is not None:
            other.set_exception(exc)
        else:
            other.set_result(None)

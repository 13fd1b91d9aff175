"""The transaction engine under the `store` and `switch` rooms: one IDL thread per database, batches, deadlines.

It owns the connection to one OVSDB server: the in-memory replica (python-ovs' IDL), and the order of writes. It knows no
table. Rooms hand it ovsdbapp commands and get futures back; nobody else imports it.

Why not ovsdbapp's own connection: its queue takes one transaction at a time and blocks without a deadline while the server
answers. Here commands that arrive while a transaction is in flight share the next one, so that 50 concurrent requests cost
one durable commit (or one reconfigure of vswitchd) and not 50.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ovs import jsonrpc, poller, stream
from ovs.db import idl as ovs_idl
from ovsdbapp.backend.ovs_idl import command as ovs_command
from ovsdbapp.backend.ovs_idl import idlutils

from .errors import DeadlineExceeded, OvsnetError, Unavailable
from .jsonrpc import speed_up
from .operations import behind

LOG = logging.getLogger(__name__)

T = TypeVar("T")

speed_up()  # of every connection, before the first one is made

MAX_BATCH = 64
_RETRY_DELAY = 0.02  # seconds between attempts after a refusal that a row still on its way to us may explain
_LAG = 2.0  # seconds by which our replica may be behind (a relay, a cluster's follower); then a refusal is final
_MAY_BE_LATE = {"constraint violation", "referential integrity violation"}  # RFC 7047, section 3.1
_PATIENCE = 4.0  # seconds without a server after which a change is refused; a cluster elects a leader in two
_LOOK_MS = (
    1000  # the thread looks at deadlines at least so often: of a change that another thread sent it was told nothing
)
_SILENCE = 0.5  # seconds after which a cluster's member is asked again; an answer takes it some milliseconds
_BACKOFF_MS = (50, 500)  # reconnect: first and longest pause; python-ovs' own 1 s to 8 s is an outage for an ADD


class Idl(ovs_idl.Idl):  # type: ignore[misc]  # python-ovs is not typed
    """The replica, yielding to other threads while it parses long updates."""

    _clustered = False  # whether a server has ever said so
    _standalone = -1  # number of the session in which the server said that it is no member of a cluster

    def cooperative_yield(self) -> None:
        """Let another thread run; called between rows."""
        time.sleep(0)

    def member(self) -> ovs_idl.Row | None:
        """What the last server that answered tells of itself as a member of a cluster (ovsdb-server(5)), or None."""
        session = self._session.get_seqno()
        if self._standalone == session:  # said once for a connection: each look costs 0.1 ms
            return None
        server = (self.server_tables or {}).get("Database")
        row = next((row for row in server.rows.values() if row.name == self._db.name), None) if server else None
        if row is None:
            return None
        if row.model != "clustered":
            self._standalone = session
            return None
        self._clustered = True
        return row

    def advice(self) -> str:
        """What to do while there is no connection."""
        if self._clustered:
            return "of its cluster more than half of the members must be up and reach each other"
        return "check that its ovsdb-server runs and has room"


class Transaction(ovs_idl.Transaction):  # type: ignore[misc]
    """A transaction with room for notes that its commands leave each other; gone with the attempt."""

    def __init__(self, idl: ovs_idl.Idl) -> None:
        super().__init__(idl)
        self.scratch: dict[Any, Any] = {}


class Command(ovs_command.BaseCommand):  # type: ignore[misc]
    """Base of our commands, after ovsdbapp's model: `__init__` keeps arguments, `run_idl` acts and may be run again.

    A command that finds its work done leaves the transaction alone. It raises OvsnetError only before its first write, because
    it shares the transaction with the commands of other requests; `result` is what the caller's future yields.
    """

    result: Any
    planned: Any = (
        None  # what `result` will be, as far as that is known before the commit; None: `result` is known by then
    )

    def run_idl(self, txn: Transaction) -> None:
        """Add the changes to the transaction; set `self.result`."""
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class _Request:
    commands: tuple[ovs_command.BaseCommand, ...]
    deadline: float  # monotonic seconds
    asked: float = field(default_factory=time.monotonic)
    future: Future[list[Any]] = field(default_factory=Future)
    alone: bool = False
    lazy: bool = False
    not_before: float = 0.0
    sent: bool = False  # in a transaction whose outcome is unknown
    refused: float = 0.0  # monotonic time of the first refusal


@dataclass(slots=True)
class Counts:
    """What an engine has done: transactions acknowledged, to be sent again (a lost race or connection), and refused; sessions."""

    committed: int = 0
    lost: int = 0
    refused: int = 0
    connections: int = 0


class Engine:
    """A database connection with a thread of its own.

    `durable` asks the server to flush every commit that is not lazy to disk before it answers; python-ovs never asks for that
    on a standalone server. `unavailable` is the error class for "no connection", so that each room reports its own. A server
    that is silent for twice `probe_ms` is left for the next of several remotes.

    The attributes `idl`, `lock`, `timeout` and `is_running` are what ovsdbapp's Backend expects of a connection.
    """

    def __init__(
        self,
        name: str,
        idl: Idl,
        *,
        unavailable: type[Unavailable],
        timeout: float,
        durable: bool = False,
        probe_ms: int | None = None,
    ) -> None:
        self.name = name
        self.idl = idl
        self.timeout = timeout
        self.lock = threading.RLock()
        self.is_running = False
        self.counts = Counts()
        self._durable = durable
        self._unavailable = unavailable
        self._changed = threading.Condition(self.lock)
        self._queue: deque[_Request] = deque()
        self._queue_lock = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._flight: tuple[Transaction, list[_Request]] | None = None
        self._took_off = 0.0  # when the transaction in flight was sent, monotonic seconds
        self._session: int | None = None  # the latest that was ready, by its number
        self._member_led = False  # whether the member that it was sent to was the leader
        self._thread: threading.Thread | None = None
        reconnect = idl._session.reconnect
        reconnect.min_backoff, reconnect.max_backoff = _BACKOFF_MS  # its own set_backoff() makes them a second at least
        if probe_ms is not None:
            # The IDL's own argument counts for nothing if the remote that it tries first is a unix socket.
            reconnect.set_probe_interval(probe_ms)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread; it connects in the background and for ever again."""
        self.is_running = True
        self._thread = threading.Thread(target=self._run, name=f"ovsdb-{self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and close the connection; what is queued fails as unavailable."""
        self.is_running = False
        self._rouse()
        if self._thread is not None:
            self._thread.join(timeout=self.timeout)
            if self._thread.is_alive():
                raise self._unavailable(f"the {self.name} connection does not stop")
            self._thread = None
        with self._queue_lock:
            wake, self._wake = self._wake, -1
        if wake >= 0:
            os.close(wake)

    @property
    def ready(self) -> bool:
        """Whether the replica is complete and connected."""
        return bool(self.idl.state == Idl.IDL_S_MONITORING and self.idl._session.is_connected())

    def wait_ready(self, timeout: float) -> None:
        """Block until the replica is complete; the room's unavailable error after `timeout` seconds."""
        self.wait_for(lambda: True, timeout)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, view: Callable[[], T]) -> T:
        """`view()` on a consistent replica; waits out a short reconnect, then raises the room's unavailable error."""
        with self.lock:
            if not self.ready:
                self.wait_ready(min(self.timeout, 3.0))
            return view()

    def wait_for(self, condition: Callable[[], T], timeout: float) -> T:
        """The first true value of `condition()`, looked at after every change, else the room's unavailable error."""
        until = time.monotonic() + timeout
        with self.lock:
            while True:
                connected = self.ready
                if not self.is_running:
                    raise self._unavailable(f"the {self.name} connection is closed")
                if connected and (value := condition()):
                    return value
                left = until - time.monotonic()
                if left <= 0:
                    if not connected:
                        raise self._unavailable(f"the {self.name} database is not reachable", hint=self.idl.advice())
                    raise DeadlineExceeded(
                        f"the {self.name} database did not reach the awaited state in {timeout:.1f} s"
                    )
                self._changed.wait(left)

    @property
    def in_flight(self) -> Mapping[Any, Any]:
        """What the commands of the transaction on its way have noted for each other. To be read under the lock."""
        return self._flight[0].scratch if self._flight is not None else {}

    # -- writing ------------------------------------------------------------------------------------------------------

    def submit(
        self,
        *commands: ovs_command.BaseCommand,
        timeout: float | None = None,
        alone: bool = False,
        lazy: bool = False,
        hurry: bool = True,
    ) -> Future[list[Any]]:
        """Queue commands for the next transaction; the future yields their results once the commit is acknowledged.

        Several commands are one atomic group; `alone` gives them a transaction of their own, built when everything before
        it has landed, for commands that compare what they write with everything that is there. `lazy` ones are acknowledged
        before they are on disk: a power cut may take them, the death of a process does not, and whatever durable commit
        follows brings them along, for the server writes its file in order. Without `hurry` the engine's thread builds and sends
        the transaction, so that the caller's answer can be on its way before. The future fails with the first command's
        OvsnetError, with DeadlineExceeded when the outcome is unknown, or with the room's unavailable error when nothing
        was sent.
        """
        request = _Request(commands, time.monotonic() + (timeout or self.timeout), alone=alone, lazy=lazy)
        request.future.set_running_or_notify_cancel()  # it cannot be cancelled: the thread always has an answer to put in
        with self._queue_lock:
            if not self.is_running:
                raise self._unavailable(f"the {self.name} connection is closed")
            self._queue.append(request)
        if hurry:
            self._send_now()
        else:
            behind(self._rouse)  # it would compete with the answer
        return request.future

    def _rouse(self) -> None:
        """Have the engine's thread look at the queue."""
        with self._queue_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _send_now(self) -> None:
        """Send from this thread if the line is free, which saves 0.3 ms; else, and to a cluster, the engine's thread does it."""
        if self._flight is None and self.lock.acquire(blocking=False):
            try:
                if self.ready and self.is_running and self.idl.member() is None:
                    self._turn()  # what others have changed comes first
                    if not self.idl._session.get_backlog():
                        return  # the answer wakes the thread
            except Exception as exc:  # noqa: BLE001  # logged there
                self._mend(exc)
            finally:
                self.lock.release()
        self._rouse()

    def _take_off_all(self) -> None:
        while self._flight is None and self.ready and (batch := self._next_batch()):
            self._take_off(batch)

    def execute(
        self, *commands: ovs_command.BaseCommand, timeout: float | None = None, alone: bool = False, lazy: bool = False
    ) -> list[Any]:
        """`submit` and wait for the results."""
        return self.result(self.submit(*commands, timeout=timeout, alone=alone, lazy=lazy), timeout)

    def result(self, future: Future[list[Any]], timeout: float | None = None) -> list[Any]:
        """The future's results, with a deadline of its own in case the thread has died."""
        try:
            return future.result((timeout or self.timeout) + 1.0)
        except FutureTimeout:
            raise DeadlineExceeded(f"the {self.name} database gave no answer in time") from None

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self.is_running:
            try:
                self._wait()
                self._turn()
            except Exception as exc:  # noqa: BLE001  # logged there
                self._mend(exc)
                time.sleep(_RETRY_DELAY)
        self._give_up_flight()
        with self._queue_lock:
            left, self._queue = list(self._queue), deque()
        for request in left:
            request.future.set_exception(self._unavailable(f"the {self.name} connection is closed"))
        with self.lock:
            self.idl.close()
            self._changed.notify_all()

    def _mend(self, exc: Exception) -> None:
        """After a defect, of ours or python-ovs': start again with a new connection."""
        LOG.error("the %s connection failed and is made anew", self.name, exc_info=exc)
        with self.lock:
            self._give_up_flight()
            self.idl.last_id = str(uuid.UUID(int=0))  # an update half applied must not come again as a difference
            self.idl.force_reconnect()

    def _wait(self) -> None:
        poll = poller.Poller()
        self.idl.wait(poll)
        poll.fd_wait(self._wake, poller.POLLIN)
        due = self._next_due()
        poll.timer_wait(_LOOK_MS)
        if due is not None:
            poll.timer_wait(max(0, int((due - time.monotonic()) * 1000) + 1))
        poll.block()
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError as exc:
            if exc.errno != errno.EAGAIN:
                raise

    def _next_due(self) -> float | None:
        with self._queue_lock:
            times = [self._due(request) for request in self._queue]
            if self._flight is None and self.ready:
                times += [request.not_before for request in self._queue]
        if self._flight is not None:
            times.append(max(request.deadline for request in self._flight[1]))
            if self.ready and self.idl.member() is not None:
                times.append(self._took_off + _SILENCE)
        return min(times, default=None)

    def _turn(self) -> None:
        with self.lock:
            seqno, was_ready = self.idl.change_seqno, self.ready
            self.idl.run()
            if self.idl.change_seqno != seqno or self.ready != was_ready:
                self._changed.notify_all()
            if self.ready and (session := self.idl._session.get_seqno()) != self._session:
                self._session = session
                self.counts.connections += 1
            self._land()
            self._expire()
            self._ask_again()
            self._take_off_all()

    def _next_batch(self) -> list[_Request]:
        now = time.monotonic()
        batch: list[_Request] = []
        with self._queue_lock:
            waiting: deque[_Request] = deque()
            while self._queue and len(batch) < MAX_BATCH:
                request = self._queue.popleft()
                if request.not_before > now or (request.alone and batch):
                    waiting.append(request)
                    continue
                batch.append(request)
                if request.alone:
                    break
            self._queue.extendleft(reversed(waiting))
        return batch

    def _take_off(self, batch: list[_Request]) -> None:
        """Build one transaction of the batch and send it. Requests that fail in building are answered at once."""
        while batch:
            txn = Transaction(self.idl)
            spoiled = self._build(txn, batch)
            if spoiled is None:
                break
            txn.abort()
            batch.remove(spoiled)
        if not batch:
            return
        lazy = all(request.lazy for request in batch)
        if self._durable and not lazy and txn._txn_rows:  # a transaction that changes nothing stays unsent
            txn.add_op({"op": "commit", "durable": True})
        self._flight = (txn, batch)
        self._took_off = time.monotonic()
        member = self.idl.member()
        self._member_led = member is not None and bool(member.leader)
        txn.commit()
        self._land()

    def _build(self, txn: Transaction, batch: list[_Request]) -> _Request | None:
        """Run the commands; the request that spoiled the transaction, if one did. Drops the ones that just failed."""
        for request in list(batch):
            try:
                for command in request.commands:
                    command.run_idl(txn)
            except OvsnetError as exc:
                request.future.set_exception(exc)
                if len(request.commands) > 1:
                    return request
                batch.remove(request)
            except Exception as exc:
                LOG.exception("command of the %s database failed", self.name)
                request.future.set_exception(OvsnetError(f"internal error in a {self.name} command: {exc!r}"))
                return request
        if not batch:
            txn.abort()
        return None

    def _land(self) -> None:
        """Look at the transaction in flight and answer its requests if it is done."""
        if self._flight is None:
            return
        txn, batch = self._flight
        status = txn.commit()  # only reports, once sent
        if status == txn.INCOMPLETE:
            return
        self._flight = None
        if status in (txn.SUCCESS, txn.UNCHANGED):
            self.counts.committed += status == txn.SUCCESS
            for request in batch:
                self._succeed(request, txn)
        elif status == txn.TRY_AGAIN:
            self.counts.lost += 1
            # A lost race, or a connection cut before the answer: the outcome is unknown. The commands read again, by their
            # owner's key, what is there.
            for request in batch:
                request.sent = True
            self._requeue(batch, 0.002)
        else:
            self.counts.refused += 1
            self._refused(batch, txn.get_error())

    def _succeed(self, request: _Request, txn: Transaction) -> None:
        try:
            for command in request.commands:
                command.post_commit(txn)
            results = [command.result for command in request.commands]
        except OvsnetError as exc:
            request.future.set_exception(exc)
        except Exception as exc:
            LOG.exception("command of the %s database failed after its commit", self.name)
            request.future.set_exception(OvsnetError(f"internal error in a {self.name} command: {exc!r}"))
        else:
            request.future.set_result(results)

    def _refused(self, batch: list[_Request], error: str) -> None:
        """The server refused the transaction: find the culprit by sending each request alone, then tell it."""
        try:
            told = dict(json.loads(error))
        except (ValueError, TypeError):
            told = {}
        name = str(told.get("error", ""))
        now = time.monotonic()
        first = batch[0].refused or now
        patience = min(batch[0].deadline - 2 * _RETRY_DELAY, first + _LAG)
        if len(batch) > 1 or (name in _MAY_BE_LATE and now < patience):
            # Our replica may be behind another controller's row: once it has come, the command itself decides whether that
            # is its own work (success) or a conflict.
            for request in batch:
                request.alone = True
                request.refused = request.refused or now
            self._requeue(batch, _RETRY_DELAY)
            return
        if name == "I/O error":  # RFC 7047, section 3.1; ovsdb-server adds the system's words
            reason = f"cannot write: {told.get('details', '')}: {told.get('io-error', '')}"
            hint = "make room on the disk of its file, or mend it; it is tried again with the next change"
        else:
            reason, hint = f"refused the change: {error}", "see the log of its ovsdb-server"
        batch[0].future.set_exception(self._unavailable(f"the {self.name} database {reason}", hint=hint))

    def _requeue(self, batch: list[_Request], pause: float) -> None:
        """Run the batch again after `pause` seconds, in which the other controller's update should arrive."""
        for request in batch:
            request.not_before = time.monotonic() + pause
        with self._queue_lock:
            self._queue.extendleft(reversed(batch))

    def _due(self, request: _Request) -> float:
        """When a queued request fails: at its deadline, or earlier while there is no server."""
        return request.deadline if self.ready else min(request.deadline, request.asked + _PATIENCE)

    def _expire(self) -> None:
        now = time.monotonic()
        with self._queue_lock:
            late = [request for request in self._queue if self._due(request) <= now]
            self._queue = deque(request for request in self._queue if self._due(request) > now)
        for request in late:
            if request.sent:
                request.future.set_exception(self._unknown())
                continue
            request.future.set_exception(
                self._unavailable(f"the {self.name} database took no change in time", hint=self.idl.advice())
            )
        if self._flight is not None and all(request.deadline <= now for request in self._flight[1]):
            self._give_up_flight()

    def _ask_again(self) -> None:
        """Leave a cluster's member that does not answer; the new session ends the flight, and its commands look again.

        A follower answers seconds later, or never (3.1), to a change that it had handed to a leader which then died: never if
        it becomes the leader itself, which it tells us at once.
        """
        member = self.idl.member()
        if self._flight is None or member is None or not self.ready:
            return
        if bool(member.leader) != self._member_led or time.monotonic() - self._took_off >= _SILENCE:
            self.idl.force_reconnect()

    def _give_up_flight(self) -> None:
        if self._flight is None:
            return
        txn, batch = self._flight
        self._flight = None
        if self.idl.txn is txn:  # commit itself failed
            txn.abort()
        self.idl._outstanding_txns.pop(txn._request_id, None)  # a late answer is then ignored by the IDL
        for request in batch:
            request.future.set_exception(self._unknown())

    def _unknown(self) -> DeadlineExceeded:
        hint = "ask again" if self.ready else f"ask again; {self.idl.advice()}"
        return DeadlineExceeded(f"the {self.name} database did not answer; the outcome is unknown", hint=hint)


class Rehearsal(Engine):
    """The same engine, but its commands run on the replica only: they tell what they would yield, and write nothing."""

    def __init__(self, engine: Engine) -> None:
        self.__dict__ = engine.__dict__

    def submit(
        self,
        *commands: ovs_command.BaseCommand,
        timeout: float | None = None,
        alone: bool = False,
        lazy: bool = False,
        hurry: bool = True,
    ) -> Future[list[Any]]:
        """The future yields what the commands would, or fails as they would."""
        del timeout, alone, lazy, hurry

        def run() -> list[Any]:
            txn = Transaction(self.idl)
            try:
                for command in commands:
                    command.run_idl(txn)
                return [command.result if command.planned is None else command.planned for command in commands]
            finally:
                txn.abort()

        future: Future[list[Any]] = Future()
        try:
            future.set_result(self.read(run))
        except OvsnetError as exc:
            future.set_exception(exc)
        return future


def fetch_schema(remote: str, database: str, timeout: float, unavailable: type[Unavailable]) -> dict[str, Any]:
    """The schema that a server has for a database (RFC 7047, section 4.1.2), within `timeout` seconds.

    ovsdbapp's own function has no deadline.
    """
    return dict(ask(remote, "get_schema", [database], timeout, unavailable))


def ask(remote: str, method: str, params: Sequence[Any], timeout: float, unavailable: type[Unavailable]) -> Any:
    """One request to a server on a connection of its own, within `timeout` seconds; its result."""
    until = time.monotonic() + timeout
    hint = "check that its ovsdb-server runs"
    error, opened = stream.Stream.open_block(stream.Stream.open(remote), timeout=int(timeout * 1000))
    if error:
        raise unavailable(f"{remote} cannot be reached: {os.strerror(error)}", hint=hint)
    connection = jsonrpc.Connection(opened)
    try:
        connection.send(jsonrpc.Message.create_request(method, list(params)))
        while True:
            error, reply = connection.recv()
            if not error and reply is not None and reply.type == jsonrpc.Message.T_REPLY:
                return reply.result
            if not error and reply is not None and reply.type == jsonrpc.Message.T_ERROR:
                reason = reply.error.get("error", reply.error) if isinstance(reply.error, dict) else reply.error
                raise unavailable(f"{remote} refuses {method} {', '.join(map(str, params))}: {reason}", hint=hint)
            if error and error != errno.EAGAIN:
                raise unavailable(f"{remote} closed the connection", hint=hint)
            left = until - time.monotonic()
            if left <= 0:
                raise unavailable(f"{remote} does not answer", hint=hint)
            connection.run()
            poll = poller.Poller()
            connection.wait(poll)
            connection.recv_wait(poll)
            poll.timer_wait(int(left * 1000) + 1)
            poll.block()
    finally:
        connection.close()


def schema_helper(schema: dict[str, Any], tables: dict[str, Sequence[str]] | None = None) -> ovs_idl.SchemaHelper:
    """A helper that registers all tables, or only the named columns of the named tables."""
    helper = idlutils.create_schema_helper(json.dumps(schema))
    if tables is None:
        helper.register_all()
    else:
        for table, columns in tables.items():
            helper.register_columns(table, list(columns))
    return helper

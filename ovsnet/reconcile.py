"""The reconciler: looks at switch, kernel and packet filter, compares with the store, and mends what differs.

At the start; as soon as the switch's database or the kernel tells of a change; when ovs-vswitchd comes back; and on a slow timer,
for what nobody tells. A use case: `plan` says what differs and what to do, `mend` does it. It never fights a running request:
what it is about to change it locks as a request would, looks at again, and leaves alone if it has just been made.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from . import plan
from .controller import Controller, ingress_limits
from .crashpoints import Point, reach
from .errors import DeadlineExceeded, InvalidNetns, OvsnetError, StateUnavailable, SwitchUnavailable
from .link import LinkInfo, Watch, open_netns
from .mend import Mender
from .model import Endpoint, Network, Origin, OwnerKind
from .operations import OK
from .plan import Action, Actual, Desired, Kind, Presence, Sandbox, Where

LOG = logging.getLogger(__name__)

_SETTLE = 0.3  # seconds from the first word of a change until it is looked into: the rest of it is on its way
_LOOK_SECONDS = 2.0  # between two looks whether ovs-vswitchd runs
_ANSWER = 2.0  # seconds for the switch to tell
_FEW = 40  # ports and devices that are looked at one by one: each takes 0.2 ms, of 500 all together 60
_CHUNK = 50  # endpoints that are locked, looked at and mended together
_SECOND_LOOK = 0.5  # seconds after which a difference is one, and not a request that passes through
_AGAIN = 3.0  # seconds after which what was busy is looked at again
_PAUSES = (0.0, 1.0, 5.0, 30.0, 300.0)  # seconds before the first, second, ... repair of the same in a row
_STEADY = 600.0  # seconds without that repair, after which its row begins anew
_REMAKE = {Kind.PORT_MISSING, Kind.PORT_ELSEWHERE, Kind.PORT_TRUNKED, Kind.DEVICE_MISSING}
_OF_NETWORK = {Kind.BRIDGE_MISSING, Kind.GATEWAY_MISSING, Kind.GATEWAY_WRONG}

Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Found:
    """What a finder has found: a difference, and how to mend it (None: not at all)."""

    action: Action
    act: Act | None


Finder = Callable[[], Iterable[Found]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was mended, and what was not: `remedy` tells what would be done, and the reason why it failed if it was tried."""

    done: tuple[Action, ...]
    left: tuple[Action, ...]


class Reconciler:
    """The reconciler of one host. `count` is told the kind of each repair and how it ended (ok, or an error's code), and once of
    what is left, with None. `finders` look for more, in every pass over everything: what is to be seen for a while before
    it is mended has `patience`. Thread-safe; raises OvsnetError only.
    """

    def __init__(
        self, controller: Controller, count: Callable[[str, str | None], None], finders: Sequence[Finder] = ()
    ) -> None:
        self._controller = controller
        self._count = count
        self._store = controller.store
        self._finders = (self._stray_leases, self._stray_limits, *finders)
        self._mender = Mender(controller)
        self._passing = threading.Lock()  # held during a pass
        self._wake = threading.Condition()
        self._owed: frozenset[str] = frozenset()  # networks (uuids) for which something was left to do at the start
        self._told: dict[str, float] = {}  # names of ports, devices and bridges, and when to look ("": at everything)
        self._running = False
        self._forwarding: bool | None = None
        self._since: dict[tuple[Kind, str], float] = {}  # when something was first seen that is there still
        self._tries: dict[tuple[Kind, str], tuple[int, float]] = {}  # repairs in a row, and the time of the last one
        self._busy: set[str] = set()  # owner keys of endpoints that this pass had to leave alone
        self._reported: frozenset[str] = frozenset()  # what is not to be mended, and was logged
        self._thread = threading.Thread(target=self._run, name="reconcile", daemon=True)
        self._watch = Watch(controller.names, self.note)

    # -- life ---------------------------------------------------------------------------------------------------------

    def start_up(self) -> None:
        """Before requests are served: what an earlier run, or a reboot, has left is brought in line with the store.

        Endpoints are mended afterwards, by the first pass. A switch that does not answer yet is no reason not to start.
        """
        controller = self._controller
        self._drop_dead()
        controller.load_rules()
        reach(Point.START_RULES)
        desired = self._desired()
        controller.switch.sweep_limits()
        controller.captures.sweep()
        controller.recover_limits()
        reach(Point.START_LIMITS)
        self._forwarding = self._look()
        if not self._forwarding:
            LOG.warning("ovs-vswitchd does not run: bridges and gateways are seen to when it does")
            self._owed = frozenset(desired.networks)
            self._show_routes(desired)
            self._restore_guards(desired)
            return
        actual = self._observe(())
        wrong = self._plan_networks(desired, actual)
        for network in desired.networks.values():
            if network.uuid not in wrong:
                controller.note_here(network)
        self._owed = frozenset(wrong)
        outcome = self._mend_networks(desired, wrong)
        reach(Point.START_NETWORKS)
        self._show_routes(desired)
        stale = [one for one in plan.strays(desired, actual) if one.remedy and one.kind is Kind.PORT_STRAY]
        if stale:
            controller.switch.del_ports([one.key for one in stale]).result(controller.settings.deadline)
            outcome = Outcome((*outcome.done, *stale), outcome.left)
        reach(Point.START_STRAYS)
        self._restore_guards(desired)
        reach(Point.START_GUARDS)
        controller.drop_remains()
        self._log(outcome)

    def _restore_guards(self, desired: Desired) -> None:
        """Have the switch hold containers to their own addresses, as it did before an earlier run, or it, ended."""
        controller = self._controller
        controller.spoofing.restore(desired.networks.values(), desired.endpoints, controller.switch.ports())

    def _show_routes(self, desired: Desired) -> None:
        """Bring back the routes that an earlier run had out of Docker's sight when it ended."""
        for network in desired.networks.values():
            try:
                self._controller.show_gateway_route(network)
            except OvsnetError as exc:  # of a gateway that is to be mended yet
                LOG.warning("the gateway's route of network %s may be hidden: %s", network.name, exc)

    def start(self) -> None:
        """Start to look after things."""
        self._running = True
        self.note("")
        self._controller.switch.watch(self.note)
        self._store.watch_tags(lambda: self.note(""))
        self._watch.start()
        self._thread.start()

    def stop(self) -> None:
        """Let a pass end that is under way."""
        self._watch.stop()
        with self._wake:
            self._running = False
            self._wake.notify()
        self._thread.join(timeout=self._controller.settings.deadline)

    def note(self, name: str) -> None:
        """Look at what has to do with the port, device or bridge of that name, in a moment; "" means at everything."""
        self._later(name, _SETTLE)

    def _run(self) -> None:
        timer = time.monotonic() + self._controller.settings.reconcile_interval
        next_look = time.monotonic() + _LOOK_SECONDS
        while True:
            with self._wake:
                now = time.monotonic()
                due = min((next_look, timer, *self._told.values()))
                if self._running and due > now:
                    self._wake.wait(due - now)
                if not self._running:
                    return
                now = time.monotonic()
                names = {name for name, when in self._told.items() if when <= now}
                for name in names:
                    del self._told[name]
            try:
                if next_look <= now:
                    next_look = now + _LOOK_SECONDS
                    if self._returned():
                        names.add("")
                if timer <= now:
                    names.add("")
                if "" in names:
                    timer = now + self._controller.settings.reconcile_interval
                    self._log(self._everything(patient=True))
                elif names:
                    self._log(self._some(names), but=self._reported)
            except OvsnetError as exc:
                LOG.warning("not everything could be looked at, which is tried again: %s", exc)
                self._later("", _AGAIN)
            except Exception:
                LOG.exception("looking after the host failed by a defect")

    def _returned(self) -> bool:
        """Whether ovs-vswitchd has come back since the last look."""
        before, self._forwarding = self._forwarding, self._look()
        if before and not self._forwarding:
            LOG.error("ovs-vswitchd does not run: what it forwards waits for it")
        elif self._forwarding and before is False:
            LOG.info("ovs-vswitchd runs again")
            return True
        return False

    def _look(self) -> bool:
        try:
            return self._controller.switch.forwarding(_ANSWER)
        except OvsnetError:
            return False

    # -- passes -------------------------------------------------------------------------------------------------------

    def differences(self) -> list[Action]:
        """Everything that differs, and nothing is touched. What a request that is under way looks like is left out."""
        with self._pass():
            first = {(one.action.kind, one.action.key): one.action.patience for one in self._all()}
            if not first:
                return []
            time.sleep(max([_SECOND_LOOK, *(one for one in first.values() if one <= _AGAIN)]))
            again = [one.action for one in self._all()]
            return [one for one in again if (one.kind, one.key) in first and self._ripe(one)]

    def reconcile(self) -> Outcome:
        """Mend everything that can be, at once."""
        self.differences()  # what has to be seen for a while is then
        outcome = self._everything(patient=False)
        self._log(outcome)
        return outcome

    def _pass(self) -> ExitStack:
        """One pass at a time, and none by replicas that nobody keeps current. DeadlineExceeded, Unavailable."""
        hint = "ask again when it is"
        if not self._store.ready:
            raise StateUnavailable("the OVSNet database is not reachable", hint=hint)
        if not self._controller.switch.ready:
            raise SwitchUnavailable("the Open_vSwitch database is not reachable", hint=hint)
        deadline = self._controller.settings.deadline
        if not self._passing.acquire(timeout=deadline):
            raise DeadlineExceeded(f"another reconciliation has not ended in {deadline:.0f} s", hint="ask again later")
        stack = ExitStack()
        stack.callback(self._passing.release)
        return stack

    def _all(self) -> list[Found]:
        """Everything that differs, with the repair of what concerns neither a network nor an endpoint; notes since when."""
        desired = self._desired()
        actual = self._observe(desired.endpoints, everything=True)
        desired = self._desired()  # what has gone meanwhile is not missed, nor what has come a stray
        found = [Found(one, self._act(one)) for one in plan.diff(desired, actual)]
        for finder in self._finders:
            found += finder()
        now = time.monotonic()
        self._since = {which: self._since.get(which, now) for which in ((x.action.kind, x.action.key) for x in found)}
        self._mender.forget(desired.endpoints)
        return found

    def _act(self, action: Action) -> Act | None:
        controller = self._controller
        if action.kind is Kind.RULES_WRONG:
            return controller.keep_rules
        if action.kind is Kind.PORT_STRAY and action.remedy:
            return lambda: self._discard(action.key)
        if action.kind is Kind.DEVICE_STRAY and action.remedy:
            return lambda: self._delete_device(action.key)
        return None

    def _everything(self, *, patient: bool) -> Outcome:
        with self._pass():
            self._drop_lost_spares()
            self._busy.clear()
            found = self._all()
            desired = self._desired()
            wrong: dict[str, list[Action]] = {}
            broken: set[str] = set()
            others: list[Found] = []
            left: list[Action] = []
            for one in found:
                action = one.action
                if not self._ripe(action):
                    self._later("", action.patience)
                elif not action.remedy or action.kind is Kind.ABANDONED:  # the reaper, and nobody else, removes that
                    left.append(action)
                elif action.kind in _OF_NETWORK:
                    wrong.setdefault(action.key, []).append(action)
                elif one.act is not None:
                    others.append(one)
                else:
                    broken.add(action.key)
            networks = self._mend_networks(desired, wrong, patient=patient)
            endpoints = self._mend_endpoints([one for one in desired.endpoints if one.key in broken], patient=patient)
            done = [*networks.done, *endpoints.done]
            left += [*networks.left, *endpoints.left]
            left += [one.action for one in found if one.action.key in self._busy]
            for one in others:
                if patient and not self._may_try(one.action):
                    left.append(one.action)
                elif one.act is not None:
                    failed = self._try(one.action, one.act)
                    (left if failed else done).append(failed or one.action)
            return Outcome(tuple(done), tuple(dict.fromkeys(left)))

    def _some(self, names: Collection[str]) -> Outcome:
        """A pass over what has to do with these ports, devices and bridges."""
        desired = self._desired()
        endpoints = [one for one in desired.endpoints if one.port in names]
        networks = {
            uuid: one
            for uuid, one in desired.networks.items()
            if uuid in desired.here and (one.bridge in names or self._controller.names.gateway(uuid) in names)
        }
        spares = self._controller.ports.shelved().intersection(names)
        if not endpoints and not networks and not spares:
            return Outcome((), ())
        with self._pass():
            if spares:
                self._drop_lost_spares(spares)
            mended = Outcome((), ())
            if networks:
                few = replace(desired, networks=networks)
                gateways = [self._controller.names.gateway(uuid) for uuid in networks]
                wrong = self._plan_networks(few, self._observe((), only=gateways))
                mended = self._mend_networks(few, wrong, patient=True)
            rest = self._mend_endpoints(endpoints, patient=True)
            return Outcome((*mended.done, *rest.done), (*mended.left, *rest.left))

    # -- looking ------------------------------------------------------------------------------------------------------

    def _desired(self) -> Desired:
        settings = self._controller.settings
        endpoints = tuple(one for one in self._store.endpoints() if one.node == settings.node)
        return Desired(
            networks={one.uuid: one for one in self._store.networks()},
            here=self._controller.here() | self._owed | {one.network for one in endpoints},
            endpoints=endpoints,
            names=self._controller.names,
            deadline=settings.deadline,
        )

    def _observe(
        self, endpoints: Iterable[Endpoint], *, everything: bool = False, only: Collection[str] | None = None
    ) -> Actual:
        """What there is, for these endpoints; with `everything`, of the packet filter too.

        Given the names of the `only` ports and devices that matter, if they are few: of hundreds a look at all takes long.
        """
        controller = self._controller
        if only is not None and len(only) > _FEW:
            only = None
        endpoints = tuple(endpoints)
        limits = ingress_limits(endpoints)
        limited = controller.limits.in_force(limits) if limits else frozenset()
        # What keeps a stray from being one comes first: it may be taken off the shelf meanwhile, and then it has an endpoint.
        shelved = controller.ports.shelved()
        state = controller.switch.state(only)
        devices = self._devices(only)
        return Actual(
            switch=state,
            devices=devices,
            sandboxes={one.uuid: self._sandbox(one) for one in endpoints},
            forwarding=self._look(),
            limited=limited,
            shelved=shelved,
            filtered=not everything or controller.filtered(),
        )

    def _devices(self, only: Collection[str] | None) -> dict[str, LinkInfo]:
        links = self._controller.links
        found = links.links("") if only is None else filter(None, map(links.link, only))
        return {one.name: one for one in found}

    def _sandbox(self, endpoint: Endpoint) -> Sandbox:
        if not endpoint.sandbox:
            return Sandbox(Presence.NONE)
        links = self._controller.links
        try:
            with open_netns(endpoint.sandbox) as netns:
                if endpoint.origin is not Origin.DOCKER:
                    return Sandbox(Presence.HERE, links.link(endpoint.ifname, netns))
                link = links.link_on(endpoint.port, netns)
                self._mender.remember(endpoint, link)
                return Sandbox(Presence.HERE, link)
        except InvalidNetns as exc:
            return Sandbox(Presence.GONE, why=exc.message)

    # -- mending ------------------------------------------------------------------------------------------------------

    def _plan_networks(self, desired: Desired, actual: Actual) -> dict[str, list[Action]]:
        """What differs of bridges and gateways and can be mended, by the network's uuid."""
        wrong: dict[str, list[Action]] = {}
        for network in desired.networks.values():
            for action in plan.of_network(network, actual, desired.names):
                if action.remedy:
                    wrong.setdefault(network.uuid, []).append(action)
        return wrong

    def _mend_networks(self, desired: Desired, wrong: dict[str, list[Action]], *, patient: bool = False) -> Outcome:
        done: list[Action] = []
        left: list[Action] = []
        for uuid, actions in wrong.items():
            network = desired.networks[uuid]
            if patient and not all(self._may_try(one) for one in actions):
                left += actions
                continue
            failed = self._try_all(actions, lambda network=network: self._controller.restore_network(network))  # type: ignore[misc]
            (left if failed else done).extend(failed or actions)
        return Outcome(tuple(done), tuple(left))

    def _mend_endpoints(self, endpoints: Sequence[Endpoint], *, patient: bool) -> Outcome:
        done: list[Action] = []
        left: list[Action] = []
        for begin in range(0, len(endpoints), _CHUNK):
            with ExitStack() as held:
                mine = self._hold(endpoints[begin : begin + _CHUNK], held, patient=patient)
                if mine:
                    outcome = self._mend_held(mine, patient=patient)
                    done += outcome.done
                    left += outcome.left
        return Outcome(tuple(done), tuple(left))

    def _hold(self, endpoints: Sequence[Endpoint], held: ExitStack, *, patient: bool) -> list[Endpoint]:
        """Lock those that nobody is busy with, and read them again; the others are looked at later.

        Who asks for it does not wait for CNI's to settle, but Docker goes on after its call.
        """
        mine = []
        for one in endpoints:
            try:
                held.enter_context(self._controller.endpoint_lock(one, 0))
            except DeadlineExceeded:
                self._leave(one)
                continue
            present = self._store.find_endpoint(one.key)
            if present is None or present.uuid != one.uuid:
                continue
            if (patient or one.origin is Origin.DOCKER) and not self._controller.settled(one.key):
                self._leave(one)
                continue
            mine.append(present)
        return mine

    def _leave(self, endpoint: Endpoint) -> None:
        """To whoever is changing it now; it is looked at again later."""
        self._busy.add(endpoint.key)
        self._later(endpoint.port, _AGAIN)

    def _mend_held(self, endpoints: Sequence[Endpoint], *, patient: bool) -> Outcome:
        networks = {one.uuid: one for one in self._store.networks()}
        actual = self._observe(endpoints, only=[name for one in endpoints for name in (one.port, one.link)])
        done: list[Action] = []
        left: list[Action] = []
        remade: dict[str, tuple[Endpoint, list[Action]]] = {}
        for endpoint in endpoints:
            network = networks.get(endpoint.network)
            for action in plan.of_endpoint(endpoint, network, actual) if network else ():
                if not self._ripe(action):  # a pass over everything tells it then
                    continue
                if not action.remedy or (patient and not self._may_try(action)):
                    left.append(action)
                elif action.kind in _REMAKE:
                    remade.setdefault(endpoint.uuid, (endpoint, []))[1].append(action)
                elif network is not None:
                    sandbox = actual.sandboxes[endpoint.uuid]
                    failed = self._try(action, self._repair(action, endpoint, network, sandbox))
                    (left if failed else done).append(failed or action)
        if remade:
            lost = [endpoint for endpoint, _ in remade.values()]
            errors = self._mender.new_ports(lost, networks, actual.sandboxes)
            for uuid, (_, actions) in remade.items():
                failed_all = self._tried(actions, errors[uuid])
                (left if failed_all else done).extend(failed_all or actions)
        return Outcome(tuple(done), tuple(left))

    def _repair(self, action: Action, endpoint: Endpoint, network: Network, sandbox: Sandbox) -> Act:
        mender = self._mender
        if action.kind in (Kind.PORT_WRONG, Kind.PORT_UNMARKED):
            return lambda: mender.mark(endpoint, network)
        if action.kind is Kind.DEVICE_WRONG:
            return lambda: mender.prepare(endpoint, network)
        if action.kind is Kind.LIMIT_WRONG:
            return lambda: mender.limit(endpoint)
        return lambda: mender.plug(endpoint, network, sandbox)

    def _discard(self, port: str) -> None:
        self._controller.ports.discard(port)
        reach(Point.REPAIR_STRAY)

    def _delete_device(self, name: str) -> None:
        self._controller.links.delete_device(name)

    def _stray_leases(self) -> Iterable[Found]:
        """Addresses of endpoints that do not exist: they are written together, so that there are none in the making."""
        for pool, lease in self._store.stray_leases():
            action = Action(
                Kind.LEASE_STRAY,
                Where.STORE,
                f"address {lease.address} of pool {pool.name}",
                f"is leased to {lease.owner}, which does not exist",
                "release it",
                f"{pool.uuid}/{lease.address}",
            )

            def release(pool=pool, lease=lease) -> None:  # type: ignore[no-untyped-def]
                self._store.release(pool, lease.address, {OwnerKind.ENDPOINT}, owner=lease.owner, by="repair")
                reach(Point.REPAIR_LEASE)

            yield Found(action, release)

    def _stray_limits(self) -> Iterable[Found]:
        """What is left of limits when they were to end. An endpoint is in the store before its port is limited."""
        limited = self._controller.limits.devices()
        if not limited:
            return
        for device in limited - ingress_limits(self._desired().endpoints).keys():
            reason = "is limited in what it receives, though nothing wants that"
            action = Action(
                Kind.LIMIT_WRONG, Where.FILTER, f"device {device}", reason, "limit it no more", device, _SECOND_LOOK
            )
            yield Found(action, lambda device=device: self._controller.limits.remove([device]))  # type: ignore[misc]

    def _drop_lost_spares(self, only: Collection[str] | None = None) -> None:
        """A request would take them for good."""
        controller = self._controller
        controller.ports.follow(self._store.networks())
        shelved = controller.ports.shelved()
        if only is not None:
            shelved &= frozenset(only)
        looked_at = None if len(shelved) > _FEW else shelved
        if lost := shelved - (controller.switch.state(looked_at).ports.keys() & self._devices(looked_at).keys()):
            controller.ports.lost(lost)

    # -- patience -----------------------------------------------------------------------------------------------------

    def _ripe(self, action: Action) -> bool:
        """Whether something has been seen for long enough."""
        since = self._since.get((action.kind, action.key))
        return not action.patience or (since is not None and time.monotonic() - since >= action.patience)

    def _later(self, name: str, seconds: float) -> None:
        with self._wake:
            when = time.monotonic() + seconds
            self._told[name] = min(self._told.get(name, when), when)
            self._wake.notify()

    def _may_try(self, action: Action) -> bool:
        """Whether it is not too early for one more repair of what does not stay mended."""
        tries, last = self._tries.get((action.kind, action.key), (0, 0.0))
        left = last + _PAUSES[min(tries, len(_PAUSES) - 1)] - time.monotonic()
        if left > 0:
            self._later("", left)
        return left <= 0

    def _try(self, action: Action, act: Act) -> Action | None:
        failed = self._try_all([action], act)
        return failed[0] if failed else None

    def _try_all(self, actions: Sequence[Action], act: Act) -> list[Action]:
        """Repair; if that fails, the actions with the reason why."""
        try:
            act()
        except OvsnetError as exc:
            return self._tried(actions, exc)
        return self._tried(actions, None)

    def _tried(self, actions: Sequence[Action], error: OvsnetError | None) -> list[Action]:
        """Note a repair, for the pause before the next one; the actions with the reason, if it failed."""
        now = time.monotonic()
        for one in actions:
            self._count(one.kind, OK if error is None else error.code)
        for which in ((one.kind, one.key) for one in actions):
            tries, last = self._tries.get(which, (0, now))
            self._tries[which] = (1 if now - last > _STEADY else tries + 1, now)
        self._tries = {which: (tries, last) for which, (tries, last) in self._tries.items() if now - last <= _STEADY}
        if error is None:
            return []
        self._later("", _AGAIN)
        return [replace(one, reason=f"{one.reason}; mending failed: {error}") for one in actions]

    def _log(self, outcome: Outcome, but: frozenset[str] = frozenset()) -> None:
        """Tell of each repair, and once of what stays as it is; `but` stays told, whatever the outcome is."""
        for action in outcome.done:
            LOG.warning("%s: %s", action, action.remedy)
        left = {f"{one}: {one.remedy or 'nothing is done'}": one for one in outcome.left}
        for text in sorted(left.keys() - self._reported):
            LOG.warning("%s", text)
            if not left[text].remedy:  # a repair that failed was counted as one
                self._count(left[text].kind, None)
        self._reported = but.union(left)

    # -- boot ---------------------------------------------------------------------------------------------------------

    def _drop_dead(self) -> None:
        """After a reboot of the host: nothing that CNI has attached lives, and its addresses are free.

        Docker replays the addresses that it holds and takes back those of dead containers itself: these stay.
        """
        settings = self._controller.settings
        try:
            boot = settings.boot_id_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as exc:
            LOG.warning("whether the host was rebooted cannot be told: %s", exc)
            return
        known = self._store.boot()
        if known == boot:
            return
        if known:
            dead = [one for one in self._desired().endpoints if one.origin is not Origin.DOCKER]
            for pending in [self._store.detach_soon(one.uuid, by="reboot") for one in dead]:
                pending.result()
            reach(Point.START_DEAD)
            addresses = self._controller.addresses.drop_all()
            reach(Point.START_FORGOTTEN)
            LOG.warning(
                "the host was rebooted: %d attachments and %d other addresses have ended with it", len(dead), addresses
            )
        self._store.set_boot(boot)  # last: a crash before it repeats all this

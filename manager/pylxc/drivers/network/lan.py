"""A bridge on the host's own network: over one of its interfaces, whose addresses and routes it takes over.

The change cuts the host off from its network when it goes wrong, so it is a trial first: journal, watchdog, the move, a
look whether the gateway answers, the host's own configuration, and only then the word that it stays.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pylxc.config.network import BRIDGE
from pylxc.drivers.network import host, host_clients, host_files, lan_check, lan_journal, lan_link, lan_state
from pylxc.drivers.network.driver import Host, Lease
from pylxc.drivers.network.firewall import Firewall
from pylxc.drivers.network.lan_journal import Journal
from pylxc.drivers.network.lan_link import Facts
from pylxc.drivers.network.lan_state import State
from pylxc.drivers.network.lan_watch import Watchdog
from pylxc.drivers.network.passage import Way
from pylxc.errors import BadRequest, NotFound, Unavailable, from_os
from pylxc.kernel.netlink import Netlink

log = logging.getLogger(__name__)

PARENT, PERSIST, CHECK, TIMEOUT = "lan.interface", "lan.persist", "lan.check", "lan.timeout"
_FAMILIES = ("ipv4", "ipv6")
_FIXED = {"ipv4.address": "none", "ipv6.address": "none"}
_GRACE_SECONDS = 30.0
"""How much longer the watchdog waits than the daemon, which undoes a failed trial itself."""
_SECOND_SECONDS = 10.0
"""How long at least there may be no answer once the host's own programs have been told."""
_ADDRESS_SECONDS = 10.0


class LanDriver:
    """A bridge on the host's network; see `NetworkDriver`. DHCP and DNS there are others' business.

    Args:
        name: of the network and of its interface.
        directory: where its files are.
        netlink: of the host.
        firewall: of the daemon.
    """

    def __init__(self, name: str, directory: str, netlink: Netlink, firewall: Firewall) -> None:
        self.name = name
        self._directory = directory
        self._journal = f"{directory}/lan.journal"
        self._record = f"{directory}/lan.json"
        self._trial: lan_check.Trial | None = None
        self._firewall = firewall
        del netlink  # what has to work without the daemon works without pyroute2

    def complete(self, config: Mapping[str, str], taken: list[str]) -> dict[str, str]:
        """See `NetworkDriver`. Addresses are the host's, so no subnet is chosen."""
        del taken
        BRIDGE.validate(config)
        new = {key: value for key, value in config.items() if value != ""}
        parent = new[PARENT]
        new = _FIXED | {"bridge.external_interfaces": parent} | new
        for key, value in new.items():
            if key.startswith("user.") or key in (PARENT, PERSIST, CHECK, TIMEOUT):
                continue
            if key == "bridge.external_interfaces" and value != parent:
                raise BadRequest(f"{key} of a network with {PARENT}={parent} is {parent}")
            if key in _FIXED and value != "none":
                raise BadRequest(f"{key} of a network with {PARENT} is none: its addresses are those of {parent}")
            if key not in _FIXED and key != "bridge.external_interfaces":
                raise BadRequest(f"{key} has no effect on a network with {PARENT}: the machines on it are not pylxc's")
        record = self._read_record()
        if not record:
            lan_link.check_parent(parent)
        elif BRIDGE.is_true(new, PERSIST) != record["persist"]:
            raise BadRequest(f"{PERSIST} cannot be changed", hint="delete the network and make it again")
        return new

    # Life

    def start(self, config: Mapping[str, str]) -> None:
        """See `NetworkDriver`. On the first time, and after a reboot, it moves the host's addresses to the bridge.

        Raises:
            Unavailable: the gateway does not answer over it; all is as it was before.
            PylxcError: it cannot be made, or the host's configuration is in the way; all is as it was before.
        """
        if lan_journal.undo(self._journal):
            log.warning("Network %s: undid what was cut off", self.name)
        self._bring_up(config)
        # Not needed for the host itself: what cannot be done here must not undo what is there.
        try:
            self._firewall.put("network", self.name, (), Way(interface=self.name, families=_FAMILIES, bridged=True))
        except Unavailable as error:
            log.warning("Network %s: cannot see to other firewalls: %s", self.name, error)

    def _bring_up(self, config: Mapping[str, str]) -> None:
        links = lan_link.links()
        bridge, parent = links.get(self.name), links.get(config[PARENT])
        if bridge is not None:
            if bridge.kind != "bridge":
                raise Unavailable(f"An interface named {self.name!r} is there, and is no bridge")
            if parent is not None and not parent.master:
                lan_link.put_into(parent, bridge)
            return
        try:
            self._make(config)
        except OSError as error:
            raise from_os(error) from error

    def confirm(self) -> None:
        """Keep a bridge that is on trial, whoever answers.

        Raises:
            NotFound: it is not on trial.
        """
        trial = self._trial
        if trial is None:
            raise NotFound(f"Network {self.name!r} does not wait to be confirmed")
        trial.confirmed.set()

    def _make(self, config: Mapping[str, str]) -> None:
        record = self._read_record()
        parent = lan_link.check_parent(config[PARENT])
        state = _capture(parent, patient=bool(record.get("addresses")))
        check = BRIDGE.is_true(config, CHECK)
        plan = self._plan(parent, state, config, record)
        peers = lan_check.before(state) if check and _has_address(state) else None
        if record and peers and not peers.addresses:
            peers = None  # nobody answers at the host's start; it was confirmed when it was made
        os.makedirs(self._directory, mode=0o711, exist_ok=True)
        journal = Journal(
            bridge=self.name,
            parent=parent.name,
            was_up=parent.is_up,
            state=state,
            written=host_files.hashes(plan.texts),
            reload=plan.reload,
            clients=_commands(plan.clients),
        )
        watchdog: Watchdog | None = None
        seconds = float(BRIDGE.value(config, TIMEOUT))
        try:
            lan_journal.write(self._journal, journal)
            watchdog = Watchdog(self._journal, seconds + _GRACE_SECONDS)
            self._trial = lan_check.Trial(self.name, parent.name, seconds)
            self._try(parent, state, plan, peers, self._trial)
            if not record.get("persist"):
                self._write_record(journal, persist=BRIDGE.is_true(config, PERSIST))
            if not lan_journal.keep(self._journal):
                raise Unavailable(f"The watchdog has undone network {self.name!r}: it took too long")
        except BaseException:
            lan_journal.undo(self._journal)
            raise
        finally:
            self._trial = None
            if watchdog is not None:
                watchdog.close()

    def _plan(self, parent: Facts, state: State, config: Mapping[str, str], record: Mapping[str, Any]) -> host.Plan:
        if record.get("persist"):  # the host's configuration has the bridge already; somebody took it away since
            return host.Plan(texts={}, reload=(), clients=tuple(host_clients.find(parent.name)))
        check = BRIDGE.is_true(config, CHECK) and not record
        return host.plan(self.name, parent, state, persist=BRIDGE.is_true(config, PERSIST), check=check)

    def _try(
        self, parent: Facts, state: State, plan: host.Plan, peers: lan_check.Peers | None, trial: lan_check.Trial
    ) -> None:
        bridge = lan_link.add_bridge(self.name, parent)
        with lan_state.without_detection(bridge.index, bridge.name):
            lan_link.put_into(parent, bridge)
            lan_state.put(state, bridge.index, bridge.name)
            lan_state.clear(parent.index, parent.name)
            lan_state.put(state, bridge.index, bridge.name)  # routes that went with an address of the interface
        if peers is not None:
            lan_check.wait(peers, bridge.index, trial)
        if not (plan.texts or plan.clients):
            return
        host_files.write(plan.texts, lan_journal.copies(self._journal))
        lan_journal.reload(plan.reload)
        for client in plan.clients:
            host_clients.end(client, parent.name)
            host_clients.start(host_clients.moved(client, parent.name, self.name))
        lan_state.clear(parent.index, parent.name)  # what a client did there meanwhile
        if peers is not None:
            trial.deadline = max(trial.deadline, time.monotonic() + _SECOND_SECONDS)
            lan_check.wait(peers, bridge.index, trial)

    def stop(self) -> None:
        """See `NetworkDriver`. The bridge stays: the host itself is on the network by it."""

    def delete(self) -> None:
        """See `NetworkDriver`. Everything that is on the bridge now moves to the interface."""
        if not lan_journal.undo(self._journal):
            self._give_back()
        with contextlib.suppress(Unavailable):
            self._firewall.remove("network", self.name)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _give_back(self) -> None:
        record = self._read_record()
        bridge = lan_link.links().get(self.name)
        if not record:
            return  # it was never made
        parent = record["parent"]
        state = (
            lan_state.capture(bridge.index, bridge.name)
            if bridge is not None
            else State(index=0, name=self.name, taken=0.0, addresses=(), routes=(), neighbours=())
        )
        clients = [host_clients.moved(client, self.name, parent) for client in host_clients.find(self.name)]
        journal = Journal(
            bridge=self.name,
            parent=parent,
            was_up=record["was_up"],
            state=state,
            written=record["written"],
            reload=tuple(tuple(words) for words in record["reload"]),
            clients=_commands(tuple(clients)),
        )
        lan_journal.write(self._journal, journal)
        watchdog = Watchdog(self._journal, _GRACE_SECONDS)
        try:
            lan_journal.undo(self._journal)
        finally:
            watchdog.close()

    def _read_record(self) -> dict[str, Any]:
        try:
            return lan_journal.load(self._record)
        except FileNotFoundError:
            return {}

    def _write_record(self, journal: Journal, *, persist: bool) -> None:
        record = {
            "parent": journal.parent,
            "was_up": journal.was_up,
            "written": journal.written,
            "reload": journal.reload,
            "addresses": [address.address for address in journal.state.readable() if not address.link_local],
            "persist": persist,
        }
        lan_journal.save(self._record, record)

    # Hosts and leases: the network's own DHCP server knows them

    def set_host(self, key: str, host: Host) -> None:
        """See `NetworkDriver`."""

    def forget_host(self, key: str) -> None:
        """See `NetworkDriver`."""

    def hosts(self) -> dict[str, Host]:
        """See `NetworkDriver`."""
        return {}

    def leases(self) -> list[Lease]:
        """See `NetworkDriver`."""
        return []

    def release(self, hwaddr: str) -> None:
        """See `NetworkDriver`."""

    def pidfd(self) -> int | None:
        """See `NetworkDriver`."""
        return None


def _has_address(state: State) -> bool:
    return any(not address.link_local for address in state.readable())


def _capture(parent: Facts, *, patient: bool) -> State:
    """Return what an interface has; at the host's start its DHCP client may need a moment more."""
    deadline = time.monotonic() + (_ADDRESS_SECONDS if patient else 0)
    while True:
        state = lan_state.capture(parent.index, parent.name)
        if _has_address(state) or time.monotonic() >= deadline:
            return state
        time.sleep(0.2)


def _commands(clients: tuple[host_clients.Client, ...]) -> tuple[host_clients.Client, ...]:
    """Return clients as a journal keeps them: without their pids, which end with this boot."""
    return tuple(replace(client, pid=0) for client in clients)

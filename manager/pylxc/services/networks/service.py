"""Networks: rows, the drivers behind them, and the host's own interfaces beside them."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from urllib.parse import quote

from sqlalchemy.exc import IntegrityError

from pylxc import validate
from pylxc.db import models, networks, projects
from pylxc.db.engine import Database
from pylxc.drivers.network import lan, registry, subnet
from pylxc.drivers.network.driver import Host, NetworkDriver
from pylxc.drivers.network.firewall import Firewall
from pylxc.errors import BadRequest, Conflict, NotFound, PylxcError
from pylxc.kernel.netlink import Netlink
from pylxc.paths import Paths, storage_name
from pylxc.revert import Reverter
from pylxc.runtime.keeper import Keeper
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.networks import leases
from pylxc.services.networks.forwards import Forwards
from pylxc.services.networks.guard import Guard
from pylxc.services.networks.interfaces import Interfaces
from pylxc.services.networks.redirects import Redirects
from pylxc.services.networks.render import Users, tagged, unmanaged, urls
from pylxc.services.networks.scope import Scope
from pylxc.services.projects import admission, restrictions
from pylxc.wire.networks import Network, NetworkLease, NetworkState

log = logging.getLogger(__name__)

NetworkList = list[Network]  # inside the class `list` is its method
Names = list[str]
Leases = list[NetworkLease]


_LAN = "lan"
"""The built-in profile that names br0 whether there is one or not."""


class Networks:
    """Managed networks, and the host's interfaces as networks that are not managed."""

    def __init__(self, db: Database, paths: Paths, events: EventBus) -> None:
        self._db = db
        self._paths = paths
        self._events = events
        self.netlink = Netlink()
        self.firewall = Firewall(paths.root)
        self.redirects = Redirects(self.firewall)
        self._interfaces = Interfaces(self.netlink)
        self._drivers: dict[str, NetworkDriver] = {}
        self._broken: dict[str, str] = {}
        self._changing = threading.RLock()
        self.forwards = Forwards(db, self.redirects, events, self._changing)
        self._promised: dict[tuple[str, str], dict[str, str]] = {}
        self._keeper: Keeper | None = None
        self._guard: Guard | None = None

    # Life of the service

    def start(self) -> None:
        """Bring the networks up, finish or undo what was cut off; a network that fails is shown as unavailable."""
        os.makedirs(self._paths.networks, mode=0o711, exist_ok=True)
        os.chmod(self._paths.networks, 0o711)  # noqa: S103 - dnsmasq's user passes through
        self._keeper = Keeper("network", self._restart)
        with self._db.reading() as session:
            unsettled = networks.unsettled(session)
            rows = networks.everything(session)
            known = {_host_key(*nic) for nic in networks.nics(session)}
        with self._changing:
            self.firewall.sweep("network", {row.name for row in (*unsettled, *rows)})
            for row in unsettled:
                log.info("Removing network %s that was left half made or half deleted", row.name)
                try:
                    self._remove(row)
                except (PylxcError, OSError) as error:
                    log.warning("Failed removing network %s, the next start tries again: %s", row.name, error)
            for row in rows:
                try:
                    self._bring_up(row)
                except (PylxcError, OSError) as error:
                    log.warning("Network %s cannot be used: %s", row.name, error)
                    self._broken[row.name] = str(error)
                    continue
                try:
                    self._forget_strangers(self._driver(row), known)
                except OSError as error:
                    log.warning("Failed clearing network %s of instances that are gone: %s", row.name, error)
            self.forwards.start()
        try:
            self._guard = Guard(self.firewall.restore)
        except OSError as error:
            log.warning("Cannot see changes of the firewall's rules: %s", error)

    def _forget_strangers(self, driver: NetworkDriver, known: set[str]) -> None:
        for key, host in driver.hosts().items():
            if key not in known:
                driver.release(host.hwaddr)
                driver.forget_host(key)

    def stop(self) -> None:
        """Take every network down, for the host to go down; the next start brings them up again."""
        self._close_watchers()
        with self._db.reading() as session:
            rows = networks.everything(session)
        with self._changing:
            self.forwards.stop()
            for row in rows:
                try:
                    self._driver(row).stop()
                except (PylxcError, OSError) as error:
                    log.warning("Failed taking network %s down: %s", row.name, error)

    def close(self) -> None:
        """End what the daemon holds; the networks stay up."""
        self._close_watchers()
        self.netlink.close()

    def _close_watchers(self) -> None:
        for watcher in (self._keeper, self._guard):
            if watcher is not None:
                watcher.close()
        self._keeper = self._guard = None

    def _restart(self, name: str) -> int | None:
        with self._changing:
            with self._db.reading() as session:
                row = networks.find(session, name)
            if row is None:
                return None
            driver = self._driver(row)
            driver.start(row.config)
            log.warning("The helper of network %s had died and was started again", name)
            return driver.pidfd()

    def _bring_up(self, row: models.Network) -> None:
        driver = self._driver(row)
        driver.start(row.config)
        self._broken.pop(row.name, None)
        if self._keeper is not None:
            self._keeper.watch(row.name, driver.pidfd())

    def _driver(self, row: models.Network) -> NetworkDriver:
        driver = self._drivers.get(row.name)
        if driver is None:
            directory = self._paths.network(row.name)
            driver = registry.load(row.type, row.name, row.config, directory, self.netlink, self.firewall)
            self._drivers[row.name] = driver
        return driver

    # Reading

    def list(self, project: str = "default") -> NetworkList:
        """Return the managed networks and unmanaged interfaces that a project sees, by name; raises NotFound for it."""
        with self._db.reading() as session:
            scope, rows = Scope(session, project), networks.everything(session)
            users = networks.users(session)
        found = [self._render(row, users.get(row.name, [])) for row in rows if scope.sees(row)]
        managed = {row.name for row in rows}
        for name, kind in self._interfaces.unmanaged():
            if name not in managed and scope.sees_interface(name):
                found.append(unmanaged(name, kind, users.get(name, [])))
        return sorted(found, key=lambda network: network["name"])

    def names(self, project: str = "default") -> Names:
        """Return the names of what `list` returns."""
        with self._db.reading() as session:
            scope, rows = Scope(session, project), networks.everything(session)
        managed = {row.name for row in rows}
        others = {name for name, _ in self._interfaces.unmanaged() if scope.sees_interface(name)}
        return sorted({row.name for row in rows if scope.sees(row)} | (others - managed))

    def get(self, name: str, project: str = "default") -> Network:
        """Return a managed network or an unmanaged interface that a project sees; raises NotFound."""
        with self._db.reading() as session:
            scope, row = Scope(session, project), networks.find(session, name)
            users = networks.users(session).get(name, [])
        if row is not None and scope.sees(row):
            return self._render(row, users)
        for interface, kind in self._interfaces.unmanaged() if row is None else ():
            if interface == name and scope.sees_interface(name):
                return unmanaged(name, kind, users)
        raise NotFound("Network not found")

    def etag(self, network: Network) -> str:
        """Return the tag of a network as it was read."""
        return etag.etag(*tagged(network))

    def _render(self, row: models.Network, users: Users) -> Network:
        return {
            "config": row.config,
            "description": row.description,
            "name": row.name,
            "type": row.type,
            "used_by": urls(users),
            "managed": True,
            "status": "Unavailable" if row.name in self._broken else "Created",
            "locations": ["none"],
        }

    def state(self, name: str, project: str = "default") -> NetworkState:
        """Return how an interface or a managed network's bridge is now; raises NotFound."""
        with self._db.reading() as session:
            scope, row = Scope(session, project), networks.find(session, name)
        if not (scope.sees_interface(name) if row is None else scope.sees(row)):
            raise NotFound("Network not found")
        return self._interfaces.state(name)

    def leases(self, name: str, project: str = "default") -> Leases:
        """Return the addresses that are in use on a managed network: static, dynamic, and the gateway's own."""
        with self._db.reading() as session:
            row = Scope(session, project).get(session, name)
        driver = self._driver(row)
        return leases.listed(name, row.config, driver.hosts().values(), driver.leases())

    # Changing

    def create(
        self,
        name: str,
        kind: str = "bridge",
        config: Mapping[str, str] | None = None,
        description: str = "",
        project: str = "default",
    ) -> Network:
        """Make a managed network and bring it up.

        Raises:
            NotFound: there is no such project.
            BadRequest: a malformed name, an unknown type or key, a subnet that is in use.
            Conflict: the name is taken, by a network or by an interface, of whatever project.
            Forbidden: the project does not allow it.
            Unavailable: nft or dnsmasq is missing, or the kernel refuses.
        """
        validate.interface_name(name)
        directory = self._paths.network(name)
        driver = registry.load(kind or "bridge", name, config or {}, directory, self.netlink, self.firewall)
        with self._changing, Reverter() as revert:
            with self._db.reading() as session:
                scope = Scope(session, project)
                restrictions.check_network(scope.restrictions, config or {})
                if networks.find(session, name):
                    raise Conflict("The network already exists")
            link = self.netlink.find(name)
            # A bridge that this server has files of is its own, of a database that was lost; guests may be on it.
            if link and not (link.kind == "bridge" and os.path.isdir(directory)):
                raise Conflict(f"An interface named {name!r} exists already")
            complete = driver.complete(config or {}, self._taken(name))
            row = self._add(scope.project, name, kind or "bridge", complete, description)
            revert.add(self._remove, row)
            self._bring_up(row)
            with self._db.transaction() as session:
                session.get_one(models.Network, row.id).state = "created"
            revert.success()
        self._events.lifecycle("network-created", f"/1.0/networks/{quote(name)}", project=scope.project)
        return self.get(name, project)

    def _add(self, owner: str, name: str, kind: str, config: dict[str, str], description: str) -> models.Network:
        try:
            with self._db.transaction() as session:
                project = projects.get(session, owner)
                row = models.Network(project=project, name=name, type=kind, config=config, description=description)
                session.add(row)
                admission.check(session, project)
        except IntegrityError:
            raise Conflict("The network already exists") from None
        return row

    def _taken(self, name: str) -> Names:
        """Return the subnets that network `name` must keep clear of."""
        with self._db.reading() as session:
            others = [row.config for row in networks.everything(session) if row.name != name]
        configured = [
            config[key] for config in others for key in ("ipv4.address", "ipv6.address") if "/" in config.get(key, "")
        ]
        return configured + subnet.in_use(self.netlink, but_for=name)

    def update(
        self,
        name: str,
        config: Mapping[str, str] | None,
        description: str | None,
        *,
        project: str = "default",
        patch: bool = False,
        if_match: str | None = None,
    ) -> None:
        """Replace a network's configuration and description, with `patch` only what is given; acts at once.

        Raises:
            NotFound: the project has no such network.
            BadRequest: an unknown or malformed key, a subnet that is in use.
            Forbidden: the project does not allow it.
            PreconditionFailed: `if_match` is of another state.
            Unavailable: the change cannot be made; the network is as it was.
        """
        with self._changing:
            with self._db.reading() as session:
                scope = Scope(session, project)
                row = scope.get(session, name)
            etag.check(if_match, *tagged(self._render(row, [])))
            wanted = {**(row.config if patch else {}), **(config or {})}
            restrictions.check_network(scope.restrictions, wanted)
            hwaddr = row.config.get("volatile.bridge.hwaddr", "")
            if hwaddr:
                wanted["volatile.bridge.hwaddr"] = hwaddr
            if wanted.get(lan.PARENT) != row.config.get(lan.PARENT):
                raise BadRequest(f"{lan.PARENT} cannot be changed", hint="delete the network and make it again")
            driver = self._driver(row)
            new = driver.complete(wanted, self._taken(name))
            with Reverter() as revert:
                revert.add(self._bring_up, row)
                revert.add(self.forwards.fit, row, row.config)
                self.forwards.fit(row, new)
                changed = models.Network(name=name, type=row.type, config=new)
                self._bring_up(changed)
                with self._db.transaction() as session:
                    stored = networks.get(session, name)
                    stored.config = new
                    if description is not None or not patch:
                        stored.description = description or ""
                revert.success()
        self._events.lifecycle("network-updated", f"/1.0/networks/{quote(name)}", project=scope.project)

    def confirm(self, name: str, project: str = "default") -> None:
        """Keep a bridge over the host's own interface that is being made and waits for an answer of the gateway.

        Raises:
            NotFound: none of that name waits.
        """
        with self._db.reading() as session:
            scope = Scope(session, project)
            rows = (*networks.everything(session), *networks.unsettled(session))
        driver = self._drivers.get(name)
        if not any(row.name == name and scope.sees(row) for row in rows) or not isinstance(driver, lan.LanDriver):
            raise NotFound(f"Network {name!r} does not wait to be confirmed")
        driver.confirm()

    def rename(self, name: str, new: str, project: str = "default") -> None:
        """Give a network that nothing uses another name.

        Raises:
            BadRequest: a malformed name, or the network is used.
            Conflict: the new name is taken.
        """
        validate.interface_name(new)
        with self._changing, Reverter() as revert:
            with self._db.reading() as session:
                row = Scope(session, project).get(session, name)
                if networks.users(session).get(name):
                    raise BadRequest("The network is currently in use")
                taken = networks.find(session, new) is not None
            if taken or self.netlink.find(new):
                raise Conflict(f"A network or interface named {new!r} exists already")
            revert.add(self._bring_up, row)
            self._stop(row)
            with self._db.transaction() as session:
                session.get_one(models.Network, row.id).name = new
            revert.success()
            with self._db.reading() as session:
                self._bring_up(networks.get(session, new))
        self._events.lifecycle(
            "network-renamed", f"/1.0/networks/{quote(new)}", project=row.project.name, context={"old_name": name}
        )

    def delete(self, name: str, project: str = "default") -> None:
        """Take a network down and forget it.

        Raises:
            NotFound: the project has no such managed network.
            BadRequest: an instance or a profile uses it.
        """
        with self._changing:
            with self._db.transaction() as session:
                row = Scope(session, project).get(session, name)
                if networks.users(session, besides=_LAN).get(name):
                    raise BadRequest("The network is currently in use")
                row.state = "deleting"
            self._remove(row)
        self._events.lifecycle("network-deleted", f"/1.0/networks/{quote(name)}", project=row.project.name)

    def _stop(self, row: models.Network) -> None:
        if self._keeper is not None:
            self._keeper.watch(row.name, None)
        driver = self._driver(row)
        self._drivers.pop(row.name, None)
        self._broken.pop(row.name, None)
        driver.delete()

    def _remove(self, row: models.Network) -> None:
        self.forwards.drop(row)
        self._stop(row)
        with self._db.transaction() as session:
            found = session.get(models.Network, row.id)
            if found is not None:
                session.delete(found)

    # For instances' NICs

    def attachable(self, name: str, project: str) -> Network:
        """Return a managed network that a NIC of an instance or a profile of a project may be put on.

        Raises:
            NotFound: the project has no such managed network.
            Unavailable: it could not be brought up; it is tried once more.
        """
        with self._db.reading() as session:
            row, owner = networks.find(session, name), projects.scope_name(session, project, "networks")
        if row is None or row.project.name != owner:
            raise NotFound(f"Network {name!r} not found")
        if name in self._broken:
            with self._changing:
                self._bring_up(row)
        return self._render(row, [])

    def set_host(self, network: str, nic: tuple[str, str, str], host: Host) -> None:
        """Make an instance's NIC known to a network's DHCP and DNS; `nic` is (project, instance, device)."""
        self._driver_of(network).set_host(_host_key(*nic), host)

    def reserve_address(self, network: str, nic: tuple[str, str, str], family: str) -> str:
        """Return an address that an instance's NIC can have for good: the one that it had, or a free one.

        Args:
            network: a managed network.
            nic: (project, instance, device).
            family: ipv4 or ipv6.

        Returns:
            Empty where the network hands out no addresses of the family by DHCP.

        Raises:
            BadRequest: all addresses are taken.
        """
        key = _host_key(*nic)
        with self._db.reading() as session:
            row = networks.get(session, network)
        driver = self._driver(row)
        with self._changing:
            had = driver.hosts().get(key)
            if had is not None and getattr(had, family):
                return str(getattr(had, family))
            taken = {getattr(host, family) for host in driver.hosts().values()}
            taken |= {lease.address for lease in driver.leases() if not had or lease.hwaddr != had.hwaddr}
            promised = self._promised.setdefault((network, family), {})
            if key not in promised:
                promised[key] = subnet.free_address(row.config, family, taken | set(promised.values()))
            return promised[key]

    def forget_host(self, network: str, nic: tuple[str, str, str], hwaddr: str) -> None:
        """Forget an instance's NIC and end its leases; one that is not known, or no such network, is no error."""
        try:
            driver = self._driver_of(network)
        except NotFound:
            return
        for family in ("ipv4", "ipv6"):
            self._promised.get((network, family), {}).pop(_host_key(*nic), None)
        driver.forget_host(_host_key(*nic))
        if hwaddr:
            driver.release(hwaddr)

    def _driver_of(self, network: str) -> NetworkDriver:
        """Return a created network's driver, without the database where it is loaded: containers start by this."""
        driver = self._drivers.get(network)
        if driver is None:
            with self._db.reading() as session:
                driver = self._driver(networks.get(session, network))
        return driver


def _host_key(project: str, instance: str, device: str) -> str:
    return f"{storage_name(project, instance)}.{device}"

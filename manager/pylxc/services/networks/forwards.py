"""Network forwards: an address of the host whose ports go to instances on a managed network."""

from __future__ import annotations

import ipaddress
import logging
import threading
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from pylxc.db import forwards, models, networks
from pylxc.db.engine import Database
from pylxc.drivers.device.endpoint import parse_ports
from pylxc.drivers.redirect import Redirect
from pylxc.errors import BadRequest, Conflict, NotFound, PylxcError
from pylxc.revert import Reverter
from pylxc.services import etag
from pylxc.services.events import EventBus
from pylxc.services.networks.redirects import Redirects
from pylxc.services.networks.scope import Scope
from pylxc.services.projects import restrictions
from pylxc.wire.networks import NetworkForward, NetworkForwardPort, NetworkForwardPut

log = logging.getLogger(__name__)

_PROTOCOLS = ("tcp", "udp")
_PORT_FIELDS = ("description", "protocol", "listen_port", "target_port", "target_address")

ForwardList = list[NetworkForward]  # inside the class `list` is its method
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Forwards:
    """The forwards of managed networks; thread-safe.

    Whether the host has the address that a forward listens on is not asked: it may come later.
    """

    def __init__(self, db: Database, redirects: Redirects, events: EventBus, changing: threading.RLock) -> None:
        """Hold `changing` while something of networks or forwards changes."""
        self._db = db
        self._redirects = redirects
        self._events = events
        self._changing = changing

    def start(self) -> None:
        """Put every forward's rules, when the networks are up, and remove those of forwards that are gone."""
        with self._db.reading() as session:
            rows = forwards.everything(session)
        self._redirects.sweep("forward", {row.listen_address for row in rows})
        for row in rows:
            try:
                self._put(row, row.network.config)
            except PylxcError as error:
                log.warning("Forward %s of network %s does not work: %s", row.listen_address, row.network.name, error)

    def stop(self) -> None:
        """Remove all rules; the next start puts them again."""
        self._redirects.sweep("forward", ())

    def fit(self, network: models.Network, config: Mapping[str, str]) -> None:
        """Put the rules of a network's forwards for another configuration of the network.

        Raises:
            BadRequest: a target is outside of its subnet; nothing has changed.
        """
        with self._db.reading() as session:
            rows = forwards.of_network(session, network)
        for row in rows:
            _check(row, config)
        for row in rows:
            self._put(row, config)

    def drop(self, network: models.Network) -> None:
        """Remove the rules of a network's forwards, whose rows go with it."""
        with self._db.reading() as session:
            rows = forwards.of_network(session, network)
        for row in rows:
            self._redirects.remove("forward", row.listen_address)

    def list(self, network: str, project: str = "default") -> ForwardList:
        """Return a network's forwards by address; raises NotFound."""
        with self._db.reading() as session:
            return [_render(row) for row in forwards.of_network(session, Scope(session, project).get(session, network))]

    def get(self, network: str, address: str, project: str = "default") -> NetworkForward:
        """Return one forward; raises NotFound."""
        with self._db.reading() as session:
            return _render(forwards.get(session, Scope(session, project).get(session, network), _canonical(address)))

    def etag(self, forward: NetworkForward) -> str:
        """Return the tag of a forward as it was read."""
        return etag.etag(*_tagged(forward))

    def create(self, network: str, address: str, body: NetworkForwardPut, project: str = "default") -> str:
        """Make a forward that acts at once; return its address.

        Raises:
            NotFound: no such managed network.
            BadRequest: a malformed value, an address of the wrong version or outside of the network.
            Conflict: the address, or a port of it, is redirected already.
            Forbidden: the project may not have the address.
            Unavailable: the packet filter refuses.
        """
        try:
            listen = ipaddress.ip_address(address)
        except ValueError:
            raise BadRequest(f"Invalid listen address {address!r}") from None
        with self._changing, Reverter() as revert:
            with self._db.transaction() as session:
                scope = Scope(session, project)
                row = scope.get(session, network)
                restrictions.refuse_address(scope.restrictions, listen.compressed)
                if forwards.find(session, listen.compressed):
                    raise Conflict("A forward for that listen address already exists")
                _refuse_subnets(listen, networks.everything(session))
                made = models.NetworkForward(
                    network=row,
                    listen_address=listen.compressed,
                    description=body.get("description", ""),
                    config=body.get("config", {}),
                    ports=_ports(body.get("ports", [])),
                )
                _check(made, row.config)
                session.add(made)
                session.flush()
                # Within the transaction: what the packet filter refuses leaves no row either.
                revert.add(self._redirects.remove, "forward", listen.compressed)
                self._put(made, row.config)
            revert.success()
        self._tell("created", scope.project, network, listen.compressed)
        return listen.compressed

    def update(
        self,
        network: str,
        address: str,
        body: NetworkForwardPut,
        *,
        project: str = "default",
        patch: bool = False,
        if_match: str | None = None,
    ) -> None:
        """Replace a forward, with `patch` only what is given; acts at once.

        Raises:
            NotFound: no such forward.
            PreconditionFailed: `if_match` is of another state.
            BadRequest, Conflict, Unavailable: as `create` has it; all is as it was.
        """
        with self._changing, Reverter() as revert:
            with self._db.reading() as session:
                before = forwards.get(session, Scope(session, project).get(session, network), _canonical(address))
            etag.check(if_match, *_tagged(_render(before)))
            with self._db.transaction() as session:
                row = forwards.get(session, Scope(session, project).get(session, network), before.listen_address)
                kept = (row.description, row.config, row.ports) if patch else ("", {}, [])
                row.description = body.get("description", kept[0])
                row.config = {**kept[1], **body.get("config", {})}
                row.ports = _ports(body["ports"]) if "ports" in body else kept[2]
                _check(row, row.network.config)
                revert.add(self._put, before, before.network.config)
                self._put(row, row.network.config)
            revert.success()
        self._tell("updated", before.network.project.name, network, before.listen_address)

    def delete(self, network: str, address: str, project: str = "default") -> None:
        """Remove a forward; raises NotFound."""
        with self._changing:
            with self._db.transaction() as session:
                row = forwards.get(session, Scope(session, project).get(session, network), _canonical(address))
                session.delete(row)
            self._redirects.remove("forward", row.listen_address)
        self._tell("deleted", row.network.project.name, network, row.listen_address)

    def _put(self, row: models.NetworkForward, config: Mapping[str, str]) -> None:
        address = row.listen_address
        redirects = [_redirect(address, port) for port in row.ports]
        if target := row.config.get("target_address"):
            redirects.append(Redirect(protocol="", listen=address, target=ipaddress.ip_address(target).compressed))
        local = config.get(f"{_family(ipaddress.ip_address(address))}.address", "none")
        self._redirects.put("forward", address, f"forward {address}", redirects, "" if local == "none" else local)

    def _tell(self, verb: str, project: str, network: str, address: str) -> None:
        source = f"/1.0/networks/{quote(network)}/forwards/{quote(address, safe='')}"
        self._events.lifecycle(f"network-forward-{verb}", source, project=project)


def _render(row: models.NetworkForward) -> NetworkForward:
    ports: list[NetworkForwardPort] = [{key: port.get(key, "") for key in _PORT_FIELDS} for port in row.ports]  # type: ignore[misc]
    return {
        "description": row.description,
        "config": row.config,
        "ports": ports,
        "listen_address": row.listen_address,
        "location": "none",
    }


def _tagged(forward: NetworkForward) -> tuple[object, ...]:
    return forward["listen_address"], forward["description"], forward["config"], forward["ports"]


def _canonical(address: str) -> str:
    try:
        return ipaddress.ip_address(address).compressed
    except ValueError:
        raise NotFound("Network forward not found") from None


def _ports(given: Sequence[NetworkForwardPort]) -> models.Ports:
    return [{key: str(value) for key, value in port.items() if value} for port in given]


def _refuse_subnets(listen: Address, rows: Sequence[models.Network]) -> None:
    """Refuse an address that a managed network hands out; the networks' own addresses are the host's."""
    if listen.is_unspecified or listen.is_multicast or listen.is_loopback or listen.is_link_local:
        raise BadRequest(f"Cannot forward {listen}: an address of this host that others reach is needed")
    for row in rows:
        text = row.config.get(f"{_family(listen)}.address", "none")
        if text == "none":
            continue
        interface = ipaddress.ip_interface(text)
        if listen in interface.network and listen != interface.ip:
            raise BadRequest(f"Listen address {listen} lies in the subnet of network {row.name!r}")


def _family(address: Address) -> str:
    return f"ipv{address.version}"


def _check(row: models.NetworkForward, network: Mapping[str, str]) -> None:
    """Check what a forward says.

    Raises:
        BadRequest: a key that is not known, a malformed value, a target outside of the network.
    """
    for key in row.config:
        if key != "target_address" and not key.startswith("user."):
            raise BadRequest(f"Invalid option {key!r}", hint="target_address or user.*")
    listen = ipaddress.ip_address(row.listen_address)
    if default := row.config.get("target_address", ""):
        _check_target(listen, default, network, "default target address")
    seen: dict[tuple[str, int], int] = {}
    for number, port in enumerate(row.ports):
        where = f"in port specification {number}"
        if port.get("protocol") not in _PROTOCOLS:
            raise BadRequest(f"Invalid port protocol {where}, protocol must be one of: {', '.join(_PROTOCOLS)}")
        target = port.get("target_address", "")
        _check_target(listen, target, network, f"target address {where}")
        if target == default:
            raise BadRequest(f"Target address is same as default target address {where}")
        try:
            redirect = _redirect(row.listen_address, port)
        except BadRequest as error:
            raise BadRequest(f"{error} {where}") from error
        if len(redirect.target_ports) > 1 and len(redirect.target_ports) != len(redirect.ports):
            raise BadRequest(f"Mismatch of listen port(s) and target port(s) count {where}")
        for one in redirect.ports:
            if seen.setdefault((redirect.protocol, one), number) != number:
                raise BadRequest(f"Duplicate listen port {one} for protocol {redirect.protocol!r} {where}")


def _check_target(listen: Address, text: str, network: Mapping[str, str], what: str) -> None:
    try:
        target = ipaddress.ip_address(text)
    except ValueError:
        raise BadRequest(f"Invalid {what}: {text!r}") from None
    if target.version != listen.version:
        raise BadRequest(f"Cannot mix IP versions in listen address and {what}")
    subnet = network.get(f"{_family(target)}.address", "none")
    if subnet == "none" or target not in ipaddress.ip_interface(subnet).network:
        raise BadRequest(f"{what[0].upper()}{what[1:]} is not within the network's subnet: {target}")


def _redirect(listen: str, port: Mapping[str, str]) -> Redirect:
    return Redirect(
        protocol=port["protocol"],
        listen=listen,
        ports=parse_ports(port.get("listen_port", "")),
        target=ipaddress.ip_address(port["target_address"]).compressed,
        target_ports=parse_ports(port["target_port"]) if port.get("target_port") else (),
    )

"""Proxies: ports and unix sockets of one side that lead to the other, by a process or by address translation."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pylxc.config.device import PROXY
from pylxc.drivers.device.driver import Context, DeviceDriver, HostTools, RunConfig
from pylxc.drivers.device.endpoint import parse
from pylxc.drivers.redirect import Redirect
from pylxc.errors import BadRequest, PylxcError
from pylxc.runtime.spec import Endpoint, ProxySpec

Devices = Mapping[str, Mapping[str, str]]

_INSIDE = ("instance", "guest", "container")
_OF_FILES = ("uid", "gid", "mode")


class ProxyDriver(DeviceDriver):
    """See `DeviceDriver`."""

    def validate(self, name: str, device: Mapping[str, str], *, in_profile: bool) -> None:
        """See `DeviceDriver`."""
        del in_profile
        listen, connect = (_endpoint(name, device, key) for key in ("listen", "connect"))
        if len(connect.ports) > 1 and len(connect.ports) != len(listen.ports):
            raise BadRequest(
                "Mismatch between listen port(s) and connect port(s) count",
                hint="one port to connect to, or as many as are listened on",
            )
        if PROXY.is_true(device, "proxy_protocol") and (connect.kind != "tcp" or is_nat(device)):
            raise BadRequest("The PROXY header can only be sent to tcp servers in non-nat mode")
        is_file = listen.kind == "unix" and not listen.address.startswith("@")
        if not is_file and any(device.get(key) for key in _OF_FILES):
            raise BadRequest("Only proxy devices for non-abstract unix sockets can carry uid, gid, or mode properties")
        if is_nat(device):
            _check_nat(device, listen, connect)

    def follows(self, device: Mapping[str, str], siblings: Devices) -> object:
        """See `DeviceDriver`: the address that it leads to."""
        if not is_nat(device):
            return None
        try:
            return redirect(device, siblings).target
        except BadRequest:
            return None

    def start(self, context: Context, host: HostTools) -> RunConfig:
        """See `DeviceDriver`."""
        del host
        if is_nat(context.device):
            redirect(context.device, context.siblings)
        return RunConfig()

    def attach(self, context: Context, run: RunConfig, host: HostTools) -> None:
        """See `DeviceDriver`."""
        del run
        with _named(context):
            self.resume(context, host)

    def enter(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`: before it, what the process would enter are the host's files still."""
        if not is_nat(context.device):
            with _named(context):
                host.proxies.start(context.instance, context.name, spec(context.device), context.pid)

    def resume(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`: a process is found again without this."""
        if not is_nat(context.device):
            return
        label = f"device {context.name!r} of instance {context.instance}"
        found = redirect(context.device, context.siblings)
        local = (context.network or {}).get(f"{_family(found.target)}.address", found.target)
        host.redirects.put("proxy", owner(context), label, [found], local)

    def detach(self, context: Context, host: HostTools) -> None:
        """See `DeviceDriver`."""
        if is_nat(context.device):
            host.redirects.remove("proxy", owner(context))
        else:
            host.proxies.stop(context.instance, context.name)


@contextmanager
def _named(context: Context) -> Iterator[None]:
    """Name the device in an error of the block."""
    try:
        yield
    except PylxcError as error:
        error.message = f"Failed starting device {context.name!r}: {error.message}"
        raise


def owner(context: Context) -> str:
    """Return the name of a device as an owner of redirects."""
    return f"{context.instance}.{context.name}"


def is_nat(device: Mapping[str, str]) -> bool:
    """Return whether a proxy works by address translation."""
    return PROXY.is_true(device, "nat")


def target_nic(device: Mapping[str, str], siblings: Devices) -> str:
    """Return which of an instance's devices has the static address that a proxy in nat mode leads to.

    Raises:
        BadRequest: none has.
    """
    connect = parse(device["connect"])
    family = _family(connect.address)
    static = {
        name: nic[f"{family}.address"]
        for name, nic in siblings.items()
        if nic.get("type") == "nic"
        and nic.get("nictype", "bridged") == "bridged"
        and nic.get(f"{family}.address", "none") != "none"
    }
    wildcard = ipaddress.ip_address(connect.address).is_unspecified
    for name, address in static.items():
        if wildcard or ipaddress.ip_address(address).compressed == connect.address:
            return name
    hint = f"set {family}.address of a bridged network device"
    if wildcard:
        raise BadRequest(f"Instance has no static {family} address assigned to be used as the connect IP", hint=hint)
    raise BadRequest(
        f"Connect IP {connect.address!r} must be one of the instance's static {family} addresses", hint=hint
    )


def redirect(device: Mapping[str, str], siblings: Devices) -> Redirect:
    """Return what a proxy in nat mode redirects; raises as `target_nic`."""
    listen, connect = parse(device["listen"]), parse(device["connect"])
    address = siblings[target_nic(device, siblings)][f"{_family(connect.address)}.address"]
    return Redirect(
        protocol=listen.kind,
        listen=listen.address,
        ports=listen.ports,
        target=ipaddress.ip_address(address).compressed,
        target_ports=connect.ports,
    )


def spec(device: Mapping[str, str]) -> ProxySpec:
    """Return what the process of a proxy does."""
    user, group = (int(device[key]) if device.get(key) else None for key in ("security.uid", "security.gid"))
    return ProxySpec(
        bind="instance" if device.get("bind") in _INSIDE else "host",
        listen=parse(device["listen"]),
        connect=parse(device["connect"]),
        proxy_protocol=PROXY.is_true(device, "proxy_protocol"),
        uid=int(PROXY.value(device, "uid")),
        gid=int(PROXY.value(device, "gid")),
        mode=int(PROXY.value(device, "mode"), 8),
        user=user,
        group=group,
    )


def _endpoint(name: str, device: Mapping[str, str], key: str) -> Endpoint:
    if not device.get(key):
        raise BadRequest(f"Device {name!r} needs {key}", hint="such as tcp:0.0.0.0:80")
    try:
        return parse(device[key])
    except BadRequest as error:
        raise BadRequest(f"Invalid value for {key}: {error.message}", hint=error.hint) from error


def _check_nat(device: Mapping[str, str], listen: Endpoint, connect: Endpoint) -> None:
    if device.get("bind") in _INSIDE:
        raise BadRequest("Only host-bound proxies can use NAT")
    if "unix" in (listen.kind, connect.kind) or listen.kind != connect.kind:
        raise BadRequest(f"Proxying {listen.kind} <-> {connect.kind} is not supported when using NAT")
    address = ipaddress.ip_address(listen.address)
    if address.is_unspecified:
        raise BadRequest(f"Cannot listen on wildcard address {listen.address!r} when in nat mode")
    if address.is_loopback:
        raise BadRequest(f"Cannot listen on {listen.address!r} when in nat mode", hint="leave nat out")
    if address.version != ipaddress.ip_address(connect.address).version:
        raise BadRequest("Cannot mix IP versions between listen and connect in nat mode")


def _family(address: str) -> str:
    return f"ipv{ipaddress.ip_address(address).version}"

"""One dnsmasq per network: DHCP and DNS. It outlives the daemon and is found again by its command line.

The name of its configuration file holds a hash of the contents, so that a process tells by its command line alone
whose it is and whether it has the configuration that is wanted. Instances' addresses and names are files in hosts/,
which dnsmasq reads again on SIGHUP; their first line is a comment with the name, which not every mode lets dnsmasq see.
"""

from __future__ import annotations

import contextlib
import grp
import hashlib
import ipaddress
import logging
import os
import pwd
import re
import signal
import stat
import time
from dataclasses import dataclass

from pylxc.drivers.network import dhcp
from pylxc.drivers.network.driver import Host, Lease
from pylxc.errors import Unavailable
from pylxc.kernel import command, pidfd

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
_USERS = ("dnsmasq", "nobody")
_HWADDR = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")
_HEX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2})*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """An address family as dnsmasq is told of it.

    Attributes:
        address: the bridge's, without prefix length.
        prefix: its length.
        dhcp: whether addresses are handed out (IPv6: besides router advertisements, where `stateful`).
        ranges: (first, last) of them; empty for all of the subnet.
        expiry: of leases, as `1h`.
        gateway: announced by DHCP, empty for the bridge.
        stateful: DHCPv6 hands out addresses.
    """

    address: str
    prefix: int
    dhcp: bool = True
    ranges: tuple[tuple[str, str], ...] = ()
    expiry: str = "1h"
    gateway: str = ""
    stateful: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What dnsmasq does for a network; `mode` is dns.mode: managed, dynamic or none; `raw` are lines of the user's."""

    bridge: str
    domain: str = "lxd"
    mode: str = "managed"
    search: tuple[str, ...] = ()
    mtu: int = 1500
    ipv4: Subnet | None = None
    ipv6: Subnet | None = None
    raw: str = ""


class Dnsmasq:
    """The dnsmasq of one network; the caller keeps changes of one network apart.

    Args:
        directory: the network's own, below `Paths.networks`.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._hosts = f"{directory}/hosts"
        self._leases = f"{directory}/dnsmasq.leases"
        self._named = True

    # The process

    def start(self, settings: Settings) -> None:
        """Have one dnsmasq run with these settings; one that does goes on.

        Raises:
            Unavailable: dnsmasq is missing, or cannot start: a port is taken, or a raw line is wrong.
        """
        self._make_directory()
        user = self._user()
        text = render(settings, self.directory, user)
        path = f"{self.directory}/dnsmasq-{hashlib.sha256(text.encode()).hexdigest()[:12]}.conf"
        found = self.processes()
        self._named = settings.mode == "managed"
        if [p for _, p in found] == [path]:
            return
        _write(path, text)
        try:
            # Tried first, so that a wrong line does not end the one that runs.
            command.run(["dnsmasq", "--test", f"--conf-file={path}"], timeout=30)
            self._end(found)
            self._mend_leases()
            for key, host in self.hosts().items():
                self._write_host(key, host)
            command.run(["dnsmasq", f"--conf-file={path}"], timeout=30)
        except command.CommandFailed as error:
            os.unlink(path)
            reason = (
                error.message.removeprefix("dnsmasq: ").removeprefix("dnsmasq: ").replace(path, "its configuration")
            )
            raise Unavailable(f"Cannot start dnsmasq {_version()} for network {settings.bridge!r}: {reason}") from error
        for name in os.listdir(self.directory):
            if name.endswith(".conf") and name != os.path.basename(path):
                os.unlink(f"{self.directory}/{name}")

    def stop(self) -> None:
        """End every dnsmasq of this network and wait until it is gone."""
        self._end(self.processes())

    def pidfd(self) -> int | None:
        """Return a new descriptor of the process, None when none runs."""
        running = self._running()
        if running is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            return pidfd.open_pid(running[0])
        return None

    def processes(self) -> list[tuple[int, str]]:
        """Return (pid, configuration file) of every dnsmasq of this network, whatever its pid file says."""
        found = ((int(name), self._configuration(int(name))) for name in os.listdir("/proc") if name.isdecimal())
        return [(pid, path) for pid, path in found if path is not None]

    def _running(self) -> tuple[int, str] | None:
        """Return what `processes` does, for the process that wrote the pid file: fast."""
        try:
            with open(f"{self.directory}/dnsmasq.pid", encoding="ascii") as file:
                pid = int(file.read())
        except (FileNotFoundError, ValueError):
            return None
        path = self._configuration(pid)
        return None if path is None else (pid, path)

    def _configuration(self, pid: int) -> str | None:
        """Return the configuration file of a process, None when it is no dnsmasq of this network."""
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read(4096).split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            return None
        option, _, path = words[1].partition(b"=") if len(words) > 1 else (b"", b"", b"")
        is_named_so = words[0].endswith(b"dnsmasq") and option == b"--conf-file"
        if not is_named_so or not os.fsdecode(path).startswith(f"{self.directory}/"):
            return None
        return os.fsdecode(path) if _is_of_the_host(pid) else None

    def _end(self, processes: list[tuple[int, str]]) -> None:
        for pid, _ in processes:
            try:
                descriptor = pidfd.open_pid(pid)
            except ProcessLookupError:
                continue
            try:
                if self._configuration(pid) is None:
                    continue  # it has ended, and its number is somebody else's
                pidfd.send_signal(descriptor, signal.SIGTERM)
                if not pidfd.wait(descriptor, STOP_SECONDS):
                    pidfd.send_signal(descriptor, signal.SIGKILL)
                    pidfd.wait(descriptor, STOP_SECONDS)
            finally:
                os.close(descriptor)

    def _reload(self) -> None:
        descriptor = self.pidfd()
        if descriptor is not None:
            pidfd.send_signal(descriptor, signal.SIGHUP)
            os.close(descriptor)

    def _mend_leases(self) -> None:
        """Move a damaged lease file aside and go on with the lines of it that are whole."""
        try:
            with open(self._leases, encoding="utf-8", errors="replace") as file:
                lines = file.readlines()
                owner = os.fstat(file.fileno())
        except FileNotFoundError:
            return
        whole = [line for line in lines if _is_lease(line)]
        if whole == lines:
            return
        damaged = f"{self._leases}.damaged"
        log.warning("%s is damaged and moved to %s; %d leases of it are whole", self._leases, damaged, len(whole))
        os.rename(self._leases, damaged)
        _write(self._leases, "".join(whole))
        os.chown(self._leases, owner.st_uid, owner.st_gid)

    def _make_directory(self) -> None:
        os.makedirs(self.directory, mode=0o711, exist_ok=True)
        os.makedirs(self._hosts, mode=0o755, exist_ok=True)

    def _user(self) -> str:
        """Return the user that dnsmasq runs as: root only where no other one reaches the directory."""
        path = self._hosts
        while path != "/":
            if not os.stat(path).st_mode & stat.S_IXOTH:
                return "root"
            path = os.path.dirname(path)
        for name in _USERS:
            with contextlib.suppress(KeyError):
                pwd.getpwnam(name)
                return name
        return "root"

    # Hosts and leases

    def set_host(self, key: str, host: Host) -> None:
        """See `NetworkDriver.set_host`."""
        self._make_directory()
        if self._write_host(key, host):
            self._reload()

    def _write_host(self, key: str, host: Host) -> bool:
        """Return whether the file was not like this already."""
        name = host.name if _NAME.fullmatch(host.name) else ""
        parts = (host.hwaddr, host.ipv4, f"[{host.ipv6}]" if host.ipv6 else "", name if self._named else "")
        text = f"# {name}\n{','.join(part for part in parts if part)}\n"
        path = f"{self._hosts}/{key}"
        with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            if file.read() == text:
                return False
        _write(path, text)
        return True

    def forget_host(self, key: str) -> None:
        """See `NetworkDriver.forget_host`."""
        try:
            os.unlink(f"{self._hosts}/{key}")
        except FileNotFoundError:
            return
        self._reload()

    def hosts(self) -> dict[str, Host]:
        """See `NetworkDriver.hosts`."""
        found = {}
        for key in os.listdir(self._hosts) if os.path.isdir(self._hosts) else ():
            if key.startswith("."):  # what `_write` was cut off at, or is at just now
                continue
            with contextlib.suppress(OSError), open(f"{self._hosts}/{key}", encoding="utf-8") as file:
                name = file.readline().strip("# \n")
                hwaddr, *rest = file.readline().strip().split(",")
                ipv6 = next((part.strip("[]") for part in rest if part.startswith("[")), "")
                ipv4 = next((part for part in rest if _IPV4.fullmatch(part)), "")
                if _HWADDR.fullmatch(hwaddr):
                    found[key] = Host(hwaddr=hwaddr, name=name, ipv4=ipv4, ipv6=ipv6)
        return found

    def leases(self) -> list[Lease]:
        """See `NetworkDriver.leases`; lines that are damaged are passed over."""
        try:
            with open(self._leases, encoding="utf-8", errors="replace") as file:
                rows = [line.split() for line in file if _is_lease(line)]
        except FileNotFoundError:
            return []
        now = time.time()
        found = []
        for row in rows:
            if row[0] == "duid" or 0 < int(row[0]) < now:
                continue
            is_ipv6 = ":" in row[2]
            hostname = "" if row[3] == "*" else row[3]
            found.append(Lease(address=row[2], hwaddr="" if is_ipv6 else row[1], hostname=hostname))
        return found

    def release(self, hwaddr: str) -> None:
        """See `NetworkDriver.release`: IPv4 only, IPv6 addresses are too many to run out."""
        server = self._server()
        for lease in self.leases() if server else []:
            if lease.hwaddr == hwaddr:
                dhcp.release(server, lease.address, hwaddr)

    def _server(self) -> str:
        """Return the address that the running dnsmasq gives out leases at."""
        running = self._running()
        if running is None:
            return ""
        with open(running[1], encoding="utf-8") as file:
            return next((line.strip().partition("=")[2] for line in file if line.startswith("listen-address=")), "")


def render(settings: Settings, directory: str, user: str) -> str:
    """Return the configuration file. See: dnsmasq(8)."""
    lines = [
        f"interface={settings.bridge}",
        "except-interface=lo",
        "bind-interfaces",
        *([f"listen-address={settings.ipv4.address}"] if settings.ipv4 else []),
        "no-hosts",
        f"user={user}",
        f"group={_group(user)}",
        f"pid-file={directory}/dnsmasq.pid",
        f"log-facility={directory}/dnsmasq.log",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
    ]
    lines += _dns(settings)
    if any(side and side.dhcp for side in (settings.ipv4, settings.ipv6)):
        lines += [
            "dhcp-authoritative",
            "dhcp-no-override",
            "dhcp-rapid-commit",
            "no-ping",
            "dhcp-ignore-clid",  # copies of an instance have one machine-id, and would get one address
            f"dhcp-leasefile={directory}/dnsmasq.leases",
            f"dhcp-hostsfile={directory}/hosts",
        ]
        if settings.mode == "managed":
            lines.append("dhcp-ignore-names=tag:!known")  # nobody takes the name of an instance by asking for it
        elif settings.mode == "none":
            lines.append("dhcp-ignore-names")
    lines += _dhcp(settings) + _advertisements(settings)
    return "\n".join([*lines, *settings.raw.splitlines(), ""])


def _dns(settings: Settings) -> list[str]:
    if settings.mode == "none":
        return []  # it still asks the host's name servers
    return [
        f"domain={settings.domain}",
        f"local=/{settings.domain}/",
        f"interface-name=_gateway.{settings.domain},{settings.bridge}",
    ]


def _dhcp(settings: Settings) -> list[str]:
    side = settings.ipv4
    if side is None or not side.dhcp:
        return []
    ranges = side.ranges or (_whole(side),)
    lines = [f"dhcp-range={first},{last},{side.expiry}" for first, last in ranges]
    if side.gateway:
        lines.append(f"dhcp-option=option:router,{side.gateway}")
    if settings.search:
        lines.append(f"dhcp-option=option:domain-search,{','.join(settings.search)}")
    if settings.mtu != 1500:
        lines.append(f"dhcp-option=option:mtu,{settings.mtu}")
    return lines


def _whole(side: Subnet) -> tuple[str, str]:
    network = ipaddress.IPv4Interface(f"{side.address}/{side.prefix}").network
    hosts = [int(network.network_address) + 1, int(network.broadcast_address) - 1]
    own = int(ipaddress.IPv4Address(side.address))
    # The larger side of the bridge's own address, which is an end of the subnet as a rule.
    first, last = (own + 1, hosts[1]) if hosts[1] - own >= own - hosts[0] else (hosts[0], own - 1)
    return str(ipaddress.IPv4Address(first)), str(ipaddress.IPv4Address(last))


def _whole_ipv6(side: Subnet) -> tuple[str, str]:
    network = ipaddress.IPv6Interface(f"{side.address}/{side.prefix}").network
    # dnsmasq gives out the last 64 bits.
    return str(network.network_address + 2), str(network.network_address + min(network.num_addresses, 1 << 64) - 1)


def _advertisements(settings: Settings) -> list[str]:
    side = settings.ipv6
    if side is None:
        return []
    lines = ["enable-ra"]
    if side.dhcp and side.stateful:
        for first, last in side.ranges or (_whole_ipv6(side),):
            place = f"{first},{last},constructor:{settings.bridge}" if first.startswith("::") else f"{first},{last}"
            lines.append(f"dhcp-range={place},{side.prefix},{side.expiry}")
    else:
        mode = "ra-stateless,ra-names" if side.dhcp else "ra-only"
        lines.append(f"dhcp-range=::,constructor:{settings.bridge},{mode}")
    if settings.search:
        lines.append(f"dhcp-option=option6:domain-search,{','.join(settings.search)}")
    if settings.mtu != 1500:
        lines.append(f"ra-param={settings.bridge},mtu:{settings.mtu},0,0")
    return lines


def _is_lease(line: str) -> bool:
    """Return whether a line is whole: expiry, MAC or IAID, address, name and client id; or the DUID of the server."""
    words = line.split()
    if len(words) == 2 and words[0] == "duid":
        return bool(_HEX.fullmatch(words[1]))
    if len(words) != 5 or not words[0].isdecimal() or not line.endswith("\n"):
        return False
    try:
        ipaddress.ip_address(words[2])
    except ValueError:
        return False
    return True


def _version() -> str:
    """Return the number of the installed dnsmasq, as an old one may not know an option."""
    words = command.run(["dnsmasq", "--version"], check=False).stdout.split()
    return words[2].decode(errors="replace") if len(words) > 2 else ""


def _is_of_the_host(pid: int) -> bool:
    """Return whether a process is in our pid namespace: a container's can give itself any command line."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def _group(user: str) -> str:
    return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name


def _write(path: str, text: str) -> None:
    """Write a file whole or not at all. A name that begins with a dot is none that dnsmasq reads."""
    temporary = f"{os.path.dirname(path)}/.{os.path.basename(path)}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    os.rename(temporary, path)

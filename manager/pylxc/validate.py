"""Checks of names and values. Every check returns nothing and raises `BadRequest` with one line on what is wrong."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection

from pylxc.errors import BadRequest
from pylxc.units import parse_bits, parse_bytes

Check = Callable[[str], None]

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")

_SYSCALL = re.compile(r"[a-z_][a-z0-9_]*( .*)?")
_MAC = re.compile(r"([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}")
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*")
_INTERFACE = re.compile(r"[-_a-zA-Z0-9.]+")


def is_true(value: str | None) -> bool:
    """Return whether a configuration value says yes; unset says no."""
    return value is not None and value.lower() in TRUE


def is_false(value: str | None) -> bool:
    """Return whether a configuration value says no in so many words; unset does not."""
    return value is not None and value.lower() in FALSE


COMPRESSIONS = ("bzip2", "gzip", "lzma", "none", "xz", "zstd")
_LEVELLED = re.compile(r"(bzip2|gzip|lzma|xz) -[1-9]|zstd -(1?[1-9]|10)")


def compression(value: str) -> None:
    """Check how archives are to be packed: a compression's name, which a level may follow, as in `gzip -9`."""
    if value not in COMPRESSIONS and not _LEVELLED.fullmatch(value):
        known = ", ".join(COMPRESSIONS)
        raise BadRequest(f"Unknown compression {value[:40]!r}", hint=f"one of {known}, or with a level: 'gzip -9'")


# Names


def instance_name(name: str) -> None:
    """Check a host name: 1-63 letters, digits and hyphens, no digit or hyphen first, no hyphen last."""
    if not 1 <= len(name) <= 63:
        raise BadRequest("Invalid instance name: it must be 1-63 characters long")
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise BadRequest("Invalid instance name: it can only contain alphanumeric and hyphen characters")
    if name[0] == "-" or name[0].isdigit():
        raise BadRequest("Invalid instance name: it must not start with a digit or a hyphen")
    if name[-1] == "-":
        raise BadRequest("Invalid instance name: it must not end with a hyphen")


def object_name(name: str, kind: str) -> None:
    """Check the name of a profile, project, pool or volume, which becomes a directory or a part of a URL."""
    if not name:
        raise BadRequest(f"No {kind} name provided")
    if name in (".", "..") or "/" in name or not name.isprintable() or name[0] == "-" or len(name.encode()) > 255:
        raise BadRequest(f"Invalid {kind} name {name!r}")


def project_name(name: str) -> None:
    """Check a project's name: it is the first part of names on disk, which `_` ends."""
    object_name(name, "project")
    if "_" in name or " " in name or "'" in name or '"' in name or name == "*":
        raise BadRequest(f"Invalid project name {name!r}: it must not contain spaces, underscores or quotes")


def volume_name(name: str, project: str) -> None:
    """Check the name of a custom volume of a project: after that, a directory is called by both."""
    object_name(name, "storage volume")
    if not name.isprintable() or len(f"{project}_{name}".encode()) > 255:
        raise BadRequest(f"Invalid storage volume name {name[:70]!r}")


def interface_name(name: str) -> None:
    """Check the name of a network interface or managed network: at most 15 characters.

    See: dev_valid_name in linux/net/core/dev.c
    """
    if not 2 <= len(name) <= 15:
        raise BadRequest(f"Invalid network interface name {name!r}: it must be 2-15 characters long")
    if name[0] == "-" or name in (".", "..") or not _INTERFACE.fullmatch(name):
        raise BadRequest(f"Invalid network interface name {name!r}: only letters, digits, '-', '_' and '.'")


def device_name(name: str) -> None:
    """Check a device's name: 1-63 characters, part of file names."""
    if not 1 <= len(name) <= 63 or "/" in name or name in (".", "..") or not name.isprintable() or " " in name:
        raise BadRequest(f"Invalid device name {name!r}")


# Values


def anything(_value: str) -> None:
    """Accept every value."""


def boolean(value: str) -> None:
    """Check a boolean: true/1/yes/on or false/0/no/off."""
    if not (is_true(value) or is_false(value)):
        raise BadRequest(f"Invalid value for a boolean {value!r}")


def integer(low: int | None = None, high: int | None = None) -> Check:
    """Return the check of a whole number from `low` to `high`."""

    def check(value: str) -> None:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", value):
            raise BadRequest(f"Invalid value for an integer {value!r}")
        if (low is not None and int(value) < low) or (high is not None and int(value) > high):
            raise BadRequest(f"Invalid value {value!r}: not within {low if low is not None else ''}..{high or ''}")

    return check


def one_of(*choices: str) -> Check:
    """Return the check of a value out of `choices`."""

    def check(value: str) -> None:
        if value not in choices:
            raise BadRequest(f"Invalid value {value!r}: not one of {', '.join(choices)}")

    return check


def list_of(item: Check, separator: str = ",") -> Check:
    """Return the check of a list whose entries pass `item`."""

    def check(value: str) -> None:
        for entry in value.split(separator):
            item(entry.strip())

    return check


def either(*checks: Check) -> Check:
    """Return the check that one of `checks` passes; the last one's complaint is reported."""

    def check(value: str) -> None:
        for candidate in checks[:-1]:
            try:
                candidate(value)
            except BadRequest:
                continue
            return
        checks[-1](value)

    return check


def size(value: str) -> None:
    """Check a size such as 512MiB."""
    parse_bytes(value)


def size_or_percent(value: str) -> None:
    """Check a size, or a share such as 50%."""
    if value.endswith("%"):
        integer(1, 100)(value[:-1])
    else:
        size(value)


def rate(value: str) -> None:
    """Check a network rate such as 100Mbit, which is not none."""
    if not parse_bits(value):
        raise BadRequest(f"Invalid rate {value!r}: nothing would pass")


def disk_rate(value: str) -> None:
    """Check a disk rate: bytes a second such as 30MB, or operations a second such as 500iops."""
    if value.endswith("iops"):
        integer(1)(value[:-4])
    else:
        size(value)


def mac(value: str) -> None:
    """Check a MAC address."""
    if not _MAC.fullmatch(value):
        raise BadRequest(f"Invalid MAC address {value!r}")


def ipv4(value: str) -> None:
    """Check an IPv4 address."""
    _parsed(ipaddress.IPv4Address, value, "IPv4 address")


def ipv6(value: str) -> None:
    """Check an IPv6 address."""
    _parsed(ipaddress.IPv6Address, value, "IPv6 address")


def ipv4_cidr(value: str) -> None:
    """Check an IPv4 address with its prefix length."""
    _cidr(ipaddress.IPv4Interface, value, "IPv4 address in CIDR notation")


def ipv6_cidr(value: str) -> None:
    """Check an IPv6 address with its prefix length."""
    _cidr(ipaddress.IPv6Interface, value, "IPv6 address in CIDR notation")


def ipv4_network(value: str) -> None:
    """Check an IPv4 subnet."""
    _parsed(ipaddress.IPv4Network, value, "IPv4 subnet")


def ipv6_network(value: str) -> None:
    """Check an IPv6 subnet."""
    _parsed(ipaddress.IPv6Network, value, "IPv6 subnet")


def domain(value: str) -> None:
    """Check a domain name: labels of letters, digits, hyphens and underscores with dots between."""
    if len(value) > 253 or not _DOMAIN.fullmatch(value):
        raise BadRequest(f"{value!r} is no domain name")


def vlan_range(value: str) -> None:
    """Check a VLAN id, or a range of them such as 10-19."""
    first, dash, last = value.partition("-")
    integer(1, 4094)(first)
    if dash:
        integer(int(first), 4094)(last)


def absolute_path(value: str) -> None:
    """Check a path that begins with a slash."""
    if not value.startswith("/") or "\0" in value:
        raise BadRequest(f"Invalid value {value!r}: an absolute path is needed")


def octal_mode(value: str) -> None:
    """Check permission bits such as 0660."""
    if not re.fullmatch(r"[0-7]{3,4}", value):
        raise BadRequest(f"Invalid mode {value!r}: octal digits such as 0660 are needed")


def cpuset(value: str) -> None:
    """Check `limits.cpu`: a number of CPUs, or a set such as 0-3,6; Linux has no more than 8192."""
    if value == "":
        return
    if len(value) > 4096 or not re.fullmatch(r"[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*", value):
        raise BadRequest(f"Invalid CPU limit {value!r}: a number such as 2, or a set such as 0-3,6")
    for part in value.split(","):
        first, _, last = part.partition("-")
        if last and int(first) > int(last):
            raise BadRequest(f"Invalid CPU limit {value!r}: {part} runs backwards")


def cpu_allowance(value: str) -> None:
    """Check `limits.cpu.allowance`: a share such as 50%, or time slices such as 25ms/100ms."""
    if re.fullmatch(r"[0-9]{1,3}%", value):
        integer(1, 100)(value[:-1])
        return
    slices = re.fullmatch(r"([0-9]{1,9})ms/([0-9]{1,9})ms", value)
    if not slices or not int(slices[1]) or not int(slices[2]):
        raise BadRequest(f"Invalid CPU allowance {value!r}: a share such as 50%, or time such as 25ms/100ms")


def kernel_module(value: str) -> None:
    """Check the name of a kernel module."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", value):
        raise BadRequest(f"Invalid kernel module {value!r}")


def rlimit(value: str) -> None:
    """Check `limits.kernel.*`: soft, or soft:hard; numbers or `unlimited`."""
    if not re.fullmatch(r"([0-9]{1,20}|unlimited)(:([0-9]{1,20}|unlimited))?", value):
        raise BadRequest(f"Invalid resource limit {value!r}: soft, or soft:hard")
    soft, _, hard = value.partition(":")
    if hard not in ("", "unlimited") and (soft == "unlimited" or int(soft) > int(hard)):
        raise BadRequest(f"Invalid resource limit {value!r}: soft is more than hard")


def syscall_list(value: str) -> None:
    """Check a list of system calls, one a line, each with an optional action."""
    for line in value.splitlines():
        if line.strip() and not _SYSCALL.fullmatch(line.strip()):
            raise BadRequest(f"Invalid system call {line.strip()!r}")


def raw_idmap(value: str) -> None:
    """Check `raw.idmap`: lines of `both|uid|gid HOST CONTAINER`, each side an id or a range."""
    for line in value.splitlines():
        if not line.strip():
            continue
        ids = r"([0-9]{1,10})(?:-([0-9]{1,10}))?"
        fields = re.fullmatch(rf"(both|uid|gid) {ids} {ids}", line.strip())
        if not fields:
            raise BadRequest(f"Invalid raw.idmap line {line.strip()!r}: 'both|uid|gid HOST CONTAINER' is needed")
        host, host_last, inside, inside_last = (int(f) if f else None for f in fields.groups()[1:])
        if (host_last or host or 0) - (host or 0) != (inside_last or inside or 0) - (inside or 0):
            raise BadRequest(f"Invalid raw.idmap line {line.strip()!r}: the ranges differ in size")


def id_map(value: str) -> None:
    """Check a map of ids in LXD's JSON: a list of objects with two truths and three numbers each."""
    try:
        entries = json.loads(value)
        good = isinstance(entries, list) and all(
            isinstance(entry[name], kind)
            for entry in entries
            for name, kind in (("Isuid", bool), ("Isgid", bool), ("Hostid", int), ("Nsid", int), ("Maprange", int))
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        good = False
    if not good:
        raise BadRequest(f"Invalid map of ids {value[:100]!r}: JSON as in volatile.idmap.current is needed")


def id_range(value: str) -> None:
    """Check an id or a range of ids: `1000`, `1000-1999`."""
    found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", value)
    if not found or int(found[2] or found[1]) < int(found[1]):
        raise BadRequest(f"Invalid id or range of ids {value!r}: FIRST or FIRST-LAST is needed")


def snapshot_name(name: str) -> None:
    """Check the name of a snapshot: no slash, no space, nothing that a file system takes for something else."""
    if not name or name in (".", "..") or len(name) > 63 or "/" in name or not name.isprintable() or " " in name:
        raise BadRequest(f"Invalid snapshot name {name[:70]!r}: 1 to 63 characters, no '/' and no spaces")


def expiry(value: str) -> None:
    """Check an expiry such as `1M 2H 3d 4w 5m 6y`, each unit once."""
    units = [part[-1] for part in value.split() if re.fullmatch(r"[0-9]{1,9}[SMHdwmy]", part)]
    if len(units) != len(value.split()) or len(set(units)) != len(units):
        raise BadRequest(f"Invalid expiry {value!r}: numbers with S, M, H, d, w, m or y are needed, each once")


def schedule(value: str) -> None:
    """Check a snapshot schedule: cron fields, or names such as @daily, several with commas."""
    from croniter import croniter

    names = ("hourly", "daily", "midnight", "weekly", "monthly", "annually", "yearly", "startup", "never")
    entries = [entry.strip() for entry in value.split(",")] if value.lstrip().startswith("@") else [value]
    for entry in entries:
        if entry.startswith("@"):
            if entry[1:] not in names:
                raise BadRequest(f"Invalid schedule {entry!r}")
        elif len(entry.split()) != 5 or not croniter.is_valid(entry):
            raise BadRequest(f"Invalid schedule {entry!r}: five cron fields, or @hourly, @daily, ... are needed")
        else:
            try:
                croniter(entry).get_prev()
            except ValueError as error:
                raise BadRequest(f"Invalid schedule {entry!r}: there is no such day") from error


def known(value: str, allowed: Collection[str], what: str) -> None:
    """Check that `value` is one of `allowed`; `what` names it in the complaint."""
    if value not in allowed:
        raise BadRequest(f"Unknown {what} {value!r}", hint=f"one of {', '.join(sorted(allowed))}")


def _parsed(parse: Callable[[str], object], value: str, what: str) -> None:
    try:
        parse(value)
    except ValueError as error:
        raise BadRequest(f"Invalid {what} {value!r}") from error


def _cidr(parse: Callable[[str], object], value: str, what: str) -> None:
    if "/" not in value:
        raise BadRequest(f"Invalid {what} {value!r}")
    _parsed(parse, value, what)


def listen_parts(value: str) -> tuple[str, int | None]:
    """Return host ("" for every address) and port (None when there is none) of what a server is to listen on.

    Args:
        value: HOST, HOST:PORT or :PORT; an IPv6 address with a port stands in brackets.

    Raises:
        BadRequest: it is none of these.
    """
    found = re.fullmatch(r"\[([^\[\]]+)\](?::(\d{1,5}))?|([^:\[\]]*)(?::(\d{1,5}))?|([0-9A-Fa-f:.]+(?:%\w+)?)", value)
    bracketed, bracketed_port, name, name_port, bare = found.groups() if found else (None, None, "", None, None)
    host, port = bracketed or bare or name or "", bracketed_port or name_port
    if (address := bracketed or bare) is not None:
        ipv6(address)
    elif not re.fullmatch(r"[A-Za-z0-9._-]*", host) or not (host or port):
        raise BadRequest(f"Invalid address {value!r}: HOST, HOST:PORT or :PORT is needed, as in [::]:8443")
    if port is not None and not 0 < int(port) < 1 << 16:
        raise BadRequest(f"Invalid port in {value!r}")
    return host, None if port is None else int(port)


def listen_address(value: str) -> None:
    """Check what a server is to listen on; see `listen_parts`."""
    listen_parts(value)

"""`pylxc doctor`: what pylxc needs of this host, and the command that mends what is missing."""

from __future__ import annotations

import glob
import os
import shutil

from pylxc.cli.grammar import FORMAT, Args, Command
from pylxc.cli.output import show
from pylxc.client.client import Client, default_socket
from pylxc.errors import PylxcError
from pylxc.paths import var_dir
from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pylxc.cli.session import Session

OK, MISSING, ADVICE = "ok", "MISSING", "advice"
_IDMAP_KERNEL = (5, 12)
_IDS = 65536
_SPACE = 2 << 30


class Finding:
    """One check: `name`, `state` (ok, MISSING, advice), `detail`, and the command that mends it."""

    __slots__ = ("detail", "mend", "name", "state")

    def __init__(self, name: str, state: str, detail: str, mend: str = "") -> None:
        self.name = name
        self.state = state
        self.detail = detail
        self.mend = mend if state != OK else ""


# Tool: what needs it, package by family (apt, dnf), whether nothing works without it.
_TOOLS: tuple[tuple[str, str, str, str, bool], ...] = (
    ("dnsmasq", "DHCP and DNS on bridges", "dnsmasq-base", "dnsmasq", True),
    ("unsquashfs", "images in squashfs", "squashfs-tools", "squashfs-tools", True),
    ("mksquashfs", "publishing images as squashfs", "squashfs-tools", "squashfs-tools", False),
    ("mmdebstrap", "recipe:debian/*", "mmdebstrap", "mmdebstrap", False),
    ("rsync", "copies between pools", "rsync", "rsync", False),
    ("btrfs", "btrfs pools", "btrfs-progs", "btrfs-progs", False),
)
# The same of libraries, all of them needed.
_LIBRARIES = (
    ("libnftables", "libnftables.so.1", "NAT and firewall rules", "nftables", "nftables"),
    ("libseccomp", "libseccomp.so.2", "the system call filter", "libseccomp2", "libseccomp"),
)


def _install(apt: str, dnf: str) -> str:
    for tool, command in (("apt-get", f"apt-get install {apt}"), ("dnf", f"dnf install {dnf}")):
        if shutil.which(tool):
            return command
    return f"install {apt}"


def _tools() -> Iterator[Finding]:
    for tool, what, apt, dnf, needed in _TOOLS:
        path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        state = OK if path else MISSING if needed else ADVICE
        yield Finding(tool, state, path or f"not found; for {what}", _install(apt, dnf))
    for name, file, what, apt, dnf in _LIBRARIES:
        found = [path for place in ("/usr/lib/*", "/usr/lib*", "/lib/*") for path in glob.glob(f"{place}/{file}")]
        detail = found[0] if found else f"not found; for {what}"
        yield Finding(name, OK if found else MISSING, detail, _install(apt, dnf))
    lxcfs = os.path.isdir("/var/lib/lxcfs/proc")
    detail = "/var/lib/lxcfs" if lxcfs else "not running; instances see the host's CPUs and memory in /proc"
    yield Finding("lxcfs", OK if lxcfs else ADVICE, detail, _install("lxcfs", "lxcfs"))


def _kernel() -> Iterator[Finding]:
    release = os.uname().release
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdecimal())
    new = numbers >= _IDMAP_KERNEL
    yield Finding("kernel", OK if new else MISSING, release, "boot a kernel of 5.12 or newer (idmapped mounts)")
    for namespace in ("user", "mnt", "pid", "net", "uts", "ipc", "cgroup"):
        if not os.path.exists(f"/proc/self/ns/{namespace}"):
            yield Finding(f"{namespace} namespace", MISSING, "not in this kernel", "boot a kernel that has it")
    most = _read("/proc/sys/user/max_user_namespaces")
    allowed = bool(most) and most != "0"
    mend = "sysctl -w user.max_user_namespaces=65536"
    yield Finding("user namespaces", OK if allowed else MISSING, f"at most {most or '?'}", mend)
    filters = "errno" in _read("/proc/sys/kernel/seccomp/actions_avail").split()
    yield Finding(
        "seccomp",
        OK if filters else MISSING,
        "filter" if filters else "not in this kernel",
        "boot a kernel with CONFIG_SECCOMP_FILTER",
    )
    try:
        os.close(os.pidfd_open(os.getpid()))
        yield Finding("pidfd", OK, "yes")
    except OSError as error:
        yield Finding("pidfd", MISSING, str(error.strerror), "boot a kernel of 5.3 or newer")
    for module, what in (("bridge", "bridged networks"), ("veth", "network interfaces"), ("nf_tables", "NAT")):
        here = os.path.isdir(f"/sys/module/{module}") or _has_module(module, release)
        detail = "yes" if here else f"not in this kernel; for {what}"
        yield Finding(f"module {module}", OK if here else MISSING, detail, f"modprobe {module}")


def _has_module(name: str, release: str) -> bool:
    for index in ("modules.builtin", "modules.dep"):
        text = _read(f"/lib/modules/{release}/{index}")
        if any(f"/{name}.ko" in line.split(":")[0] for line in text.splitlines()):
            return True
    # A kernel without a module tree has everything built in or nothing; its symbols tell.
    return f" {name}_" in _read("/proc/kallsyms")


_CONTROLLERS = {
    ("cpu",): "limits.cpu.allowance and .priority",
    ("cpuset",): "limits.cpu",
    ("io", "blkio"): "limits of disks",
    ("memory",): "limits.memory",
    ("pids",): "limits.processes",
}
"""What is off without a controller, by its names under cgroup v2 and v1."""


def _cgroups() -> Iterator[Finding]:
    tree, controllers = "", []
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        kind, _, options = fields[fields.index("-") + 1 :]
        if kind == "cgroup2" and not tree:
            tree = fields[4]
            controllers += _read(f"{tree}/cgroup.controllers").split()
        elif kind == "cgroup":
            controllers += options.split(",")
    if not tree:
        mend = "boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified"
        yield Finding("cgroups", MISSING, "no v2 tree", mend)
        return
    layout = "unified" if tree == "/sys/fs/cgroup" else "hybrid: v1 controllers beside a v2 tree"
    off = [f"no {names[0]} ({what})" for names, what in _CONTROLLERS.items() if not set(names) & set(controllers)]
    lacking = [names[0] for names in _CONTROLLERS if not set(names) & set(controllers)]
    detail = "; ".join((layout, *off))
    mend = f"boot with cgroup_enable={','.join(lacking)}, or mount the v1 controllers"
    yield Finding("cgroups", ADVICE if lacking else OK, detail, mend)


def _ids() -> Iterator[Finding]:
    for path in ("/etc/subuid", "/etc/subgid"):
        ranges = []
        for line in _read(path).splitlines():
            fields = line.split(":")
            if fields[0] in {"root", "0"} and len(fields) == 3 and fields[2].isdecimal() and int(fields[2]) >= _IDS:
                ranges.append(f"{fields[1]}+{fields[2]}")
        detail = ranges[0] if ranges else "no range of root's; 1000000+1000000000 is used"
        mend = f"echo root:1000000:1000000000 >> {path}"
        yield Finding(path, OK if ranges else ADVICE, detail, mend)


def _host() -> Iterator[Finding]:
    forward = _read("/proc/sys/net/ipv4/ip_forward")
    detail = "on" if forward == "1" else "off; bridges with an address turn it on"
    yield Finding("IPv4 forwarding", OK if forward == "1" else ADVICE, detail, "sysctl -w net.ipv4.ip_forward=1")
    directory = var_dir()
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    free = shutil.disk_usage(directory).free
    detail = f"{binary_size(free)} free at {directory}"
    yield Finding("disk space", OK if free >= _SPACE else ADVICE, detail, "make room: an image takes about 1 GiB")


def _lan() -> Iterator[Finding]:
    """Say whether instances can be put on the host's own network: the one of its default route."""
    rows = (line.split() for line in _read("/proc/net/route").splitlines()[1:])
    name = next((row[0] for row in rows if row[1] == "00000000"), "")
    if not name:
        yield Finding("own network", OK, "no default route")
        return
    directory = f"/sys/class/net/{name}"
    if os.path.isdir(f"{directory}/bridge"):
        how = "--lan" if name == "br0" else f"-n {name}"
        yield Finding("own network", OK, f"{name} is a bridge; pylxc launch {how} puts an instance on it")
    elif os.path.exists(f"{directory}/phy80211"):
        detail = f"{name} is wireless, which cannot be bridged"
        yield Finding("own network", ADVICE, detail, "reach instances by forwards on a managed network")
    else:
        yield Finding("own network", OK, f"{name}; for instances on it: pylxc network create br0 --lan {name}")
    if _read("/proc/sys/net/bridge/bridge-nf-call-iptables") == "1":
        yield Finding("br_netfilter", OK, "firewalls see bridged frames too; pylxc adds rules that let them pass")


def _daemon() -> Iterator[Finding]:
    path = default_socket()
    try:
        environment = Client().server["environment"]
    except PylxcError as error:
        yield Finding("daemon", ADVICE, str(error), "any command of root starts it; or: pylxc admin units --install")
        return
    version = environment.get("pylxc_version") or environment["server_version"]
    yield Finding("daemon", OK, f"{environment['server']} {version} answers on {path}")


def findings() -> list[Finding]:
    """Return the results of all checks."""
    return [one for check in (_kernel, _cgroups, _ids, _tools, _host, _lan, _daemon) for one in check()]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _run(_session: Session, args: Args) -> int:
    found = findings()
    rows = [[one.name, one.state, one.detail, one.mend] for one in found]
    data = [{"name": one.name, "state": one.state, "detail": one.detail, "mend": one.mend} for one in found]
    show(args.format, ("CHECK", "STATE", "DETAIL", "TO MEND"), rows, data)
    return 1 if any(one.state == MISSING for one in found) else 0


COMMANDS = (
    Command(
        "doctor",
        "Check what pylxc needs of this host",
        "",
        _run,
        options=(FORMAT,),
        details='The exit status is 1 when something is missing that nothing works without; "advice" is not.',
    ),
)

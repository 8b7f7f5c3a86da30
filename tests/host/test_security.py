"""Security keys as a guest feels them: system calls, ids, what of raw.* has an equal here."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pylxc.services.instances import idmap
from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique

TOOLS = {"type": "disk", "source": "/", "path": "/host", "readonly": "true"}
"""The host's programs, as a guest has few: `chroot /host python3`."""


@pytest.fixture(scope="module", autouse=True)
def pool(module_daemon: Daemon) -> None:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})


Launch = Callable[..., str]


@pytest.fixture
def launch(daemon: Daemon, busybox: str) -> Any:
    """Return a function that starts a guest with a configuration and returns its name."""

    def start(config: dict[str, str], **devices: dict[str, str]) -> str:
        name = unique("c")
        body = {"name": name, "source": {"type": "image", "alias": busybox}, "start": True}
        daemon.request("POST", "/1.0/instances", {**body, "config": config, "devices": devices})
        return name

    yield start
    daemon.delete_all()


def sh(daemon: Daemon, guest: str, script: str) -> str:
    done = daemon.command("exec", guest, "--", "sh", "-c", script, check=False)
    return done.stdout + done.stderr


def ids(daemon: Daemon, guest: str, kind: str = "uid") -> list[list[int]]:
    return [
        [int(each) for each in line.split()] for line in sh(daemon, guest, f"cat /proc/self/{kind}_map").splitlines()
    ]


def refused(text: str, call: Callable[..., Any], *args: Any) -> None:
    with pytest.raises(ApiError) as caught:
        call(*args)
    assert text in caught.value.text
    assert "\n" not in caught.value.text


CALL_OF_32_BITS = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex('53b814000000cd805bc3'))
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))())
"""
"""getpid by int 0x80, the way of i386, wrapped in saving rbx."""


def test_calls_of_foreign_abis(daemon: Daemon, launch: Launch) -> None:
    def call(guest: str) -> int:
        done = daemon.command("exec", guest, "--", "chroot", "/host", "/usr/bin/python3", "-c", CALL_OF_32_BITS)
        return int(done.stdout)

    assert call(launch({}, host=TOOLS)) > 0
    for key in ("deny_compat", "blacklist_compat"):
        assert call(launch({f"security.syscalls.{key}": "true"}, host=TOOLS)) == -38


@pytest.mark.parametrize("names", [("deny", "allow", "deny_default"), ("blacklist", "whitelist", "blacklist_default")])
def test_lists_of_calls(daemon: Daemon, launch: Launch, names: tuple[str, str, str]) -> None:
    """By their names, and by those that they had in LXD 4.0."""
    deny, allow, deny_default = (f"security.syscalls.{name}" for name in names)

    def called(guest: str) -> list[int]:
        """Return what became of each call, and how the process that made them ended."""
        python = ("chroot", "/host", "/usr/bin/python3", "-c", CALLS)
        done = daemon.command("exec", guest, "--", *python, check=False)
        return [*map(int, done.stdout.split()), done.returncode]

    assert called(launch({}, host=TOOLS)) == [0, errno.ENOSYS, 0]
    assert called(launch({deny: "sethostname errno 77\nmount"}, host=TOOLS)) == [77, errno.ENOSYS, 0]
    assert called(launch({deny_default: "false"}, host=TOOLS))[1] in (errno.EPERM, errno.EFAULT)
    every = "\n".join(name for name in every_call() if name != "sethostname")
    assert called(launch({allow: every}, host=TOOLS)) == [128 + signal.SIGSYS]


OPEN_BY_HANDLE = {"x86_64": 304, "aarch64": 265}[os.uname().machine]
CALLS = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
for call in (lambda: libc.sethostname(b"other", 5), lambda: libc.syscall({OPEN_BY_HANDLE}, 0, 0, 0, 0)):
    print(ctypes.get_errno() if call() else 0)
"""
"""What becomes of sethostname and of open_by_handle_at."""


def every_call() -> list[str]:
    """Return the names of all system calls that libseccomp knows."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_char_p
    native = library.seccomp_arch_native()
    names = (library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(native), number) for number in range(600))
    return [name.decode() for name in names if name]


POLICY = """2
denylist errno 95
reject_force_umount
[all]
sethostname
chmod errno 1 [1,0x800,SCMP_CMP_MASKED_EQ,0x800]
fchmodat errno 1 [2,0x800,SCMP_CMP_MASKED_EQ,0x800]
"""


def test_policy_of_ones_own(daemon: Daemon, launch: Launch) -> None:
    guest = launch({"raw.seccomp": POLICY})
    assert "not supported" in sh(daemon, guest, "hostname other")
    assert sh(daemon, guest, "touch /tmp/f && chmod 755 /tmp/f && echo allowed") == "allowed\n"
    assert "not permitted" in sh(daemon, guest, "chmod 4755 /tmp/f")
    assert "Permission denied" in sh(daemon, guest, "mount -t tmpfs none /mnt && umount -f /mnt")
    # The lists do not count beside it; what no guest may do still does.
    assert "not permitted" in sh(daemon, guest, "dmesg")
    patch = {"config": {"raw.seccomp": "2\ndenylist\nread kill [7,1,SCMP_CMP_EQ]"}}
    refused("raw.seccomp line 3: a condition is", daemon.request, "PATCH", f"/1.0/instances/{guest}", patch)
    assert daemon.request("GET", f"/1.0/instances/{guest}")["config"]["raw.seccomp"] == POLICY


def test_configuration_of_liblxc(daemon: Daemon, launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    (tmp_path / "file").chmod(0o644)
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o011)
    lines = (
        f"lxc.mount.entry = {tmp_path} srv/shared none bind,ro,create=dir 0 0",
        "lxc.mount.entry = none /scratch tmpfs size=1M,create=dir",
        "lxc.environment = COLOUR=red",
        "lxc.prlimit.nofile = 123:456",
        "lxc.sysctl.net.ipv4.ip_forward = 1",
        "lxc.cap.drop = net_raw mknod",
    )
    guest = launch({"raw.lxc": "\n".join(lines)})
    script = (
        "cat /srv/shared/file; touch /srv/shared/x 2>&1; grep -c '/scratch tmpfs' /proc/mounts;"
        "tr '\\0' '\\n' </proc/1/environ; cat /proc/sys/net/ipv4/ip_forward;"
        "ulimit -n; ulimit -Hn; grep CapBnd /proc/self/status"
    )
    shown = sh(daemon, guest, script).splitlines()
    assert shown[0] == "of the host"
    assert any("Read-only file system" in line for line in shown)
    assert {"COLOUR=red", "123", "456", "1"} <= set(shown)
    bounding = int(shown[-1].split()[1], 16)
    assert [bounding >> number & 1 for number in (13, 27, 21)] == [0, 0, 1]  # net_raw, mknod, sys_admin
    before = daemon.instances()
    refused("raw.lxc line 1: the key lxc.net.0.type has no equal", launch, {"raw.lxc": "lxc.net.0.type = veth"})
    assert daemon.instances() == before


def test_another_init(daemon: Daemon, launch: Launch) -> None:
    guest = launch({"raw.lxc": "lxc.init.cmd = /bin/sleep 7777"})
    assert sh(daemon, guest, "tr '\\0' ' ' < /proc/1/cmdline") == "/bin/sleep 7777 "


def test_maps_of_ids(daemon: Daemon, launch: Launch) -> None:
    isolated = {"security.idmap.isolated": "true"}
    assert ids(daemon, launch({**isolated, "security.idmap.size": "100000"}))[0][2] == 100000
    chosen = launch({**isolated, "security.idmap.base": "5000000"})
    assert ids(daemon, chosen) == ids(daemon, chosen, "gid") == [[0, 5000000, 65536]]
    raw = launch({**isolated, "raw.idmap": "uid 4242 1000\ngid 50 60"})
    assert [1000, 4242, 1] in ids(daemon, raw)
    assert [60, 50, 1] in ids(daemon, raw, "gid")
    assert sh(daemon, raw, "touch /tmp/f && chown 1000:60 /tmp/f && ls -ln /tmp/f").split()[2:4] == ["1000", "60"]
    before = daemon.instances()
    taken = (
        "Of the 65536 ids from security.idmap.base=5065535 on another isolated instance has some: 5000000 to 5065535"
    )
    refused(taken, launch, {**isolated, "security.idmap.base": "5065535"})
    # What it runs with is not free before it has ended.
    patch = {"config": {"security.idmap.isolated": "false", "security.idmap.base": ""}}
    daemon.request("PATCH", f"/1.0/instances/{chosen}", patch)
    refused("5000000 to 5065535", launch, {**isolated, "security.idmap.base": "5000000"})
    daemon.command("stop", "--force", chosen)
    assert ids(daemon, launch({**isolated, "security.idmap.base": "5000000"}))[0][1] == 5000000
    before = daemon.instances()
    refused("Not enough ids of the host", launch, {**isolated, "security.idmap.size": "4000000000"})
    assert daemon.instances() == before


def test_files_keep_their_owners_on_disk(daemon: Daemon, launch: Launch) -> None:
    """Whatever the map of ids: `security.protection.shift` always holds."""
    guest = launch({"security.protection.shift": "true", "security.idmap.isolated": "true"})
    sh(daemon, guest, "touch /root/own; chown 12:34 /root/own")
    owners = [os.stat(f"{daemon.dir}/storage-pools/default/containers/{guest}/rootfs/{p}") for p in ("etc", "root/own")]
    assert [(each.st_uid, each.st_gid) for each in owners] == [(0, 0), (12, 34)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("root:1000000:65536\nroot:many\n", ""),
        ("root:many\n", "Line 1 of /etc/subuid is malformed: 'root:many'"),
        ("root:1:100\n", "Root has no range of 65536 ids in /etc/subuid"),
        ("", ""),
    ],
)
def test_ids_of_the_host_that_are_not_as_they_should_be(
    make_daemon: Callable[..., Daemon], busybox_files: list[str], tmp_path: Path, content: str, text: str
) -> None:
    daemon = make_daemon()
    fake = tmp_path / "subuid"
    fake.write_text(content)
    daemon.start(without="/etc/subuid", instead=str(fake))
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    done = daemon.command("image", "import", *busybox_files, "--alias", "busybox", check=not text)
    if text:
        assert text in done.stderr
    else:
        daemon.command("launch", "busybox", "c1")
    assert daemon.instances() == ({} if text else {"c1": "Running"})


def test_starts_at_once_choose_ranges_that_nobody_else_has(
    make_daemon: Callable[..., Daemon], busybox_files: list[str], tmp_path: Path
) -> None:
    """When none of the ranges that were chosen before is root's any more."""
    daemon = make_daemon()
    daemon.start()
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    daemon.import_image("busybox", busybox_files)
    names = [f"c{number}" for number in range(9)]
    for name in names:
        body = {"name": name, "source": {"type": "image", "alias": "busybox"}}
        daemon.request("POST", "/1.0/instances", {**body, "config": {"security.idmap.isolated": "true"}})
    daemon.stop()
    begin = idmap.host_range("/etc/subgid")[0] + 1_000_000
    (tmp_path / "subuid").write_text(f"root:{begin}:600000\n")
    daemon.start(without="/etc/subuid", instead=str(tmp_path / "subuid"))

    def start(name: str) -> str:
        try:
            daemon.request("PUT", f"/1.0/instances/{name}/state", {"action": "start"})
        except ApiError as error:
            return error.text
        return ""

    with ThreadPoolExecutor(len(names)) as pool:
        (said,) = filter(None, pool.map(start, names))
    assert "Not enough ids of the host for an isolated map of 65536" in said
    first = [ids(daemon, name)[0][1] for name, status in daemon.instances().items() if status == "Running"]
    assert sorted(first) == [begin + idmap.WIDTH * number for number in range(1, 9)]

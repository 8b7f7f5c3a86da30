"""A stock Debian 12 host (systemd, cgroup v2 only, AppArmor) under QEMU's software emulation, with pylxc installed.

The root file system is made by mmdebstrap and `mke2fs -d`. The kernel has NVMe and ext4 built in and so needs no
initial RAM disk. Commands go over a serial line to `agent.py` in the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.images import CACHE

CHECKOUT = Path(__file__).resolve().parents[2]
CONTRACT = "test_storage_drivers.py"
"""Tests of storage drivers that the machine runs on its own file systems."""
PACKAGES = (
    "systemd-sysv,udev,dbus,kmod,linux-image-cloud-amd64,python3,python3-venv,iproute2,dnsmasq-base,nftables,"
    "squashfs-tools,btrfs-progs,rsync,libseccomp2,apparmor,procps,ca-certificates,xz-utils,zstd,busybox-static,"
    "e2fsprogs,lxd-client"
)
# What takes a third of an emulated boot and has nothing to do here.
NEEDLESS_UNITS = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty@tty1.service", "serial-getty@ttyS0.service",
)  # fmt: skip
# What costs half of the time when it is emulated, and is not what the tests are about.
CPU = "max,-la57,-smap,-smep,-pku"
KERNEL_WORDS = "mitigations=off init_on_alloc=0 tsc=reliable transparent_hugepage=never"
# Without the default dependencies it answers until the last of the shutdown.
AGENT_UNIT = """\
[Unit]
Description=Commands from the test
DefaultDependencies=no
After=basic.target
[Service]
ExecStart=/usr/bin/python3 /usr/local/lib/agent.py /dev/ttyS1
[Install]
WantedBy=multi-user.target
"""


def _run(*argv: str | Path) -> None:
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{argv[0]} failed: {done.stdout[-2000:]}{done.stderr[-2000:]}"


def _cached(name: str, key: str) -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    return CACHE / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.tar"


def base_tar() -> Path:
    """Return a tar of a Debian 12 host without pylxc, made once."""
    tar = _cached("vm-base", PACKAGES)
    if not tar.exists():
        partial = tar.with_suffix(".part.tar")
        _run(
            "mmdebstrap", "--mode=root", "--variant=minbase", f"--include={PACKAGES}",
            "--aptopt=APT::Install-Recommends \"false\"",
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
            "bookworm", partial,
        )  # fmt: skip
        partial.rename(tar)
    return tar


def _install_pylxc(tree: Path) -> None:
    """Put a virtual environment with this checkout's wheel at /opt/pylxc of the tree."""
    wheels = tree / "var/tmp/wheels"
    wheels.mkdir(parents=True)
    pip: list[str | Path] = [
        CHECKOUT / ".venv/bin/python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "-q",
        "wheel",
    ]
    _run(*pip, "--wheel-dir", wheels, CHECKOUT)
    _run("chroot", tree, "python3", "-m", "venv", "/opt/pylxc")
    _run("chroot", tree, "sh", "-c", "/opt/pylxc/bin/pip -q install --no-index --find-links /var/tmp/wheels pylxc")
    for command in ("pylxc", "pylxcd"):
        (tree / "usr/local/bin" / command).symlink_to(f"/opt/pylxc/bin/{command}")
    shutil.rmtree(wheels)


def build_disk(disk: Path, *, files: dict[Path, str]) -> tuple[Path, Path]:
    """Make the machine's root disk and return (disk, kernel).

    Args:
        disk: the file to make, 6 GiB, sparse.
        files: what to copy from this host into the machine: source to absolute target.
    """
    with tempfile.TemporaryDirectory(prefix="pylxc-vm-", dir=disk.parent) as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        _run("tar", "-xpf", base_tar(), "-C", tree, "--numeric-owner", "--xattrs", "--xattrs-include=*")
        _install_pylxc(tree)
        shutil.copy(Path(__file__).with_name("agent.py"), tree / "usr/local/lib/agent.py")
        (tree / "etc/systemd/system/agent.service").write_text(AGENT_UNIT)
        _run("systemctl", f"--root={tree}", "enable", "agent.service") if shutil.which("systemctl") else (
            tree / "etc/systemd/system/multi-user.target.wants/agent.service"
        ).symlink_to("/etc/systemd/system/agent.service")
        for unit in NEEDLESS_UNITS:
            (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
        (tree / "etc/hostname").write_text("stock\n")
        for source, target in files.items():
            (tree / target.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tree / target.lstrip("/"))
        kernel = disk.with_suffix(".kernel")
        shutil.copy(next((tree / "boot").glob("vmlinuz-*")), kernel)
        for unneeded in (tree / "boot").iterdir():
            unneeded.unlink()
        disk.unlink(missing_ok=True)
        _run("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", tree, disk, "6G")
    return disk, kernel


class StockHost:
    """A running machine; a context manager.

    Args:
        disk: its root disk; changes stay in it, so that a reboot finds them.
        kernel: the kernel to boot.
        append: more words for the kernel's command line.
    """

    def __init__(self, disk: Path, kernel: Path, *, append: str = "") -> None:
        self.disk, self.kernel, self.append = disk, kernel, append
        self.console = disk.with_suffix(".console")
        self._qemu: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._buffer = b""

    def __enter__(self) -> StockHost:
        self.boot()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def boot(self, timeout: float = 180) -> None:
        """Start the machine and wait until its agent answers."""
        ours, theirs = socket.socketpair()
        fd = theirs.fileno()
        self._qemu = subprocess.Popen(
            [
                "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", "3072",
                "-display", "none", "-nodefaults", "-no-user-config", "-no-reboot",
                "-kernel", str(self.kernel),
                "-append", f"root=/dev/nvme0n1 rw console=ttyS0 quiet panic=-1 {KERNEL_WORDS} {self.append}",
                "-drive", f"file={self.disk},format=raw,if=none,id=root,cache=unsafe",
                "-device", "nvme,drive=root,serial=root",
                "-serial", f"file:{self.console}",
                "-chardev", f"socket,id=agent,fd={fd}", "-serial", "chardev:agent",
                "-device", "virtio-rng-pci",
                "-netdev", "user,id=lan,restrict=on", "-device", "virtio-net-pci,netdev=lan,romfile=",
            ],
            pass_fds=[fd], stdin=subprocess.DEVNULL,
        )  # fmt: skip
        theirs.close()
        self._line, self._buffer = ours, b""
        try:
            while not self._receive(timeout).get("ready"):
                pass
        except (TimeoutError, ConnectionError) as error:
            self.kill()
            raise AssertionError(f"The machine did not boot: {error}\n{self.console_tail()}") from error

    def run(self, *argv: str, timeout: float = 120) -> tuple[int, str]:
        """Run a command in the machine and return (exit status, output)."""
        assert self._line is not None
        self._line.sendall(json.dumps({"argv": argv, "timeout": timeout}).encode() + b"\n")
        answer = self._receive(timeout + 30)
        return answer["rc"], answer["out"]

    def check(self, *argv: str, timeout: float = 120) -> str:
        """Run a command that must succeed; return its output."""
        status, out = self.run(*argv, timeout=timeout)
        assert status == 0, f"{' '.join(argv)}: exit {status}\n{out[-4000:]}"
        return out

    def reboot(self) -> None:
        """Shut the machine down in an orderly way and start it again."""
        self.power_off()
        self.boot()

    def power_off(self, timeout: float = 180) -> None:
        """Shut the machine down in an orderly way."""
        assert self._line is not None
        assert self._qemu is not None
        self._line.sendall(
            json.dumps({"argv": ["systemctl", "poweroff", "--no-block"], "timeout": 30}).encode() + b"\n"
        )
        self._qemu.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """Cut the machine's power."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._qemu is not None:
            with contextlib.suppress(ProcessLookupError):
                self._qemu.kill()
            self._qemu.wait()
            self._qemu = None

    def console_tail(self) -> str:
        """The end of the machine's console."""
        return self.console.read_text(errors="replace")[-4000:] if self.console.exists() else ""

    def _receive(self, timeout: float) -> dict[str, Any]:
        assert self._line is not None
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            self._line.settimeout(max(deadline - time.monotonic(), 0.01))
            data = self._line.recv(1 << 16)
            if not data:
                raise ConnectionError("the machine is gone")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

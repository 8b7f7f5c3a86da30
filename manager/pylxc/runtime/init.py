"""PID 1-to-be: what the monitor's child does in its new namespaces until it becomes the container's init.

It tells the monitor of an error as `{"error": {step, errno, message}}`; the socket's end without one means that init
runs. Nothing of the guest runs before that, so nothing can interfere.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
from fcntl import ioctl

from pylxc.kernel import caps, namespaces, seccomp
from pylxc.kernel import fds as descriptors
from pylxc.runtime import protocol, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pylxc.runtime.spec import ContainerSpec

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1


def run(spec: ContainerSpec, monitor: socket.socket, entrances: list[int], program: bytes) -> NoReturn:
    """Become the container's init; never returns.

    Args:
        spec: the container.
        monitor: socket to the monitor; says `{"trees": [names], "staged": [names]}` with descriptors, later "go".
        entrances: `tasks` of the cgroups to join.
        program: compiled seccomp filter, empty for none.
    """
    starter = _Starter(spec, monitor, program)
    try:
        starter.run(entrances)
    except BaseException as error:  # noqa: BLE001 (nothing may climb out of this process)
        try:
            protocol.send(monitor, protocol.describe_error(error, starter.step))
        finally:
            os._exit(1)


class _Starter:
    """The steps in their order; `step` names the one that runs, for the error."""

    def __init__(self, spec: ContainerSpec, monitor: socket.socket, program: bytes) -> None:
        self.step = ""
        self._spec = spec
        self._monitor = monitor
        self._program = program

    def run(self, entrances: list[int]) -> NoReturn:
        spec = self._spec
        self.step = "joining the control group"
        descriptors.close_all_but([0, 1, 2, self._monitor.fileno(), *entrances])
        for fd in entrances:
            os.write(fd, b"0")
            os.close(fd)
        # From here on a module could be loaded from the guest's tree: nothing is imported any more.
        sys.meta_path.clear()
        sys.path.clear()

        message, fds = self._hear()
        trees = dict(zip(message["trees"], fds, strict=True))
        self.step = "making the namespaces"
        namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWCGROUP)
        trees |= rootfs.take_staged(spec, message["staged"])
        self.step = "becoming the container's root"
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        caps.set_parent_death_signal(signal.SIGKILL)
        caps.join_new_session_keyring()
        socket.sethostname(spec.hostname)
        os.setsid()

        self.step = "mounting the container's file systems"
        os.umask(0)
        builder = rootfs.Builder(spec, trees)
        builder.open_host()
        builder.pivot()
        master = builder.fill()
        os.umask(0o022)
        descriptors.replace_stdio(builder.console_fd)
        # The slave too: as long as one is open the master does not hang up.
        protocol.send(self._monitor, {"console": True}, [master, builder.console_fd])
        os.close(master)

        self._hear()
        self.step = "setting up the network"
        _bring_loopback_up()
        for name, value in spec.sysctls.items():
            self.step = f"setting sysctl {name}"
            builder.write_sysctl(name, value)
        if spec.idmap is None:
            self.step = "protecting /proc"
            builder.protect_proc()
        self._confine()
        self.step = f"executing {spec.init[0]}"
        os.execve(spec.init[0], spec.init, {"container": "lxc", **spec.environment})  # noqa: S606 (that is the job)

    def _hear(self) -> tuple[protocol.Message, list[int]]:
        received = protocol.receive(self._monitor)
        if received is None:
            # The monitor gave up or was killed; there is nobody to tell.
            os._exit(1)
        return received

    def _confine(self) -> None:
        """Give up what the container must not have."""
        spec = self._spec
        self.step = "confining the container"
        if spec.confinement.apparmor:
            with open("/proc/self/attr/apparmor/exec", "w") as file:
                file.write(f"exec {spec.confinement.apparmor}")
        descriptors.close_all_but([0, 1, 2, self._monitor.fileno()])
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        # Loading a filter needs CAP_SYS_ADMIN; dropping capabilities needs calls that a filter may deny.
        early = "sys_admin" in spec.confinement.drop_capabilities
        if self._program and early:
            seccomp.load(self._program)
        caps.drop(spec.confinement.drop_capabilities)
        if self._program and not early:
            seccomp.load(self._program)
        if spec.init_user or spec.init_group:
            os.setresgid(spec.init_group, spec.init_group, spec.init_group)
            os.setresuid(spec.init_user, spec.init_user, spec.init_user)
            caps.set_parent_death_signal(signal.SIGKILL)


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", ioctl(sock, _SIOCGIFFLAGS, request))[1]
        ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))

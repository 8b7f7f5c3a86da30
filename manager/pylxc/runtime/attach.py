"""A process that enters a running container and becomes a command there.

It gets all that PID 1's children have (cgroups, namespaces, ids, capabilities, seccomp, AppArmor, rlimits) and holds
nothing of the host but its three descriptors. All of that is done by a process outside of the container's pid
namespace, which the guest cannot see; its sibling, born inside, has nothing left to do but to become the command. Until
then it is not dumpable, so that the guest can neither trace it nor reach the host's interpreter through /proc/PID/exe,
and where nothing keeps the guest from that (a privileged container), it finds nothing that it had not already.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import sys
import termios
from typing import Any, NoReturn

from pylxc.errors import BadRequest
from pylxc.kernel import caps, cgroup, fds, namespaces, procfs, rlimits, seccomp, sibling

NOT_EXECUTABLE = 126
NOT_FOUND = 127
DEV_NULL = os.makedev(1, 3)
_PTMX = os.makedev(5, 2)
_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_REPORT = 3
_MAX_FD = 2**31 - 1
_EXECUTING = "executing the command"


def read_state(run_dir: str) -> dict[str, Any]:
    """Return what the monitor of the container that runs in `run_dir` has written down.

    Raises:
        BadRequest: none runs there.
    """
    try:
        with open(f"{run_dir}/state.json", encoding="utf-8") as file:
            state: dict[str, Any] = json.load(file)
    except FileNotFoundError:
        raise BadRequest("Instance is not running") from None
    return state


def open_init(state: dict[str, Any]) -> int:
    """Return a pidfd of a container's PID 1.

    Raises:
        BadRequest: it has ended.
    """
    try:
        fd = os.pidfd_open(state["init_pid"])
        # The descriptor holds the process: if it is still the one that was started, its number was not used again.
        if procfs.start_time(state["init_pid"]) == state["init_start_time"]:
            return fd
        os.close(fd)
    except (ProcessLookupError, FileNotFoundError):
        pass
    raise BadRequest("Instance is not running")


class Entry:
    """What it takes to enter a running container, opened while the host is still in view.

    Attributes:
        pidfd: of the container's PID 1.
        cgroup_fd: the cgroup v2 directory to be born in.
        entrances: open `tasks` of its v1 cgroups; on a host with cgroup v2 alone there are none.
    """

    def __init__(self, run_dir: str) -> None:
        """Open the container that runs in `run_dir`.

        Raises:
            BadRequest: it does not run (any more).
            OSError: it has just gone.
        """
        caps.set_dumpable(False)
        state = read_state(run_dir)
        self.spec: dict[str, Any] = state["spec"]
        self.pidfd = open_init(state)
        self.cgroup_fd = cgroup.open_for_entry(state["cgroups"]["unified"])
        # A task that moves itself takes no lock; moving a process from outside waits for an RCU grace period.
        self.entrances = [os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC) for path in state["cgroups"]["v1"]]
        self.seccomp = b""
        if state.get("seccomp"):
            with open(state["seccomp"], "rb") as file:
                self.seccomp = file.read()
        self.proc_fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def flags(self) -> int:
        """The namespaces to join; with that of pids it is the later children that are inside."""
        flags = (
            namespaces.CLONE_NEWNS
            | namespaces.CLONE_NEWPID
            | namespaces.CLONE_NEWUTS
            | namespaces.CLONE_NEWIPC
            | namespaces.CLONE_NEWNET
            | namespaces.CLONE_NEWCGROUP
        )
        if self.spec["idmap"]:
            flags |= namespaces.CLONE_NEWUSER
        if self.spec["time_namespace"]:
            flags |= namespaces.CLONE_NEWTIME
        return flags


def run(entry: Entry, spec: dict[str, Any], stdio: list[int], report: socket.socket) -> NoReturn:
    """Make the command of `spec` (an ExecSpec as JSON) a process inside the container; runs in a forked child.

    The child was born in the container's cgroup. The command is a child of this one's parent.

    Args:
        entry: where to.
        spec: what.
        stdio: three descriptors; for an interactive one [], it gets a terminal of the container.
        report: gets `pty` with the terminal's master, `{"pid": N}`, then {"return", "error"} when there is no exec;
            closed by exec.
    """
    step = "joining the container"
    report_fd = report.fileno()
    try:
        _join(entry)
        forget_host()
        step = "preparing the process"
        stdio = _terminal(spec, report) if spec["interactive"] else [_own_null(fd) for fd in stdio]
        _place_descriptors(stdio, report_fd)
        report_fd = _REPORT
        told_fd, telling_fd = os.pipe()
        _confine(entry, spec)
        _reset_signals()
        if pid := sibling.fork():
            os.write(_REPORT, json.dumps({"pid": pid}).encode())
            os._exit(0)
        # The supervisor hears of the command before anybody else can: signals from now on are for the command.
        os.close(telling_fd)
        os.read(told_fd, 1)
        os.setsid()
        if spec["interactive"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        step = _EXECUTING
        _execute(spec)
    except BaseException as error:  # noqa: BLE001 - nothing may climb out of a forked child
        _report(report_fd, step, error)


def forget_host() -> None:
    """Make sure that nothing is imported from now on: the file system in view is the guest's."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def _join(entry: Entry) -> None:
    for fd in entry.entrances:
        os.write(fd, b"0")
    # As the host's root still: the container's may not raise hard limits.
    for name, soft, hard in entry.spec["confinement"]["rlimits"]:
        resource.setrlimit(rlimits.number(name), (soft, hard))
    if profile := entry.spec["confinement"]["apparmor"]:
        _write(os.open("self/attr/apparmor/exec", os.O_WRONLY, dir_fd=entry.proc_fd), f"exec {profile}")
    namespaces.setns(entry.pidfd, entry.flags)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    caps.set_dumpable(False)  # changing ids has reset it
    caps.join_new_session_keyring()


def _write(fd: int, text: str) -> None:
    os.write(fd, text.encode())
    os.close(fd)


def _terminal(spec: dict[str, Any], report: socket.socket) -> list[int]:
    """Make a terminal in the container's own devpts, pass its master on, return the slave three times."""
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    status = os.fstat(master)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
        raise BadRequest("the container's /dev/pts/ptmx is no terminal multiplexer")
    os.set_blocking(master, True)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    # By the master, not by its path: what the path leads to is for the guest to choose.
    slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", spec["height"], spec["width"], 0, 0))
    os.fchown(slave, spec["uid"], -1)
    fds.send(report, b"pty", [master])
    os.close(master)
    return [slave, slave, slave]


def _own_null(fd: int) -> int:
    """Put the container's own /dev/null in the place of the host's (a privileged guest could change its mode)."""
    if os.fstat(fd).st_rdev != DEV_NULL:
        return fd
    try:
        own = os.open("/dev/null", os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return fd
    if os.fstat(own).st_rdev != DEV_NULL:
        return fd
    os.set_blocking(own, True)
    return own


def _place_descriptors(stdio: list[int], report_fd: int) -> None:
    """Make `stdio` 0, 1 and 2 and `report_fd` REPORT; close all others."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (*stdio, report_fd)]
    for number, fd in enumerate(high):
        os.dup2(fd, number, inheritable=number < _REPORT)
    os.closerange(_REPORT + 1, _MAX_FD)


def _confine(entry: Entry, spec: dict[str, Any]) -> None:
    """Give up what PID 1 has not either, and become the user that was asked for."""
    confinement = entry.spec["confinement"]
    dropped = tuple(confinement["drop_capabilities"])
    # Loading a filter needs CAP_SYS_ADMIN, which goes with the change of user at the latest.
    early = "sys_admin" in dropped
    if entry.seccomp and early:
        seccomp.load(entry.seccomp)
    caps.drop(dropped)
    os.setresgid(spec["gid"], spec["gid"], spec["gid"])
    if entry.seccomp and not early:
        seccomp.load(entry.seccomp)
    os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    caps.set_dumpable(False)
    os.umask(0o022)
    try:
        os.chdir(spec["cwd"])
    except OSError:
        os.chdir("/")


def _reset_signals() -> None:
    """Give the command the signals of a fresh process: the interpreter ignores some, and exec keeps that."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _execute(spec: dict[str, Any]) -> NoReturn:
    """execvpe(3) with the PATH of the new environment.

    Raises:
        OSError: ENOENT when there is no such command, else why the last candidate cannot be executed.
    """
    command, environment = spec["command"], spec["environment"]
    name = command[0]
    environment.setdefault("PATH", _default_path())
    directories = [""] if "/" in name else environment["PATH"].split(":")
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for directory in directories:
        try:
            os.execve(os.path.join(directory, name), command, environment)  # noqa: S606 - no shell is wanted
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            failure = error
    raise failure


def _default_path() -> str:
    """Return LXD's PATH for a command that was given none; called inside the container."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if os.path.isdir("/snap"):
        path += ":/snap/bin"
    if os.path.exists("/etc/NIXOS"):
        path += ":/run/current-system/sw/bin"
    return path


def _report(report_fd: int, step: str, error: BaseException) -> NoReturn:
    """Tell the supervisor why there is no command, and end."""
    if step != _EXECUTING:
        reason = getattr(error, "strerror", None) or str(error)
        outcome = {"return": 1, "error": f"Failed {step}: {reason}"}
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        outcome = {"return": NOT_FOUND, "error": "Command not found"}
    else:
        outcome = {"return": NOT_EXECUTABLE, "error": "Command not executable"}
    try:
        os.write(report_fd, json.dumps(outcome).encode())
    finally:
        os._exit(1)

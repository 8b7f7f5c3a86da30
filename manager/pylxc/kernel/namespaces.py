"""Namespaces: make and enter. A process with a second thread can do neither for user and mount."""

from __future__ import annotations

import ctypes
import os

from pylxc.kernel.libc import NUMBERS, syscall

# See: linux/sched.h
CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_CLONE_PIDFD = 0x1000
_CLONE_PARENT = 0x8000
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17
_MS_BIND = 0x1000
_MNT_DETACH = 2

_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long


_CLONE_ARGS = "flags pidfd child_tid parent_tid exit_signal stack stack_size tls set_tid set_tid_size cgroup"


class _CloneArgs(ctypes.Structure):
    """struct clone_args. See: linux/sched.h."""

    _fields_ = [(name, ctypes.c_uint64) for name in _CLONE_ARGS.split()]


def unshare(flags: int) -> None:
    """Move the caller (for pid and time: its later children) into new namespaces.

    Raises:
        OSError: EINVAL when the process has more than one thread, see unshare(2).
    """
    syscall("unshare", flags)


def setns(fd: int, flags: int = 0) -> None:
    """Enter the namespace that `fd` is, or with a pidfd those of its process that `flags` name.

    Raises:
        OSError: see setns(2).
    """
    syscall("setns", fd, flags)


def clone(flags: int, *, cgroup_fd: int = -1, sibling: bool = False) -> tuple[int, int]:
    """Fork into new namespaces, like `os.fork` with flags; the caller must be single-threaded.

    Args:
        flags: `CLONE_NEW*`.
        cgroup_fd: directory of the cgroup v2 group that the child is born in, -1 for the caller's.
        sibling: make it a child of the caller's parent, with the signal at its end that the caller's own end sends.

    Returns:
        (0, -1) in the child, (pid, pidfd) in the parent, which closes the pidfd.

    Raises:
        OSError: see clone3(2).
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=flags | _CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=_SIGCHLD)
    if sibling:
        args.flags |= _CLONE_PARENT
        args.exit_signal = 0
    if cgroup_fd >= 0:
        args.flags |= _CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    # glibc has no wrapper; these are the calls that os.fork makes around fork().
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _python.syscall(
        ctypes.c_long(NUMBERS["clone3"]), ctypes.byref(args), ctypes.c_size_t(ctypes.sizeof(args))
    )
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0, -1
    error = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(error, f"clone3: {os.strerror(error)}")
    return pid, pidfd.value


def hold(namespace: str, path: str) -> None:
    """Keep a namespace, whoever of those in it ends, by a file that is it; `let_go` ends that, as does the host.

    Args:
        namespace: its file, such as /proc/PID/ns/net.
        path: of the file that is made, or was left by an earlier time of the host.

    Raises:
        OSError: ENOENT when the process has ended.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    syscall("mount", namespace, path, None, _MS_BIND, None, path=namespace)


def let_go(path: str) -> None:
    """Undo `hold`; no such file is no error."""
    if os.path.exists(path):
        if is_namespace(path):
            syscall("umount2", path, _MNT_DETACH, path=path)
        os.unlink(path)


def is_namespace(path: str) -> bool:
    """Return whether a file is a namespace (that `hold` keeps)."""
    try:
        return os.stat(path).st_dev == os.stat("/proc/self/ns/net").st_dev
    except FileNotFoundError:
        return False


def identity(kind: str, pid: int | str = "self") -> int:
    """Return the inode that names the namespace `kind` ("user", "mnt", ...) of a process."""
    return os.stat(f"/proc/{pid}/ns/{kind}").st_ino

"""clone3(2): a fork whose child is born in a cgroup, with a pidfd for its parent."""

from __future__ import annotations

import ctypes
import os

CLONE_PIDFD = 0x1000
CLONE_INTO_CGROUP = 0x200000000
SIGCHLD = 17
_NR_CLONE3 = 435  # the same on every architecture (the table was unified at 5.1)

# PyDLL keeps the interpreter's lock: the child must not find it in somebody else's hands.
_libc = ctypes.PyDLL(None, use_errno=True)


class _CloneArgs(ctypes.Structure):
    """struct clone_args. See: clone(2), linux/sched.h."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def fork(cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork this single-threaded process; return (pid, pidfd) in the parent and (0, -1) in the child.

    A child that is born in its cgroup is spared the move, which waits for an RCU grace period (5 ms and more).

    Args:
        cgroup_fd: directory of a cgroup v2 that the child starts in; None is the parent's own.

    Raises:
        OSError: EBUSY and ENODEV for a cgroup that is going away or takes no processes, EAGAIN at a process limit.

    See: clone(2).
    """
    pidfd = ctypes.c_int(-1)
    args = _CloneArgs(flags=CLONE_PIDFD, pidfd=ctypes.addressof(pidfd), exit_signal=SIGCHLD)
    if cgroup_fd is not None:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = _libc.syscall(_NR_CLONE3, ctypes.byref(args), ctypes.sizeof(args))
    if pid < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return pid, pidfd.value if pid else -1

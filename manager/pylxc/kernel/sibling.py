"""A fork whose child belongs to the caller's parent."""

from __future__ import annotations

import ctypes
import os

_CLONE_PARENT = 0x8000
_NR_CLONE = 56 if os.uname().machine == "x86_64" else 220
# PyDLL keeps the interpreter's lock: the child must not find it in somebody else's hands.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def fork() -> int:
    """Fork this single-threaded process; the child's parent is this one's parent, which gets to know of its end.

    By clone(2), as a seccomp filter that holds the caller already may well refuse clone3(2) (many do, since they
    cannot look at its flags).

    Returns:
        0 in the child, the child's pid in the caller.

    Raises:
        OSError: EAGAIN at a limit of processes, see clone(2).
    """
    # The order of the arguments after the stack differs between architectures; all of them are 0.
    zero = ctypes.c_long(0)
    pid: int = _libc.syscall(ctypes.c_long(_NR_CLONE), ctypes.c_long(_CLONE_PARENT), zero, zero, zero, zero)
    if pid < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"clone: {os.strerror(error)}")
    return pid

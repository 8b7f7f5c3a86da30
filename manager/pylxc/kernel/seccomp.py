"""Seccomp filters: compiled through libseccomp in the daemon, loaded as plain BPF where the library is not wanted."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

from pylxc.errors import BadRequest, Unavailable
from pylxc.kernel.libc import syscall

_ACT_KILL_PROCESS = 0x80000000
_ACT_TRAP = 0x00030000
_ACT_ERRNO = 0x00050000
_ACT_ALLOW = 0x7FFF0000
_FLTATR_ACT_BADARCH = 2
_NR_SCMP_ERROR = -1
_SECCOMP_SET_MODE_FILTER = 1
_INSTRUCTION_BYTES = 8

# Foreign ABIs that the kernel may run beside its own; a filter without them could be walked around.
_COMPATIBLE = {"x86_64": ("x86", "x32"), "aarch64": ("arm",)}

_COMPARE = {"!=": 1, "<": 2, "<=": 3, "==": 4, ">=": 5, ">": 6, "&=": 7}
"""enum scmp_compare. See: seccomp.h of libseccomp"""

Rule = tuple[str, str, tuple[tuple[int, str, int, int], ...]]
"""(syscall name, action, conditions on arguments: (index, operator, value, mask))"""


def compile_filter(rules: Iterable[Rule], default: str, *, compatible: bool = True) -> bytes:
    """Return the BPF program of a policy.

    Args:
        rules: names that libseccomp does not know are skipped: the kernel lacks them too.
        default: action of everything else. Actions: "allow", "kill", "trap", "errno:N".
        compatible: hold the foreign ABIs of this machine (32-bit) to the same rules; otherwise they have no calls.

    Raises:
        BadRequest: an action is malformed.
        Unavailable: libseccomp is missing.
        OSError: libseccomp refuses the policy.
    """
    library = _library()
    default_action = _action(default)
    context = library.seccomp_init(ctypes.c_uint32(default_action))
    if not context:
        raise OSError(errno.EINVAL, "seccomp_init failed")
    context = ctypes.c_void_p(context)
    try:
        # What is to become of the calls of an ABI that the filter does not have; libseccomp would kill them.
        foreign_action = default_action if compatible else _ACT_ERRNO | errno.ENOSYS
        _check(library.seccomp_attr_set(context, _FLTATR_ACT_BADARCH, ctypes.c_uint32(foreign_action)))
        for name in _COMPATIBLE.get(os.uname().machine, ()) if compatible else ():
            _check(library.seccomp_arch_add(context, library.seccomp_arch_resolve_name(name.encode())))
        for name, action, arguments in rules:
            number = library.seccomp_syscall_resolve_name(name.encode())
            value = _action(action)
            if number != _NR_SCMP_ERROR and value != default_action:
                conditions = [_ArgCmp(n, _COMPARE[op], *_data(op, v, m)) for n, op, v, m in arguments]
                array = (_ArgCmp * len(conditions))(*conditions)
                _check(library.seccomp_rule_add_array(context, ctypes.c_uint32(value), number, len(array), array))
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def load(program: bytes) -> None:
    """Load a compiled filter for this thread and all that it starts.

    The caller has CAP_SYS_ADMIN in its user namespace: no-new-privileges stays unset, setuid programs go on working.

    Raises:
        OSError: see seccomp(2).
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_program = _SockFprog(len(program) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
    syscall("seccomp", _SECCOMP_SET_MODE_FILTER, 0, filter_program)


class _SockFprog(ctypes.Structure):
    """struct sock_fprog. See: linux/filter.h."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


class _ArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp. See: seccomp.h of libseccomp."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _data(operator: str, value: int, mask: int) -> tuple[int, int]:
    """Return the two data of a condition: a masked one has its mask first."""
    return (mask, value) if operator == "&=" else (value, 0)


def _action(text: str) -> int:
    known = {"allow": _ACT_ALLOW, "kill": _ACT_KILL_PROCESS, "trap": _ACT_TRAP}
    if text in known:
        return known[text]
    kind, _, number = text.partition(":")
    if kind == "errno" and number.isdecimal() and int(number) < 4096:
        return _ACT_ERRNO | int(number)
    raise BadRequest(f"Invalid seccomp action {text!r}", hint="allow, kill, trap or errno:N")


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise Unavailable("The library libseccomp.so.2 is missing", hint="apt-get install libseccomp2") from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    return library


def _export(library: ctypes.CDLL, context: ctypes.c_void_p) -> bytes:
    fd = os.memfd_create("seccomp")
    try:
        _check(library.seccomp_export_bpf(context, fd))
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _check(result: int) -> None:
    if result < 0 and result != -errno.EEXIST:
        raise OSError(-result, f"libseccomp: {os.strerror(-result)}")

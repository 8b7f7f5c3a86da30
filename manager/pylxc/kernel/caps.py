"""Capabilities and the prctl(2) switches of a process."""

from __future__ import annotations

import ctypes
import errno

from pylxc.kernel.libc import syscall

# The order is the number. See: linux/capability.h
_ORDER = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
    "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot "
    "sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease "
    "audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read "
    "perfmon bpf checkpoint_restore "
)
NAMES = tuple(_ORDER.split())

_VERSION_3 = 0x20080522

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [
        (f"{kind}{half}", ctypes.c_uint32) for half in (0, 1) for kind in ("effective", "permitted", "inheritable")
    ]


def number(name: str) -> int:
    """Return the number of a capability named without `CAP_` in lower case.

    Raises:
        ValueError: there is none of that name.
    """
    return NAMES.index(name)


def current() -> tuple[int, int, int]:
    """Return the caller's (effective, permitted, inheritable) sets as bit masks.

    See: capget(2)
    """
    data = _Data()
    syscall("capget", _Header(_VERSION_3, 0), data)
    return (
        data.effective0 | data.effective1 << 32,
        data.permitted0 | data.permitted1 << 32,
        data.inheritable0 | data.inheritable1 << 32,
    )


def set_current(effective: int, permitted: int, inheritable: int) -> None:
    """Set the caller's capability sets (bit masks). See: capset(2)."""
    low = 0xFFFFFFFF
    data = _Data(
        effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )
    syscall("capset", _Header(_VERSION_3, 0), data)


def drop_from_bounding(numbers: set[int]) -> None:
    """Take capabilities out of the caller's bounding set; those that the kernel does not know are skipped.

    See: PR_CAPBSET_DROP in prctl(2)
    """
    for capability in numbers:
        try:
            syscall("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise


def drop(names: tuple[str, ...]) -> None:
    """Take capabilities away for good: bounding, effective, permitted and inheritable; ambient is emptied.

    Raises:
        ValueError: a name is not known.
        OSError: CAP_SETPCAP is missing.
    """
    numbers = {number(name) for name in names}
    drop_from_bounding(numbers)
    mask = ~sum(1 << n for n in numbers)
    effective, permitted, _ = current()
    set_current(effective & mask, permitted & mask, 0)
    syscall("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def set_parent_death_signal(signal_number: int) -> None:
    """Be sent a signal when the parent ends; undone by a change of ids.

    See: PR_SET_PDEATHSIG in prctl(2)
    """
    syscall("prctl", _PR_SET_PDEATHSIG, signal_number, 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """Say whether others of the same ids may trace this process and reach its /proc entries.

    See: PR_SET_DUMPABLE in prctl(2)
    """
    syscall("prctl", _PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_no_new_privileges() -> None:
    """Make execve grant nothing more, for good.

    See: PR_SET_NO_NEW_PRIVS in prctl(2)
    """
    syscall("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_name(name: str) -> None:
    """Set the name that ps and /proc/PID/comm show; 15 bytes of it are kept.

    See: PR_SET_NAME in prctl(2)
    """
    syscall("prctl", _PR_SET_NAME, name, 0, 0, 0)


def join_new_session_keyring() -> None:
    """Leave the inherited session keyring for a new anonymous one. See: keyctl(2)."""
    syscall("keyctl", 1, None, 0, 0, 0)

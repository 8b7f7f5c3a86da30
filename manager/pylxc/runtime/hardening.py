"""What no container may do to its host, whatever its configuration says; and filters of system calls, compiled once."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace

from pylxc.kernel import seccomp
from pylxc.runtime.spec import Confinement, SyscallRule

_PRIVILEGED_DROP = ("sys_time", "sys_module", "sys_rawio", "mac_admin", "mac_override")
"""Capabilities that a container without a user namespace of its own never has: they act on the host."""

_HOST_SYSCALLS: tuple[SyscallRule, ...] = (SyscallRule("syslog", "errno:1"),)
"""Denied to every container unless its policy names them: the kernel's log is the host's, whoever may read it."""

_KEY_SYSCALLS = tuple(SyscallRule(name, "errno:38") for name in ("add_key", "keyctl", "request_key"))
"""Denied to privileged containers: root's keyrings are per user namespace, theirs would be the host's."""


def hardened(confinement: Confinement, *, privileged: bool) -> Confinement:
    """Return the confinement with what no container may do to its host."""
    names = confinement.drop_capabilities
    rules = confinement.seccomp
    denied = _HOST_SYSCALLS
    if privileged:
        names = tuple(dict.fromkeys((*names, *_PRIVILEGED_DROP)))
        denied += _KEY_SYSCALLS
    if confinement.seccomp_default == "allow":
        named = {rule.name for rule in rules}
        rules += tuple(rule for rule in denied if rule.name not in named)
    return replace(confinement, drop_capabilities=names, seccomp=rules)


def seccomp_file(directory: str, confinement: Confinement) -> str:
    """Return the path of the compiled filter below `directory`, "" for none; each distinct policy is compiled once."""
    rules, default, abis = confinement.seccomp, confinement.seccomp_default, confinement.foreign_abis
    if not rules and default == "allow" and abis:
        return ""
    policy = repr((rules, default, abis)).encode()
    path = f"{directory}/{hashlib.sha256(policy).hexdigest()[:32]}.bpf"
    if not os.path.exists(path) or not os.path.getsize(path):  # empty after a power cut: it is not synced
        program = seccomp.compile_filter(rules, default, compatible=abis)
        partial = f"{path}.{threading.get_ident()}"
        with open(partial, "wb") as file:
            file.write(program)
        os.replace(partial, path)
    return path

"""The kernel's names of architectures, and the other names that images and package archives have for them."""

from __future__ import annotations

import os

_ARCHITECTURES = {
    "i686": ("i386", "i586", "x86"),
    "x86_64": ("amd64", "x86-64"),
    "armv7l": ("armhf", "arm", "armel", "armv7", "armv7a", "armv6l", "armv8l"),
    "aarch64": ("arm64",),
    "ppc": ("powerpc",),
    "ppc64": ("powerpc64",),
    "ppc64le": ("ppc64el",),
    "s390x": (),
    "mips": ("mipsel",),
    "mips64": ("mips64el", "mips64le"),
    "riscv32": (),
    "riscv64": (),
}
"""The kernel's name of each architecture, and the other names that images use for it."""

_NAMES = {name: kernel for kernel, others in _ARCHITECTURES.items() for name in (kernel, *others)}
_PERSONALITIES = {"x86_64": ("i686",), "aarch64": ("armv7l",), "ppc64": ("ppc",), "riscv64": ("riscv32",)}


def architecture_name(text: str) -> str | None:
    """Return the kernel's name of an architecture (amd64 is x86_64), None when there is no such one."""
    return _NAMES.get(text)


def host_architectures() -> tuple[str, ...]:
    """Return what the host runs, its own first: a 64-bit kernel runs its 32-bit sibling's programs too."""
    own = architecture_name(os.uname().machine) or os.uname().machine
    return (own, *_PERSONALITIES.get(own, ()))

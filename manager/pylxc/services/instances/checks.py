"""What an instance's or profile's configuration has to be, whoever sets it."""

from __future__ import annotations

from collections.abc import Mapping

from pylxc import validate
from pylxc.config.instance import INSTANCE, VOLATILE_PREFIX
from pylxc.errors import BadRequest
from pylxc.services.instances import raw_lxc, syscalls

ARCHITECTURES = (
    "i686",
    "x86_64",
    "armv7l",
    "aarch64",
    "ppc",
    "ppc64",
    "ppc64le",
    "s390x",
    "mips",
    "mips64",
    "riscv32",
    "riscv64",
)
"""The kernel's names, at the numbers by which old clients send them (from 1 on)."""


def config(values: Mapping[str, str], *, in_profile: bool = False) -> None:
    """Check the configuration of an instance, or of a profile.

    Raises:
        BadRequest: an unknown key, a malformed value, or keys that cannot go together.
        NotSupported: a line of `raw.seccomp` or `raw.lxc` asks for what pylxc does not do.
    """
    INSTANCE.validate(values)
    if in_profile:
        for name in values:
            if name.startswith((VOLATILE_PREFIX, "image.")):
                raise BadRequest(f"{name} cannot be set in a profile: it belongs to one instance")
    exclusive = (
        ("security.syscalls.allow", ("security.syscalls.deny",)),
        ("security.syscalls.whitelist", ("security.syscalls.blacklist",)),
        ("security.syscalls.allow", ("security.syscalls.whitelist", "security.syscalls.blacklist")),
        ("security.syscalls.deny", ("security.syscalls.blacklist", "security.syscalls.whitelist")),
    )
    for one, others in exclusive:
        for other in others:
            if values.get(one) and values.get(other):
                raise BadRequest(f"{one} is mutually exclusive with {other}")
    syscalls.policy(values)
    raw_lxc.of(values)


def architecture(value: str | None) -> str | None:
    """Return the name of an architecture that a client names, also by LXD's number in a string; None for unset.

    Raises:
        BadRequest: it is not known.
    """
    if not value or value == "0":
        return None
    if value.isdigit() and 1 <= int(value) <= len(ARCHITECTURES):
        return ARCHITECTURES[int(value) - 1]
    aliases = {"amd64": "x86_64", "arm64": "aarch64", "i386": "i686", "armhf": "armv7l", "ppc64el": "ppc64le"}
    name = aliases.get(value, value)
    validate.known(name, ARCHITECTURES, "architecture")
    return name


def without_empty(values: Mapping[str, str]) -> dict[str, str]:
    """Return a configuration without the keys that are set to nothing: that means unset."""
    return {key: value for key, value in values.items() if value != ""}


def devices_without_empty(devices: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Return devices without the keys that are set to nothing."""
    return {name: without_empty(device) for name, device in devices.items()}


def deletable(expanded: Mapping[str, str]) -> None:
    """Check that an instance of this expanded configuration may be deleted; raises BadRequest."""
    if INSTANCE.is_true(expanded, "security.protection.delete"):
        raise BadRequest("Instance is protected", hint="unset security.protection.delete first")

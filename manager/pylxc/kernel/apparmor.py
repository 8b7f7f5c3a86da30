"""AppArmor profiles: whether this host has AppArmor, loading and unloading them."""

from __future__ import annotations

import os
import re
from functools import cache

from pylxc.errors import BadRequest, Unavailable
from pylxc.kernel import command

_ENABLED = "/sys/module/apparmor/parameters/enabled"
_POLICY = "/sys/kernel/security/apparmor"
_PARSER = "apparmor_parser"
_ALL_IDS = ["0", "0", "4294967295"]


def is_enabled() -> bool:
    """Return whether this host confines by AppArmor, and profiles are ours to load.

    Raises:
        Unavailable: it does, and its file system is not mounted.
    """
    if _read(_ENABLED) != "Y":
        return False
    if os.path.isdir(_POLICY):
        return True
    if _read("/proc/self/uid_map").split() != _ALL_IDS:
        return False  # in a container: the policy is the host's affair
    raise Unavailable(
        "This host has AppArmor, and its file system is not mounted",
        hint="mount -t securityfs securityfs /sys/kernel/security",
    )


def mediates(feature: str) -> bool:
    """Return whether kernel and parser know a class of rules that came with AppArmor 4, by its path of features."""
    return os.path.exists(f"{_POLICY}/features/{feature}") and _parser_version() >= 4


def load(path: str, cache_dir: str) -> None:
    """Load the profile in a file, or put it in the place of the one of its name; compiled ones are kept in a cache.

    Raises:
        Unavailable: the parser is missing.
        BadRequest: it refuses the profile.
    """
    try:
        command.run([_PARSER, "--replace", "--quiet", "--write-cache", "--cache-loc", cache_dir, path])
    except Unavailable as error:
        raise Unavailable(
            f"This host has AppArmor, and the program {_PARSER!r} that loads profiles is missing", hint=error.hint
        ) from error
    except command.CommandFailed as error:
        lines = [line for line in error.stderr.splitlines() if line.strip()]
        said = next((line for line in lines if "rror" in line), lines[0] if lines else error.message)
        raise BadRequest(f"AppArmor's parser refuses the profile: {said.strip()}") from error


def unload(name: str) -> None:
    """Take a profile away; what it confined is not confined any more. One that is not loaded is no error.

    Raises:
        OSError: the kernel refuses.
    """
    try:
        with open(f"{_POLICY}/.remove", "wb", buffering=0) as file:
            file.write(name.encode())
    except FileNotFoundError:
        return


@cache
def _parser_version() -> int:
    found = re.search(rb"version ([0-9]+)", command.run([_PARSER, "--version"]).stdout)
    return int(found[1]) if found else 0


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""

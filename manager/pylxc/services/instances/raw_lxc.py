"""`raw.lxc`: configuration of liblxc, of which pylxc does what has an exact equal here and refuses the rest.

See: lxc.container.conf(5)
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from pylxc.config.instance import INSTANCE
from pylxc.errors import BadRequest, NotSupported, PylxcError
from pylxc.kernel import caps
from pylxc.runtime.rootfs import split_options
from pylxc.runtime.spec import Mount

_SAME = {"lxc.prlimit.": "limits.kernel.", "lxc.sysctl.": "linux.sysctl."}
"""Keys that are keys of the instance under another name."""

_BETTER = {
    "lxc.apparmor.": "raw.apparmor", "lxc.cgroup": "limits.* and devices", "lxc.environment.": "environment.*",
    "lxc.hook.": "", "lxc.idmap": "raw.idmap", "lxc.mount.auto": "security.nesting", "lxc.net.": "devices of type nic",
    "lxc.rootfs.": "", "lxc.seccomp.": "raw.seccomp", "lxc.start.": "boot.*", "lxc.tty.": "",
}  # fmt: skip
"""What does instead what a key that is refused would do, as far as something does."""


@dataclass(slots=True)
class RawLxc:
    """What `raw.lxc` comes to.

    Attributes:
        config: keys of the instance's configuration that it sets.
        mounts: further mounts.
        drop_capabilities: further capabilities that are taken away, named without `CAP_` in lower case.
        init: what runs as PID 1; empty for the usual.
        unconfined: there shall be no AppArmor profile.
    """

    config: dict[str, str] = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    drop_capabilities: list[str] = field(default_factory=list)
    init: tuple[str, ...] = ()
    unconfined: bool = False


def of(config: Mapping[str, str]) -> RawLxc:
    """Return what `raw.lxc` of an expanded configuration comes to.

    Raises:
        BadRequest: a line is malformed; it is named by its number.
        NotSupported: a key has no equal here; it is named.
    """
    raw = RawLxc()
    for number, line in enumerate(config.get("raw.lxc", "").splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        key, equals, value = (part.strip() for part in content.partition("="))
        try:
            if not equals or not value:
                raise BadRequest(f"'KEY = VALUE' is needed, not {content!r}")
            _read(raw, key, value)
        except PylxcError as error:
            error.message = f"raw.lxc line {number}: {error.message}"
            raise
    return raw


def _read(raw: RawLxc, key: str, value: str) -> None:
    same = next((prefix for prefix in _SAME if key.startswith(prefix)), "")
    if same:
        _set(raw, f"{_SAME[same]}{key.removeprefix(same)}", value)
        return
    match key:
        case "lxc.environment":
            name, equals, content = value.partition("=")
            if not equals:
                raise BadRequest(f"lxc.environment: 'NAME=VALUE' is needed, not {value!r}")
            _set(raw, f"environment.{name}", content)
        case "lxc.mount.entry":
            raw.mounts.append(_mount(value))
        case "lxc.cap.drop":
            raw.drop_capabilities += _capabilities(value)
        case "lxc.cap.keep":
            kept = _capabilities(value)
            raw.drop_capabilities += [name for name in caps.NAMES if name not in kept]
        case "lxc.init.cmd":
            raw.init = _command(value)
        case "lxc.apparmor.profile" if value == "unconfined":
            raw.unconfined = True
        case _:
            _refuse(key)


def _refuse(key: str) -> None:
    better = next((better for prefix, better in _BETTER.items() if key.startswith(prefix)), "")
    hint = f"use {better}" if better else ""
    raise NotSupported(f"the key {key} has no equal in pylxc, which does not use liblxc", hint=hint)


def _set(raw: RawLxc, key: str, value: str) -> None:
    INSTANCE.validate({key: value})
    raw.config[key] = value


def _capabilities(value: str) -> list[str]:
    names = value.lower().split()
    for name in names:
        if name not in caps.NAMES:
            raise BadRequest(f"unknown capability {name!r}")
    return names


def _command(value: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise BadRequest(f"lxc.init.cmd: {error}") from None
    if not words or not words[0].startswith("/"):
        raise BadRequest(f"lxc.init.cmd: an absolute path is needed, not {value!r}")
    return words


def _mount(value: str) -> Mount:
    fields = [re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), each) for each in value.split()]
    if not 4 <= len(fields) <= 6:
        raise BadRequest(f"lxc.mount.entry: 'SOURCE TARGET TYPE OPTIONS [0 0]' is needed, not {value!r}")
    source, target, fstype, words = fields[:4]
    options = words.split(",")
    create = next((word.removeprefix("create=") for word in options if word.startswith("create=")), "")
    rest = tuple(word for word in options if not word.startswith("create=") and word not in ("optional", "relative"))
    is_bind = "bind" in rest or "rbind" in rest
    if create not in ("", "dir", "file"):
        raise BadRequest(f"lxc.mount.entry: create=dir or create=file is needed, not create={create}")
    if is_bind and not source.startswith("/"):
        raise BadRequest(f"lxc.mount.entry: an absolute path of the host is needed, not {source!r}")
    if is_bind and (unknown := split_options(rest)[1]):
        raise BadRequest(f"lxc.mount.entry: unknown option {unknown[0][0]!r}")
    return Mount(
        source=source,
        target=f"/{target.lstrip('/')}",
        fstype="" if is_bind else fstype,
        options=rest,
        create=create,
        optional="optional" in options,
    )

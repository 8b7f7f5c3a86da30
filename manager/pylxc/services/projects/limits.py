"""A project's limits, as a table: what each counts, and of what.

See: LXD doc reference/projects, project limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pylxc import units
from pylxc.errors import BadRequest, Forbidden
from pylxc.services.instances.expand import Record, is_root_disk
from pylxc.services.projects.holdings import Holdings


def _bytes(text: str) -> int:
    if text.endswith("%"):
        raise BadRequest("shares of the host cannot be summed up", hint="give bytes")
    return units.parse_bytes(text)


def _cpus(text: str) -> int:
    if not text.isdecimal():
        raise BadRequest("CPUs can't be pinned if project limits are used", hint="give a number")
    return int(text)


@dataclass(frozen=True, slots=True)
class _Count:
    """A limit on the number of things: what they are called, and how many a project has."""

    what: str
    number: Callable[[Holdings], int]


@dataclass(frozen=True, slots=True)
class _Sum:
    """A limit on what all instances of a project may take together.

    Attributes:
        parse: returns the amount that a configured value stands for; raises BadRequest when it is none.
        show: returns an amount as users read it.
        is_disk: the value is the root disk's size, and custom volumes count as well.
    """

    parse: Callable[[str], int]
    show: Callable[[int], str] = str
    is_disk: bool = False

    def values(self, key: str, held: Holdings) -> Iterator[tuple[str, str, str]]:
        """Yield the value that each thing has, what the thing is, and what it lacks when the value is empty."""
        for found in held.instances:
            what = "'size' config set on the root device" if self.is_disk else f'"{key}" config'
            value = _root_size(found) if self.is_disk else found.expanded_config.get(key, "")
            yield value, f'Instance "{found.name}"', f"has no {what}, either directly or via a profile"
        for row in held.volumes if self.is_disk else ():
            yield row.config.get("size", ""), f'Custom volume "{row.name}"', "has no 'size' config set"


_LIMITS: Mapping[str, _Count | _Sum] = {
    "limits.containers": _Count('instances of type "container"', lambda held: len(held.instances)),
    "limits.cpu": _Sum(_cpus),
    "limits.disk": _Sum(_bytes, units.binary_size, is_disk=True),
    "limits.instances": _Count("instances", lambda held: len(held.instances)),
    "limits.memory": _Sum(_bytes, units.binary_size),
    "limits.networks": _Count("networks", lambda held: len(held.networks)),
    "limits.processes": _Sum(int),
    "limits.virtual-machines": _Count('instances of type "virtual-machine"', lambda _held: 0),
}
"""By key. Every instance is a container."""


def is_limited(config: Mapping[str, str]) -> bool:
    """Return whether a project has limits."""
    return any(config.get(key) for key in _LIMITS)


def check(held: Holdings) -> None:
    """Check that a project holds no more than it may.

    Raises:
        Forbidden: it does; or something in it does not say how much it takes of what is limited.
    """
    for key, limit in _LIMITS.items():
        text = held.config.get(key, "")
        if not text or _total(key, limit, held) <= _allowed(limit, text):
            continue
        if isinstance(limit, _Count):
            raise Forbidden(f'Reached maximum number of {limit.what} in project "{held.project}"')
        raise Forbidden(f'Reached maximum aggregate value "{text}" for "{key}" in project "{held.project}"')


def check_changed(held: Holdings, before: Mapping[str, str]) -> None:
    """Check the limits of a project that are not what they were `before`.

    Raises:
        Forbidden: one is below what is used, or something in the project does not say how much it takes.
    """
    for key, limit in _LIMITS.items():
        text = held.config.get(key, "")
        if not text or text == before.get(key):
            continue
        total = _total(key, limit, held)
        if total > _allowed(limit, text):
            amount = f"{total} {limit.what}" if isinstance(limit, _Count) else limit.show(total)
            raise Forbidden(f'"{key}" is too low: there currently are {amount} in project "{held.project}"')


def usage(held: Holdings) -> dict[str, tuple[int, int]]:
    """Return per limit, without `limits.`, what is allowed (-1: anything) and what is used."""
    found = {}
    for key, limit in _LIMITS.items():
        text = held.config.get(key, "")
        used = limit.number(held) if isinstance(limit, _Count) else _said(key, limit, held)
        found[key.removeprefix("limits.")] = (_allowed(limit, text) if text else -1, used)
    return found


def _allowed(limit: _Count | _Sum, text: str) -> int:
    return int(text) if isinstance(limit, _Count) else limit.parse(text)


def _total(key: str, limit: _Count | _Sum, held: Holdings) -> int:
    """Return what a project uses; raises Forbidden when something in it does not say how much it takes."""
    if isinstance(limit, _Count):
        return limit.number(held)
    total = 0
    for value, whose, lacks in limit.values(key, held):
        if not value:
            raise Forbidden(f'{whose} in project "{held.project}" {lacks}', hint=f"the project has {key}")
        try:
            amount = limit.parse(value)
            if not amount:
                raise BadRequest("that is no limit", hint="give an amount")
        except BadRequest as error:
            text = f'{whose} in project "{held.project}" has {key} {value!r}: {error.message}'
            raise Forbidden(text, hint=error.hint) from error
        total += amount
    return total


def _said(key: str, limit: _Sum, held: Holdings) -> int:
    """Return what things say that they take, those left out that say nothing, or no amount."""
    total = 0
    for value, _whose, _lacks in limit.values(key, held):
        try:
            total += limit.parse(value) if value else 0
        except BadRequest:
            continue
    return total


def _root_size(found: Record) -> str:
    return next((device.get("size", "") for device in found.expanded_devices.values() if is_root_disk(device)), "")

"""YAML of backups: index.yaml, which begins each, and backup.yaml. See: LXD doc backup, the layout of LXD 5.0."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml

from pylxc import validate
from pylxc.errors import BadRequest, PylxcError
from pylxc.services.unarchive import Shift
from pylxc.wire.times import parse_timestamp

MAX_SNAPSHOTS = 10_000
MAX_BYTES = 16 << 20
"""Of YAML in a backup, at most: a thousand snapshots make two megabytes."""
_MAX_EVENTS = 1_000_000
"""Of YAML in all, at most: what a parser makes of it takes much more memory than its text."""
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PlainDumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NOUNS = {"container": "instance", "custom": "volume"}
T = TypeVar("T")


class _Dumper(_PlainDumper):  # type: ignore[misc, valid-type]
    """Writes what is there twice twice: other readers need not know of YAML's references."""

    def ignore_aliases(self, data: object) -> bool:
        """Return that `data` is to be written whole."""
        del data
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What every index begins with.

    Attributes:
        name: of what the backup is of.
        backend: the storage driver of its pool.
        pool: its pool's name, "" when it is not said.
        snapshots: the names of those in it, oldest first.
        optimized: it has the form of that driver.
    """

    name: str
    backend: str
    pool: str
    snapshots: tuple[str, ...]
    optimized: bool


def index(
    kind: str, name: str, pool: dict[str, Any], snapshots: Iterable[str], config: dict[str, Any]
) -> dict[str, Any]:
    """Return what an index.yaml says of a backup in the portable form.

    Args:
        kind: "container" or "custom".
        name: of what the backup is of.
        pool: its pool, as the wire has it.
        snapshots: their names, oldest first.
        config: what is known of it, by kind.
    """
    return {
        "name": name,
        "backend": pool["driver"],
        "pool": pool["name"],
        "snapshots": list(snapshots),
        "optimized": False,
        "optimized_header": False,
        "type": kind,
        "config": config,
    }


def head(data: dict[str, Any], kind: str) -> Head:
    """Return what an index begins with.

    Raises:
        BadRequest: it is of something of another kind, or malformed.
    """
    found = str(data.get("type") or "container")
    if found != kind:
        raise BadRequest(f"it is of a {found[:40]}, not of a {kind}")
    return Head(
        name=_text(data["name"], f"the {_NOUNS[kind]}"),
        backend=str(data.get("backend") or ""),
        pool=str(data.get("pool") or ""),
        snapshots=tuple(_text(name, "a snapshot") for name in data.get("snapshots") or []),
        optimized=bool(data.get("optimized")),
    )


def dump(data: dict[str, Any]) -> str:
    """Return YAML."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def parse(content: bytes, what: str, part: str, check: Callable[[dict[str, Any]], T]) -> T:
    """Return what `check` makes of YAML, which may be hostile.

    Args:
        content: the YAML.
        what: what errors call the document, like the next one.
        part: what is YAML of it.
        check: may raise PylxcError, KeyError, TypeError and AttributeError for what is malformed.

    Raises:
        BadRequest: it is malformed.
    """
    try:
        # With aliases a small file can say the same thing without end; nobody who writes these uses them.
        for number, event in enumerate(yaml.parse(content, Loader=_Loader)):
            if isinstance(event, yaml.AliasEvent):
                raise BadRequest(f"Invalid {what}: its {part} refers to itself")
            if number > _MAX_EVENTS:
                raise BadRequest(f"Invalid {what}: its {part} is too large")
        data = yaml.load(content, Loader=_Loader)  # noqa: S506 - a safe loader
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"Invalid {what}: its {part} is no YAML: {str(error).splitlines()[0][:200]}") from error
    try:
        _require_text_keys(data)
        return check(data)
    except PylxcError as error:
        raise BadRequest(f"Invalid {what}: {error.message}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise BadRequest(f"Invalid {what}: its {part} lacks something ({error})") from error


def _require_text_keys(data: Any) -> None:
    """Raise BadRequest unless the keys of all maps are text: to YAML `no` is a truth value, `1` a number."""
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise BadRequest(f"the key {key!r} is no text")
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


def _text(name: Any, what: str) -> str:
    if not isinstance(name, str):
        raise BadRequest(f"the name of {what} is no text")
    return name


def with_config(names: Iterable[str], given: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Return what is said of each snapshot, in the order of `names`; `given` may call it OWNER/SNAPSHOT.

    Raises:
        BadRequest: a name is none, of one nothing is said, or there are too many.
    """
    wanted = list(names)
    if len(wanted) > MAX_SNAPSHOTS:
        raise BadRequest("it has too many snapshots")
    if len(set(wanted)) < len(wanted):
        raise BadRequest("it has two snapshots of one name")
    known = {str(one["name"]).rpartition("/")[2]: one for one in given}
    found = []
    for name in wanted:
        validate.snapshot_name(name)
        if name not in known:
            raise BadRequest(f"snapshot {name!r} has no configuration")
        found.append({**known[name], "name": name})
    return tuple(found)


def moment(value: Any) -> dt.datetime | None:
    """Return a time of an index, None for never; raises ValueError."""
    # YAML has times of its own, which the parser returns as such.
    if value is None or isinstance(value, str):
        return parse_timestamp(value or "")
    found: dt.datetime = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    return None if found.year == 1 else found


def shift(text: str | None) -> Shift | None:
    """Return how ids were shifted on the disk of whoever made a backup; None for not at all.

    Args:
        text: a key of volatile.*idmap*.

    Raises:
        BadRequest: it is no map.
    """
    try:
        entries = json.loads(text or "null") or []
        maps = {
            key: tuple((int(e["Nsid"]), int(e["Hostid"]), int(e["Maprange"])) for e in entries if e[key])
            for key in ("Isuid", "Isgid")
        }
    except (ValueError, KeyError, TypeError) as error:
        raise BadRequest("its map of ids is malformed") from error
    return Shift(maps["Isuid"], maps["Isgid"]) if entries else None

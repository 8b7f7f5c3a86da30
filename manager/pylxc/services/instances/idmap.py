"""Which ids of the host an unprivileged instance gets, and how LXD writes that down in volatile keys."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from pylxc.config.instance import INSTANCE
from pylxc.errors import BadRequest, Unavailable
from pylxc.runtime.spec import IdMap, IdRange

WIDTH = 65536
"""Ids that a container needs at least, and the width of an isolated map that names none."""

_FALLBACK = (1_000_000, 1_000_000_000)
_MOST_IDS = 1 << 32


def host_range(path: str) -> tuple[int, int]:
    """Return (first id, number) of root's range in a file in the form of /etc/subuid.

    That is root's first entry of `WIDTH` ids or more; without the file or an entry of root's, 1000000 and up.

    Raises:
        Unavailable: root has entries, all too small or malformed; or the file cannot be read.

    See: subuid(5)
    """
    malformed, small = "", False
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                owner, *numbers = line.strip().split(":")
                if owner not in ("root", "0"):
                    continue
                if len(numbers) != 2 or not all(each.isdecimal() and int(each) < _MOST_IDS for each in numbers):
                    malformed = malformed or f"Line {number} of {path} is malformed: {line.strip()!r}"
                elif int(numbers[1]) >= WIDTH and int(numbers[0]) > 0:
                    return int(numbers[0]), int(numbers[1])
                else:
                    small = True
    except FileNotFoundError:
        return _FALLBACK
    except OSError as error:
        raise Unavailable(f"Failed reading {path}: {error.strerror}") from error
    if not malformed and not small:
        return _FALLBACK
    raise Unavailable(
        malformed or f"Root has no range of {WIDTH} ids in {path}", hint=f"add a line root:1000000:1000000000 to {path}"
    )


def host_map(subuid: str = "/etc/subuid", subgid: str = "/etc/subgid") -> IdMap:
    """Return the map that instances share by default: all of root's range; raises like `host_range`."""
    (uid, uids), (gid, gids) = host_range(subuid), host_range(subgid)
    return IdMap((IdRange(0, uid, uids),), (IdRange(0, gid, gids),))


def choose(config: Mapping[str, str], host: IdMap, taken: Iterable[tuple[int, int]]) -> IdMap | None:
    """Return an instance's map, None when it is privileged.

    Args:
        config: its expanded configuration with its volatile keys.
        host: the ids there are to give, from `host_map`.
        taken: (first id, number) of the ranges that other instances have for themselves, from `held`.

    Raises:
        BadRequest: the ids asked for are not there, or are another instance's.
    """
    if INSTANCE.is_true(config, "security.privileged"):
        return None
    if INSTANCE.is_true(config, "security.idmap.isolated"):
        size = int(config.get("security.idmap.size") or WIDTH)
        base = config.get("security.idmap.base")
        if base:
            _require_free(int(base), size, taken)
        first = int(base) if base else _free_range(host, size, taken, config.get("volatile.idmap.base"))
        chosen = IdMap.single(first, size)
    elif config.get("security.idmap.size"):
        size = int(config["security.idmap.size"])
        chosen = IdMap(
            tuple(replace(r, length=min(size, r.length)) for r in host.uids),
            tuple(replace(r, length=min(size, r.length)) for r in host.gids),
        )
    else:
        chosen = host
    return _with_raw(chosen, config.get("raw.idmap", ""))


def isolated_range(config: Mapping[str, str]) -> tuple[int, int] | None:
    """Return (first id, number) of an isolated instance's range out of its expanded configuration, None without one."""
    first = config.get("security.idmap.base") or config.get("volatile.idmap.base") or "0"
    if not INSTANCE.is_true(config, "security.idmap.isolated") or first == "0":
        return None
    return int(first), int(config.get("security.idmap.size") or WIDTH)


def held(config: Mapping[str, str], host: IdMap) -> Iterator[tuple[int, int]]:
    """Yield (first id, number) of what an instance has for itself: of its next start, and of what it runs with now.

    Args:
        config: its expanded configuration with its volatile keys.
        host: the ids there are to give, from `host_map`.
    """
    if own := isolated_range(config):
        yield own
    if config.get("volatile.last_state.power") == "RUNNING":
        for entry in json.loads(config.get("volatile.idmap.current") or "[]"):
            # A map that is shared begins with the host's first id; what is below comes from raw.idmap.
            shift, first = entry["Hostid"] - entry["Nsid"], host.uids[0].outside
            if entry["Isuid"] and shift > first:
                yield entry["Hostid"], entry["Maprange"]


def volatile(config: Mapping[str, str], idmap: IdMap | None) -> dict[str, str]:
    """Return the volatile keys that record the map an instance's next start will use."""
    isolated = idmap is not None and INSTANCE.is_true(config, "security.idmap.isolated")
    return {
        "volatile.idmap.base": str(idmap.uids[0].outside) if isolated and idmap is not None else "0",
        "volatile.idmap.next": to_lxd(idmap),
    }


def to_lxd(idmap: IdMap | None) -> str:
    """Return LXD's JSON of a map: `[{"Isuid":true,"Isgid":false,"Hostid":…,"Nsid":…,"Maprange":…}]`."""
    if idmap is None:
        return "[]"
    entries = [
        {"Isuid": is_uid, "Isgid": not is_uid, "Hostid": r.outside, "Nsid": r.inside, "Maprange": r.length}
        for is_uid, ranges in ((True, idmap.uids), (False, idmap.gids))
        for r in ranges
    ]
    return json.dumps(entries, separators=(",", ":"))


def _free_range(host: IdMap, size: int, taken: Iterable[tuple[int, int]], before: str | None) -> int:
    """Return the first id of a range that nobody has: the one of before when it is still free."""
    # The first WIDTH ids are left to the instances that are not isolated.
    low = max(host.uids[0].outside, host.gids[0].outside) + WIDTH
    high = min(r.outside + r.length for r in (host.uids[0], host.gids[0]))
    others = sorted(taken)
    if before and before != "0" and _is_free(int(before), size, others) and low <= int(before) <= high - size:
        return int(before)
    for first in sorted([low, *(start + count for start, count in others)]):
        if low <= first <= high - size and _is_free(first, size, others):
            return first
    if high < low:
        raise BadRequest(
            f"Root has no {WIDTH} ids that are in /etc/subuid and in /etc/subgid", hint="give it the same in both files"
        )
    raise BadRequest(
        f"Not enough ids of the host for an isolated map of {size}: of root's {high - low + WIDTH} the first {WIDTH} "
        f"are for those that are not isolated, and {len(others)} other instances have ranges of their own",
        hint="give root more in /etc/subuid and /etc/subgid",
    )


def _require_free(first: int, size: int, taken: Iterable[tuple[int, int]]) -> None:
    for start, count in taken:
        if not _is_free(first, size, [(start, count)]):
            raise BadRequest(
                f"Of the {size} ids from security.idmap.base={first} on another isolated instance has some: "
                f"{start} to {start + count - 1}",
                hint="choose another one, or leave the choice to pylxc",
            )


def _is_free(first: int, size: int, taken: Iterable[tuple[int, int]]) -> bool:
    return all(first + size <= start or start + count <= first for start, count in taken)


def _with_raw(idmap: IdMap, raw: str) -> IdMap:
    """Lay the lines of `raw.idmap` over a map."""
    uids, gids = list(idmap.uids), list(idmap.gids)
    for kinds, wanted in raw_ranges(raw):
        if "uid" in kinds:
            uids = _overlay(uids, wanted)
        if "gid" in kinds:
            gids = _overlay(gids, wanted)
    return IdMap(tuple(uids), tuple(gids))


def raw_ranges(raw: str) -> Iterator[tuple[tuple[str, ...], IdRange]]:
    """Yield what the lines of `raw.idmap` say: the kinds of ids, "uid" and "gid", and the range."""
    for line in filter(str.strip, raw.splitlines()):
        kind, host, inside = line.split()
        first, _, last = host.partition("-")
        length = int(last or first) - int(first) + 1
        yield ("uid", "gid") if kind == "both" else (kind,), IdRange(int(inside.partition("-")[0]), int(first), length)


def _overlay(ranges: list[IdRange], wanted: IdRange) -> list[IdRange]:
    end = wanted.inside + wanted.length
    result = [wanted]
    for r in ranges:
        if r.inside + r.length <= wanted.inside or end <= r.inside:
            result.append(r)
            continue
        if r.inside < wanted.inside:
            result.append(IdRange(r.inside, r.outside, wanted.inside - r.inside))
        if end < r.inside + r.length:
            result.append(IdRange(end, r.outside + end - r.inside, r.inside + r.length - end))
    return sorted(result, key=lambda r: r.inside)

"""Names for snapshots that were given none, by the key snapshots.pattern. See: LXD doc instances, snapshots.pattern."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Set
from typing import Any

from pylxc import validate
from pylxc.errors import BadRequest
from pylxc.wire.times import timestamp

Render = Callable[[str, Mapping[str, Any]], str]


def following(pattern: str, taken: Set[str], moment: dt.datetime, render: Render) -> str:
    """Return the name of the next snapshot.

    Args:
        pattern: `%d` stands for the lowest number above those in use; `{{ creation_date }}` for `moment`, which takes
            pongo2's `date` filter. Without `%d` a name that is taken gets `-0`, `-1`, ... appended.
        taken: the names in use.
        moment: when the snapshot is taken.
        render: renders a template with its variables.

    Raises:
        BadRequest: the pattern makes no name.
    """
    name = render(pattern, {"creation_date": timestamp(moment)}) if "{" in pattern else pattern
    if name.count("%d") > 1:
        raise BadRequest(f"Invalid snapshots.pattern {pattern!r}: it may hold one %d")
    if "%d" not in name:
        validate.snapshot_name(name)
        if name not in taken:
            return name
        name += "-%d"
    before, _, after = name.partition("%d")
    numbered = re.compile(f"{re.escape(before)}([0-9]+){re.escape(after)}")
    used = [int(match[1]) for other in taken if (match := numbered.fullmatch(other))]
    found = f"{before}{max(used, default=-1) + 1}{after}"
    validate.snapshot_name(found)
    return found

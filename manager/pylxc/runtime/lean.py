"""A ContainerSpec without its classes, for the processes that there are many of.

Loading `runtime.spec` (dataclasses) would cost every monitor a megabyte; they read the same attributes from the JSON.
"""

from __future__ import annotations

from types import SimpleNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pylxc.runtime.spec import ContainerSpec, IdMap

_RECORDS = ("limits", "confinement")
_LISTS = ("mounts", "devices")


def read_spec(data: dict[str, Any]) -> ContainerSpec:
    """Return `data` (of `ContainerSpec.to_json`) with the attributes of a ContainerSpec; it has no methods."""
    content = dict(data)
    for name in _RECORDS:
        content[name] = SimpleNamespace(**data[name])
    for name in _LISTS:
        content[name] = records(data[name])
    content["idmap"] = idmap(data["idmap"])
    return SimpleNamespace(**content)  # type: ignore[return-value]


def idmap(data: dict[str, Any] | None) -> IdMap | None:
    """Return an id map (of `dataclasses.asdict`) with the attributes of an IdMap."""
    if data is None:
        return None
    ranges = {kind: [SimpleNamespace(**each) for each in data[kind]] for kind in ("uids", "gids")}
    return SimpleNamespace(**ranges)  # type: ignore[return-value]


def records(data: Iterable[dict[str, Any]]) -> list[Any]:
    """Return mounts or device nodes (of `dataclasses.asdict`) with the attributes of these."""
    return [SimpleNamespace(**each) for each in data]

"""Events for guests: what of their configuration and devices has changed while they run. See: LXD doc dev-lxd."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from pylxc.config import device as tables
from pylxc.services.events import Subscription, Waker
from pylxc.services.instances.expand import Record
from pylxc.wire.times import now

TYPES = ("config", "device")
PREFIXES = ("user.", "cloud-init.")
"""Of the keys that a guest may see."""
_LIMIT = 256


class GuestEvents:
    """Hands events to the listeners of each guest; thread-safe, never blocks."""

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Subscription, ...]] = {}
        self._lock = threading.Lock()

    def subscribe(self, key: str, types: frozenset[str], wake: Waker) -> Subscription:
        """Return a new listener of a guest; see `Subscription`. End it with `unsubscribe`."""
        listener = Subscription(types, key, wake, _LIMIT)
        with self._lock:
            self._listeners[key] = (*self._listeners.get(key, ()), listener)
        return listener

    def unsubscribe(self, listener: Subscription) -> None:
        """Stop handing events to `listener`."""
        key = listener.project or ""
        with self._lock:
            left = tuple(other for other in self._listeners.get(key, ()) if other is not listener)
            if left:
                self._listeners[key] = left
            else:
                self._listeners.pop(key, None)

    def changed(self, before: Record, after: Record) -> None:
        """Tell a guest what has changed."""
        listeners = self._listeners.get(after.key)
        if not listeners:
            return
        for kind, metadata in (*_config_changes(before, after), *_device_changes(before, after)):
            text = json.dumps({"type": kind, "timestamp": now(), "metadata": metadata})
            for listener in listeners:
                if kind in listener.types:
                    listener.put(text)


def _config_changes(before: Record, after: Record) -> Iterator[tuple[str, Mapping[str, Any]]]:
    old, new = before.expanded_config, after.expanded_config
    for key in sorted(old.keys() | new.keys()):
        if key.startswith(PREFIXES) and old.get(key) != new.get(key):
            yield "config", {"key": key, "old_value": old.get(key, ""), "value": new.get(key, "")}


def _device_changes(before: Record, after: Record) -> Iterator[tuple[str, Mapping[str, Any]]]:
    old, new = before.expanded_devices, after.expanded_devices
    updated = {name for name in old.keys() & new.keys() if old[name] != new[name] and _is_live(old[name], new[name])}
    for action, names, devices in (
        ("removed", {name for name in old if name not in updated and old[name] != new.get(name)}, old),
        ("updated", updated, new),
        ("added", {name for name in new if name not in updated and new[name] != old.get(name)}, new),
    ):
        for name in sorted(names):
            yield "device", {"action": action, "name": name, "config": devices[name]}


def _is_live(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Return whether a device only changes in what can change while it is in use."""
    if old.get("type") != new.get("type") or old.get("nictype") != new.get("nictype"):
        return False
    table = tables.table(new)
    changed = (key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return all((row := table.find(key)) is not None and row.live for key in changed)

"""Who has which ports of the host's addresses redirected: forwards and proxy devices, no two of them the same."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from pylxc.drivers import redirect
from pylxc.drivers.network.firewall import Firewall
from pylxc.drivers.redirect import Redirect
from pylxc.errors import Conflict


class Redirects:
    """The redirects that are in force; thread-safe."""

    def __init__(self, firewall: Firewall) -> None:
        self._firewall = firewall
        self._lock = threading.Lock()
        self._owners: dict[tuple[str, str], tuple[str, Sequence[Redirect]]] = {}

    def put(self, kind: str, name: str, label: str, redirects: Sequence[Redirect], local: str) -> None:
        """Make an owner's redirects these, whatever they were.

        Args:
            kind: forward or proxy.
            name: the owner's, unique within its kind.
            label: what others are told when they want the same: "forward 192.0.2.1".
            redirects: see `redirect.chains`, as for `local`.
            local: the subnet of the targets.

        Raises:
            Conflict: another owner has a port of them.
            Unavailable: the packet filter refuses; all is as it was.
        """
        with self._lock:
            self._refuse_taken((kind, name), redirects)
            self._firewall.put(kind, name, redirect.chains(redirects, local))
            self._owners[kind, name] = (label, redirects)

    def sweep(self, kind: str, names: Collection[str]) -> None:
        """Take away the redirects of every owner of a kind but these, also those that a daemon before has put."""
        with self._lock:
            self._firewall.sweep(kind, names)
            self._owners = {owner: has for owner, has in self._owners.items() if owner[0] != kind or owner[1] in names}

    def remove(self, kind: str, name: str) -> None:
        """Take an owner's redirects away; none is no error."""
        with self._lock:
            self._firewall.remove(kind, name)
            self._owners.pop((kind, name), None)

    def _refuse_taken(self, owner: tuple[str, str], redirects: Sequence[Redirect]) -> None:
        for other, (label, theirs) in self._owners.items():
            if other == owner:
                continue
            for mine in redirects:
                for taken in filter(None, map(mine.overlap, theirs)):
                    raise Conflict(f"{taken[0].upper()}{taken[1:]} is redirected already, by {label}")

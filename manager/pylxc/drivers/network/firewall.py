"""pylxc's rules in the kernel's packet filter, by owner.

Whatever needs rules (a network, a forward, a proxy device, a NIC) is an owner: a kind and a name. `put` makes an
owner's rules exactly the chains that are given, `remove` takes them away; each is one transaction that sees no other
owner's rules and nobody else's. `sweep` removes those of owners that are gone, for the start of a service:

    firewall.sweep("network", {"br0", "br1"})
    firewall.put("network", "br0", [
        Chain(name="in", hook=Hook(type="filter", name="input"),
              rules=((arriving("br0"), match(field("udp", "dport"), 67), ACCEPT),)),
    ])
    firewall.remove("network", "br0")

Chains are plain data and are made with the functions of `pylxc.kernel.nftables`, by drivers too; services put them.

A `Way` beside the chains is what other programs' firewalls have to let pass of the owner; see `passage`. What another
program flushes comes back with `restore`.

Every owner has tables of its own, one per address family that it uses: `table inet pylxc.network.br0`. A daemon on
another state directory than the usual one has a mark of it in its tables' names, so that two on one host let each
other's alone.
"""

from __future__ import annotations

import logging
import re
import threading
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from pylxc.drivers.network import passage
from pylxc.drivers.network.passage import Way
from pylxc.errors import PylxcError, Unavailable
from pylxc.kernel import nftables
from pylxc.kernel.nftables import Chain, Command
from pylxc.paths import DEFAULT_DIR

log = logging.getLogger(__name__)

_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class _Wanted:
    chains: list[Chain]
    way: Way | None


class Firewall:
    """The rules of one state directory's daemon; thread-safe. Errors are `Unavailable`, and nothing has changed then.

    Args:
        root: the state directory.
    """

    def __init__(self, root: str) -> None:
        self._prefix = "pylxc" if root == DEFAULT_DIR else f"pylxc-{zlib.crc32(root.encode()):08x}"
        self._lock = threading.Lock()
        self._wanted: dict[str, _Wanted] = {}

    def check(self) -> None:
        """Raise what `put` would where rules cannot be set at all."""
        with self._lock:
            self._tables()

    def put(self, kind: str, name: str, chains: Iterable[Chain], way: Way | None = None) -> None:
        """Make an owner's rules these chains, whatever they were; no chains is `remove`.

        Args:
            kind: of the owner, a lower-case word: network, forward, proxy, nic.
            name: of the owner, unique within its kind; any text.
            chains: all that it has.
            way: what other firewalls let pass; one that does not is logged, as this network may do without.
        """
        table = self._table(kind, name)
        chains = list(chains)
        with self._lock:
            self._replace(table, chains)
            before = self._wanted.pop(table, None)
            if chains or way:
                self._wanted[table] = _Wanted(chains, way)
            old = before.way if before else None
            if old and (way is None or way.interface != old.interface):
                passage.forget(old)
            if old or way:
                self._open_ways()

    def remove(self, kind: str, name: str) -> None:
        """Remove an owner's rules; none is no error."""
        self.put(kind, name, ())

    def sweep(self, kind: str, names: Collection[str]) -> None:
        """Remove the rules of every owner of a kind but these."""
        keep = {self._table(kind, name) for name in names}
        with self._lock:
            stale = [(f, t) for f, t in self._present() if t.startswith(f"{self._prefix}.{kind}.") and t not in keep]
            if stale:
                nftables.run([command for family, table in stale for command in _removal({family}, table)])
            self._open_ways()

    def restore(self) -> None:
        """Put again what another program has flushed, and open ways through firewalls that have come or reloaded."""
        with self._lock:
            there = set(self._present())
            for table, wanted in self._wanted.items():
                if not {(chain.family, table) for chain in wanted.chains} <= there:
                    log.info("Rules of %s are gone and put again", table)
                    try:
                        self._replace(table, wanted.chains)
                    except Unavailable as error:
                        log.warning("Failed putting rules of %s: %s", table, error)
            self._open_ways()

    def _replace(self, table: str, chains: list[Chain]) -> None:
        there = {family for family, other in self._present() if other == table}
        if there or chains:
            nftables.run(_removal(there, table) + _addition(chains, table))

    def _open_ways(self) -> None:
        ways = {table: wanted.way for table, wanted in self._wanted.items() if wanted.way}
        try:
            passage.refresh(ways, self._prefix)
        except (PylxcError, OSError) as error:
            log.warning("Cannot open a way through another firewall of this host: %s", error)

    def _table(self, kind: str, name: str) -> str:
        escaped = _PLAIN.sub(lambda found: f"/{ord(found[0]):x}/", name)
        return f"{self._prefix}.{kind}.{escaped}"

    def _present(self) -> list[tuple[str, str]]:
        """Return the tables; none where the library is missing: what nobody could put there need not be removed."""
        try:
            return self._tables()
        except Unavailable:
            return []

    def _tables(self) -> list[tuple[str, str]]:
        listed = (item.get("table") for item in nftables.run([{"list": {"tables": None}}]))
        return [(table["family"], table["name"]) for table in listed if table]


def _removal(families: Collection[str], table: str) -> list[Command]:
    """Return the commands that remove tables; added first, so that one that has just gone is no error."""
    places = [{"table": {"family": family, "name": table}} for family in families]
    return [command for place in places for command in ({"add": place}, {"delete": place})]


def _addition(chains: Iterable[Chain], table: str) -> list[Command]:
    """Return the commands that make chains; rules come last, as they may jump to any chain."""
    places: list[Command] = []
    rules: list[Command] = []
    for family in dict.fromkeys(chain.family for chain in chains):
        places.append({"add": {"table": {"family": family, "name": table}}})
    for chain in chains:
        place = {"family": chain.family, "table": table}
        places.append({"add": {"chain": {**place, "name": chain.name, **_hooked(chain)}}})
        rules += ({"add": {"rule": {**place, "chain": chain.name, "expr": list(rule)}}} for rule in chain.rules)
    return places + rules


def _hooked(chain: Chain) -> dict[str, Any]:
    hook = chain.hook
    if hook is None:
        return {}
    base = {"type": hook.type, "hook": hook.name, "prio": hook.priority, "policy": hook.policy}
    return {**base, "dev": hook.device} if hook.device else base

"""Ways for networks through other programs' firewalls, which drop what they do not know of.

What accepts in one table keeps no other one from dropping. So a rule is added where each of them expects the rules of
others, marked with its owner in a comment, and taken away again: the chain DOCKER-USER of Docker, ufw's chains for the
user's rules, firewalld's zone `trusted`, and the top of a plain chain that drops. Rules of iptables are changed by
iptables itself: it cannot read what nft adds to its tables.

See: docs.docker.com, "Packet filtering and firewalls"; ufw-framework(8); firewall-cmd(1); iptables-restore(8)
"""

from __future__ import annotations

import json
import shlex
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pylxc.kernel import command, nftables
from pylxc.kernel.nftables import ACCEPT, Expression, any_of, arriving, leaving, match, meta

_PROTOCOLS = {"ipv4": "ip", "ipv6": "ip6"}
_IPTABLES = {"ipv4": "iptables", "ipv6": "ip6tables"}
_USER_CHAINS = {
    ("ipv4", "FORWARD"): ("DOCKER-USER", "ufw-user-forward"),
    ("ipv6", "FORWARD"): ("DOCKER-USER", "ufw6-user-forward"),
    ("ipv4", "INPUT"): ("ufw-user-input",),
    ("ipv6", "INPUT"): ("ufw6-user-input",),
}
_SERVICES = {"ipv4": (("udp", 67), ("udp", 53), ("tcp", 53)), "ipv6": (("udp", 547), ("udp", 53), ("tcp", 53))}
_ICMP = {"ipv4": "icmp", "ipv6": "ipv6-icmp"}
_TRUSTED = ("firewall-cmd", "--zone=trusted")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What other firewalls have to let pass of a network.

    Guests reach out, and what answers them or was sent on to them by address translation comes in; DHCP, DNS and ICMP
    reach the host.

    Attributes:
        interface: the bridge.
        families: ipv4, ipv6: those that are let pass.
        routed: those of which everything comes in, as no translation hides the guests.
        bridged: nothing but what goes from one port of the bridge to another one: the kernel shows that to firewalls
            too where br_netfilter is loaded, as Docker has it.
    """

    interface: str
    families: tuple[str, ...]
    routed: tuple[str, ...] = ()
    bridged: bool = False


@dataclass(slots=True)
class _Filter:
    """A family's table `filter` of iptables: policies of its chains (`-` for a user's), and rules as it saves them."""

    program: str
    policies: dict[str, str] = field(default_factory=dict)
    rules: list[str] = field(default_factory=list)

    def drops(self, chain: str) -> bool:
        """Return whether a chain of the kernel's drops anything by its policy or a rule of its own."""
        own = (rule for rule in self.rules if rule.startswith(f"-A {chain} "))
        verdicts = (rule.rpartition(" -j ")[2].split()[0] for rule in own)
        return self.policies.get(chain) == "DROP" or any(verdict in ("DROP", "REJECT") for verdict in verdicts)


def refresh(ways: Mapping[str, Way], prefix: str) -> None:
    """Make the rules in other firewalls those of `ways`, adding what is missing and taking away what is stale.

    Args:
        ways: by owner, a word that begins with `prefix`.
        prefix: of all owners whose rules may be taken away.

    Raises:
        PylxcError: a firewall refuses.
    """
    chains = [item["chain"] for item in nftables.run([{"list": {"chains": None}}]) if "chain" in item]
    taken = set()
    for family, program in _IPTABLES.items():
        for table in _iptables(family, program, chains):
            _refresh_iptables(table, family, ways, prefix)
        if shutil.which(f"{program}-save", path=_PATH):
            taken.add((_PROTOCOLS[family], "filter"))
    if any((c["family"], c["table"]) == ("inet", "firewalld") for c in chains):
        _refresh_firewalld(ways)
        taken.add(("inet", "firewalld"))
    for chain in chains:
        is_others = not chain["table"].startswith("pylxc") and (chain["family"], chain["table"]) not in taken
        if is_others and chain["family"] in ("inet", "ip", "ip6") and chain.get("hook") in ("input", "forward"):
            _refresh_chain(chain, ways, prefix)


# iptables


def _iptables(family: str, program: str, chains: Iterable[Mapping[str, Any]]) -> list[_Filter]:
    """Return the tables that iptables has of a family: of its version for nftables, of the legacy one, or both."""
    variants = []
    if any((c["family"], c["table"]) == (_PROTOCOLS[family], "filter") for c in chains):
        variants.append("nft")
    try:
        with open(f"/proc/thread-self/net/{program.removesuffix('s')}s_names", encoding="ascii") as file:
            if "filter" in file.read().split():
                variants.append("legacy")
    except FileNotFoundError:
        pass
    found = []
    for variant in variants:
        names = (f"{program}-{variant}", program)
        name = next((name for name in names if shutil.which(f"{name}-save", path=_PATH)), None)
        if name is not None:
            found.append(_read_filter(name))
    return found


def _read_filter(program: str) -> _Filter:
    found = _Filter(program)
    for line in command.run([f"{program}-save", "-t", "filter"]).stdout.decode(errors="replace").splitlines():
        if line.startswith(":"):
            chain, policy, *_ = line[1:].split()
            found.policies[chain] = policy
        elif line.startswith("-A "):
            found.rules.append(line)
    return found


def _refresh_iptables(table: _Filter, family: str, ways: Mapping[str, Way], prefix: str) -> None:
    wanted = []
    for chain in ("FORWARD", "INPUT"):
        users = [name for name in _USER_CHAINS[family, chain] if name in table.policies]
        place = users[0] if users else chain if table.drops(chain) else None
        for owner, way in ways.items():
            if place is not None and family in way.families:
                wanted += _as_iptables(place, chain, owner, way, family)
    marked = f"--comment {prefix}."
    have = [rule for rule in table.rules if marked in rule.replace('"', "")]
    lines = [f"-D{rule[2:]}" for rule in have if _mark(rule) not in map(_mark, wanted)]
    lines += [rule for rule in wanted if _mark(rule) not in map(_mark, have)]
    if lines:
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        command.run([f"{table.program}-restore", "--noflush", "-w", "5"], input=text)


def _as_iptables(place: str, chain: str, owner: str, way: Way, family: str) -> list[str]:
    if way.bridged:
        matches = [] if chain == "INPUT" else [f"-i {way.interface} -o {way.interface}"]
    elif chain == "INPUT":
        services = [f"-p {transport} --dport {port}" for transport, port in _SERVICES[family]]
        matches = [f"-i {way.interface} {service}" for service in (f"-p {_ICMP[family]}", *services)]
    else:
        state = "" if family in way.routed else " -m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
        matches = [f"-i {way.interface}", f"-o {way.interface}{state}"]
    rules = []
    for text in matches:
        # The rule in full is part of the mark: iptables saves rules in words of its own.
        mark = f"{owner}/{zlib.crc32(f'{place} {text}'.encode()):08x}"
        rules.append(f"-I {place} {text} -m comment --comment {mark} -j ACCEPT")
    return rules


def _mark(rule: str) -> str:
    words = shlex.split(rule)
    return words[words.index("--comment") + 1]


# firewalld


def _refresh_firewalld(ways: Mapping[str, Way]) -> None:
    known = json.dumps(nftables.run([{"list": {"table": {"family": "inet", "name": "firewalld"}}}]))
    for way in ways.values():
        # The zone lets all of the interface reach the host, which a bridge on the host's own network must not.
        if not way.bridged and f'"{way.interface}"' not in known and shutil.which(_TRUSTED[0], path=_PATH):
            command.run([*_TRUSTED, f"--change-interface={way.interface}"])


def forget(way: Way) -> None:
    """Take from firewalld what `refresh` gave it of a way that is closed; it keeps no comments to find it by."""
    tables = (item.get("table", {}).get("name") for item in nftables.run([{"list": {"tables": None}}]))
    if "firewalld" in tables and shutil.which(_TRUSTED[0], path=_PATH):
        command.run([*_TRUSTED, f"--remove-interface={way.interface}"], check=False)


# Others that use nftables


def _refresh_chain(chain: Mapping[str, Any], ways: Mapping[str, Way], prefix: str) -> None:
    place = {key: chain[key] for key in ("family", "table", "name")}
    rules = [item["rule"] for item in nftables.run([{"list": {"chain": place}}]) if "rule" in item]
    place = {"family": chain["family"], "table": chain["table"], "chain": chain["name"]}
    have = {rule["comment"]: rule["handle"] for rule in rules if rule.get("comment", "").startswith(f"{prefix}.")}
    wanted: dict[str, tuple[Expression, ...]] = {}
    if chain.get("policy") == "drop" or any(_is_end(rule["expr"]) for rule in rules):
        for owner, way in ways.items():
            for expressions in _as_nftables(chain, way):
                wanted[f"{owner}/{zlib.crc32(json.dumps(expressions).encode()):08x}"] = expressions
    changes: list[nftables.Command] = []
    for mark in have.keys() - wanted.keys():
        changes.append({"delete": {"rule": {**place, "handle": have[mark]}}})
    for mark in wanted.keys() - have.keys():
        changes.append({"insert": {"rule": {**place, "expr": list(wanted[mark]), "comment": mark}}})
    if changes:
        nftables.run(changes)


def _is_end(expressions: Iterable[Expression]) -> bool:
    """Return whether a rule drops whatever gets as far as it."""
    kinds = {next(iter(expression)) for expression in expressions}
    return bool(kinds & {"drop", "reject"}) and kinds <= {"drop", "reject", "counter", "log", "limit"}


def _as_nftables(chain: Mapping[str, Any], way: Way) -> list[tuple[Expression, ...]]:
    found: list[tuple[Expression, ...]] = []
    for family in way.families:
        if chain["family"] not in ("inet", _PROTOCOLS[family]):
            continue
        of_family = (match(meta("nfproto"), family),) if chain["family"] == "inet" else ()
        if way.bridged:
            if chain["hook"] == "forward":
                found.append((*of_family, arriving(way.interface), leaving(way.interface), ACCEPT))
            continue
        if chain["hook"] == "input":
            found += ((*of_family, *expressions, ACCEPT) for expressions in _services(way.interface, family))
            continue
        found.append((*of_family, arriving(way.interface), ACCEPT))
        if family in way.routed:
            found.append((*of_family, leaving(way.interface), ACCEPT))
        else:
            state = match({"ct": {"key": "state"}}, ["established", "related"], "in")
            sent_on = match({"ct": {"key": "status"}}, "dnat", "in")
            found += ((*of_family, leaving(way.interface), which, ACCEPT) for which in (state, sent_on))
    return found


def _services(interface: str, family: str) -> list[tuple[Expression, ...]]:
    by_transport: dict[str, list[int]] = {}
    for transport, port in _SERVICES[family]:
        by_transport.setdefault(transport, []).append(port)
    found: list[tuple[Expression, ...]] = [(arriving(interface), match(meta("l4proto"), _ICMP[family]))]
    for transport, ports in by_transport.items():
        found.append((arriving(interface), match(nftables.field(transport, "dport"), any_of(ports))))
    return found

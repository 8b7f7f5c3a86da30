"""`pylxc info`."""

from __future__ import annotations

import sys

from pylxc.cli.grammar import Args, Command, Option
from pylxc.cli.output import format_time, plain, table, yes
from pylxc.units import binary_size, format_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pylxc.cli.session import Session

_SCOPES = ("global", "link", "local")


def addresses(network: dict[str, Any], indent: str, separator: str) -> list[str]:
    """Return a line per address of an interface."""
    return [
        f"{indent}{address['family']}{separator}{address['address']}/{address['netmask']} ({address['scope']})"
        for address in network.get("addresses") or []
    ]


def counters(network: dict[str, Any], indent: str) -> list[str]:
    """Return the lines of an interface's counters."""
    found = network.get("counters") or {}
    return [
        f"{indent}Bytes received: {format_bytes(found.get('bytes_received', 0))}",
        f"{indent}Bytes sent: {format_bytes(found.get('bytes_sent', 0))}",
        f"{indent}Packets received: {found.get('packets_received', 0)}",
        f"{indent}Packets sent: {found.get('packets_sent', 0)}",
    ]


def _instance_lines(instance: dict[str, Any]) -> list[str]:
    lines = [f"Name: {instance['name']}"]
    if instance.get("description"):
        lines.append(f"Description: {instance['description']}")
    lines.append(f"Status: {instance['status'].upper()}")
    kind = instance.get("type", "container")
    lines.append(f"Type: {kind} (ephemeral)" if instance.get("ephemeral") else f"Type: {kind}")
    lines.append(f"Architecture: {instance['architecture']}")
    state = instance.get("state") or {}
    if state.get("pid"):
        lines.append(f"PID: {state['pid']}")
    if created := format_time(instance["created_at"]):
        lines.append(f"Created: {created}")
    if used := format_time(instance["last_used_at"]):
        lines.append(f"Last Used: {used}")
    if state.get("pid"):
        lines += ["", "Resources:", *_resource_lines(state)]
    if snapshots := instance.get("snapshots"):
        rows = [
            [s["name"], format_time(s["created_at"]), format_time(s["expires_at"]), yes(s["stateful"])]
            for s in snapshots
        ]
        lines += ["", "Snapshots:", *table(("NAME", "TAKEN AT", "EXPIRES AT", "STATEFUL"), rows)]
    return lines


def _resource_lines(state: dict[str, Any]) -> list[str]:
    lines = [f"  Processes: {state.get('processes', 0)}"]
    disks = [(name, disk["usage"]) for name, disk in sorted((state.get("disk") or {}).items()) if disk.get("usage")]
    if disks:
        lines += ["  Disk usage:", *(f"    {name}: {binary_size(usage)}" for name, usage in disks)]
    if "usage" in (state.get("cpu") or {}):
        lines += ["  CPU usage:", f"    CPU usage (in seconds): {state['cpu']['usage'] // 10**9}"]
    memory = state.get("memory") or {}
    titles = (
        ("usage", "Memory (current)"),
        ("usage_peak", "Memory (peak)"),
        ("swap_usage", "Swap (current)"),
        ("swap_usage_peak", "Swap (peak)"),
    )
    used = [f"    {title}: {binary_size(memory[key])}" for key, title in titles if memory.get(key)]
    if used:
        lines += ["  Memory usage:", *used]
    networks = state.get("network") or {}
    if networks:
        lines.append("  Network usage:")
    for name, network in sorted(networks.items()):
        lines += [f"    {name}:", f"      Type: {network['type']}", f"      State: {network['state'].upper()}"]
        if network.get("host_name"):
            lines.append(f"      Host interface: {network['host_name']}")
        if network.get("hwaddr"):
            lines.append(f"      MAC address: {network['hwaddr']}")
        if network.get("mtu"):
            lines.append(f"      MTU: {network['mtu']}")
        lines += [*counters(network, "      "), "      IP addresses:"]
        for address in network.get("addresses") or []:
            family = f"{address['family']}:".ljust(6)
            lines.append(f"        {family} {address['address']}/{address['netmask']} ({address['scope']})")
    return lines


def _show_instance(session: Session, args: Args, name: str) -> None:
    instance = session.client.instances.get(name, full=True)
    print(plain("\n".join(_instance_lines(instance))))
    if args.show_log:
        path = session.client.instances.url(name, "logs", "lxc.log")
        log = session.client.stream("GET", path).read().decode(errors="replace")
        print(plain("\nLog:\n\n" + log))


def _run(session: Session, args: Args) -> None:
    name = session.name(args.words[0] if args.words else "")
    if name:
        _show_instance(session, args, name)
        return
    from pylxc.cli import yamltext

    if args.resources:
        from pylxc.cli.resources import lines

        print(plain("\n".join(lines(session.client.get("/1.0/resources")))))
        return
    sys.stdout.write(yamltext.dump(session.client.server))


COMMANDS = (
    Command(
        "info",
        "Show instance or server information",
        "[<remote>:][<instance>]",
        _run,
        words=(0, 1),
        options=(
            Option("--resources", help="Show the resources available to the server"),
            Option("--show-log", help="Show the instance's log"),
        ),
        examples=(("info c01 --show-log", "Show an instance and its log."), ("info", "Show the server.")),
        complete=("instance",),
    ),
)

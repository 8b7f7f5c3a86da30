"""What `pylxc info --resources` prints."""

from __future__ import annotations

from pylxc.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def lines(resources: dict[str, Any]) -> list[str]:
    """Return the lines for the host that `resources` (GET /1.0/resources) describes."""
    found = [*_cpu(resources.get("cpu") or {}), "", *_memory(resources.get("memory") or {})]
    for card in (resources.get("network") or {}).get("cards") or []:
        found += ["", "NIC:", *_card(card)]
    for disk in (resources.get("storage") or {}).get("disks") or []:
        found += ["", "Disk:", *_disk(disk)]
    for gpu in (resources.get("gpu") or {}).get("cards") or []:
        found += ["", "GPU:", *_card(gpu)]
    return found


def _cpu(cpu: dict[str, Any]) -> list[str]:
    found = []
    for socket in cpu.get("sockets") or []:
        found.append(f"CPU ({cpu['architecture']}):")
        found += [
            f"  {title}: {socket[key]}" for key, title in (("vendor", "Vendor"), ("name", "Name")) if socket.get(key)
        ]
        if socket.get("cache"):
            found.append("  Caches:")
        for cache in socket.get("cache") or []:
            found.append(f"    - Level {cache['level']} (type: {cache['type']}): {binary_size(cache['size'], 0)}")
        found.append("  Cores:")
        for core in socket.get("cores") or []:
            found += [f"    - Core {core['core']}", f"      Frequency: {core.get('frequency', 0)}Mhz", "      Threads:"]
            for thread in core.get("threads") or []:
                online = str(thread["online"]).lower()
                found.append(f"        - {thread['thread']} (id: {thread['id']}, online: {online})")
    return found


def _memory(memory: dict[str, Any]) -> list[str]:
    total, used = memory.get("total", 0), memory.get("used", 0)
    return [
        "Memory:",
        f"  Free: {binary_size(total - used)}",
        f"  Used: {binary_size(used)}",
        f"  Total: {binary_size(total)}",
    ]


def _card(card: dict[str, Any]) -> list[str]:
    found = [f"  PCI address: {card['pci_address']}"] if card.get("pci_address") else []
    found += [
        f"  {title}: {card[key]}" for key, title in (("vendor", "Vendor"), ("product", "Product")) if card.get(key)
    ]
    if card.get("driver"):
        found.append(f"  Driver: {card['driver']} ({card.get('driver_version', '')})")
    for port in card.get("ports") or []:
        found.append(f"  Port {port['id']}: {port.get('address', '')}")
    return found


def _disk(disk: dict[str, Any]) -> list[str]:
    return [
        f"  ID: {disk['id']}",
        f"  Device: {disk.get('device', '')}",
        f"  Type: {disk.get('type', '')}",
        f"  Size: {binary_size(disk.get('size', 0))}",
        f"  Read-Only: {str(disk.get('read_only', False)).lower()}",
        f"  Removable: {str(disk.get('removable', False)).lower()}",
    ]

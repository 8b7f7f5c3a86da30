"""Every key of instances and devices acts, with a test that measures it in a guest or on the host, or is refused.

The table says which test that is; a key without one, a test that is gone and a row that is out of date fail here.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from pylxc.config.device import DEVICES, NICS
from pylxc.config.instance import INSTANCE, VOLATILE_PREFIX
from pylxc.config.key import Key, Table, check_value
from pylxc.config.server import SERVER
from pylxc.errors import BadRequest, NotSupported

CHECKOUT = Path(__file__).resolve().parents[3]
DEVICE_TABLES = {**DEVICES, **{f"nic-{kind}": table for kind, table in NICS.items()}}
EVERYWHERE = ("type", "user.*")

_INSTANCE = {
    "host/test_boot.py::test_order_delays_and_what_cannot_be_started": "boot.autostart.delay boot.autostart.priority",
    "host/test_boot.py::test_power_lost_while_the_host_goes_down": "boot.autostart boot.stop.priority",
    "host/test_boot.py::test_a_guest_that_never_stops_is_killed_in_time": "boot.host_shutdown_timeout",
    "host/test_boot.py::test_a_crash_is_followed_by_a_restart": "boot.autorestart",
    "host/test_limits.py::test_rlimits_sysctls_and_environment": "limits.kernel.* linux.sysctl.* environment.*",
    "host/test_limits.py::test_kernel_modules_are_there_before_a_guest_starts": "linux.kernel_modules",
    "host/test_devlxd.py::test_what_a_guest_is_told": "user.* cloud-init.vendor-data cloud-init.network-config",
    "host/test_devlxd.py::test_it_can_be_turned_off_and_on": "security.devlxd",
    "host/test_devlxd.py::test_images": "security.devlxd.images",
    "host/test_cloud_init.py::test_by_the_guest_api": "cloud-init.user-data",
    "host/test_publish.py::test_an_image_holds_the_whole_tree": "image.*",
    "host/test_limits.py::test_cpus_are_spread_as_guests_come_and_go": "limits.cpu",
    "host/test_limits.py::test_cpu_time_is_held_hard": "limits.cpu.allowance",
    "host/test_limits.py::test_cpu_time_is_shared_by_weight": "limits.cpu.priority",
    "host/test_limits.py::test_weight_of_disks_and_swapping": "limits.disk.priority limits.memory.swap.priority",
    "host/test_limits.py::test_huge_pages": "limits.hugepages.2MB",
    "host/test_limits.py::test_limits_that_this_host_does_not_have": (
        "limits.hugepages.64KB limits.hugepages.1MB limits.hugepages.1GB"
    ),
    "host/test_limits.py::test_memory_and_who_has_none_left": "limits.memory limits.memory.enforce",
    "vm/test_stock_host.py::test_cpus_that_come_and_go_and_limits_of_cgroup_v2": "limits.memory.swap",
    "host/test_limits.py::test_processes": "limits.processes",
    "host/test_security.py::test_maps_of_ids": (
        "security.idmap.base security.idmap.isolated security.idmap.size raw.idmap"
    ),
    "host/test_nesting.py::test_debians_podman_runs_containers": "security.nesting",
    "host/test_instances.py::test_id_maps": "security.privileged",
    "host/test_instances.py::test_protection": "security.protection.delete",
    "host/test_security.py::test_files_keep_their_owners_on_disk": "security.protection.shift",
    "host/test_security.py::test_lists_of_calls": (
        "security.syscalls.allow security.syscalls.deny security.syscalls.deny_default "
        "security.syscalls.whitelist security.syscalls.blacklist security.syscalls.blacklist_default"
    ),
    "host/test_security.py::test_calls_of_foreign_abis": (
        "security.syscalls.deny_compat security.syscalls.blacklist_compat"
    ),
    "host/test_security.py::test_policy_of_ones_own": "raw.seccomp",
    "host/test_security.py::test_configuration_of_liblxc": "raw.lxc",
    "vm/test_stock_host.py::test_apparmor_profile_of_an_instance": "raw.apparmor",
    "host/test_snapshots.py::test_names_and_expiry": "snapshots.pattern snapshots.expiry",
    "host/test_snapshots.py::test_on_schedule": "snapshots.schedule snapshots.schedule.stopped",
}

_NICS = "host/test_nics.py::"
_MODULES = "vm/test_stock_host.py::test_network_devices_that_need_modules"
_NIC_NAMES = {f"{_NICS}test_names_of_every_kind": "nictype name hwaddr mtu"}
_DEVICES: dict[str, dict[str, str]] = {
    "none": {},
    "disk": {
        "host/test_disks.py::test_propagation": "path source recursive propagation",
        "host/test_disks.py::test_recursive_and_readonly": "readonly",
        "host/test_disks.py::test_shift": "shift",
        "host/test_disks.py::test_file_and_options": "raw.mount.options",
        "host/test_disks.py::test_source_comes_and_goes": "required",
        "host/test_volumes.py::test_shared_by_guests_of_different_id_maps": "pool",
        "host/test_root_size.py::test_a_guest_meets_its_limit_and_it_changes_live": "size",
        "host/test_limits.py::test_disks": "limits.read limits.write limits.max",
    },
    "proxy": {
        "host/test_proxy.py::test_hot_plugged_changed_and_taken_away": "listen connect",
        "host/test_proxy.py::test_the_guest_reaches_the_host": "bind",
        "host/test_proxy.py::test_nat_by_the_firewall": "nat",
        "host/test_proxy_process.py::test_the_proxy_header_names_the_client": "proxy_protocol",
        "host/test_proxy_process.py::test_unix_sockets_carry_descriptors_into_the_container": "uid gid mode",
        "host/test_proxy.py::test_who_connects": "security.uid security.gid",
    },
    **{
        kind: {
            "host/test_unix_devices.py::test_block_device_comes_and_goes": "source path uid gid mode",
            "host/test_unix_devices.py::test_at_start": "major minor",
            "host/test_unix_devices.py::test_appears_and_vanishes": "required",
        }
        for kind in ("unix-char", "unix-block")  # which are one driver
    },
    "nic-bridged": {
        **_NIC_NAMES,
        "host/test_network_bridge.py::test_interface_inside": "network",
        f"{_NICS}test_names_addresses_and_mtu": "parent host_name",
        f"{_NICS}test_vlans_of_a_bridge": "vlan vlan.tagged",
        f"{_NICS}test_routes": "ipv4.routes ipv6.routes",
        f"{_NICS}test_limits": "limits.ingress limits.egress limits.max",
        f"{_NICS}test_mac_filter": "security.mac_filtering",
        f"{_NICS}test_address_filters": ("security.ipv4_filtering security.ipv6_filtering ipv4.address ipv6.address"),
        f"{_NICS}test_port_isolation": "security.port_isolation",
    },
    "nic-p2p": {
        **_NIC_NAMES,
        f"{_NICS}test_p2p": "host_name ipv4.routes",
        f"{_NICS}test_limits_of_every_kind": "ipv6.routes limits.ingress limits.egress limits.max",
    },
    "nic-routed": {
        **_NIC_NAMES,
        f"{_NICS}test_routed": "parent ipv4.address ipv6.address ipv4.gateway ipv4.routes ipv4.host_table",
        f"{_NICS}test_routed_with_all_its_keys": (
            "host_name ipv6.routes ipv6.host_table ipv6.gateway ipv4.host_address ipv6.host_address "
            "ipv4.neighbor_probe ipv6.neighbor_probe"
        ),
        f"{_NICS}test_limits_of_every_kind": "limits.ingress limits.egress limits.max",
        _MODULES: "vlan gvrp",
    },
    "nic-macvlan": {**_NIC_NAMES, f"{_NICS}test_macvlan": "parent network", _MODULES: "vlan gvrp"},
    "nic-physical": {f"{_NICS}TestPhysical": "nictype parent network name mtu hwaddr", _MODULES: "vlan gvrp"},
    "nic-ipvlan": {
        _MODULES: (
            "nictype parent name mtu vlan gvrp mode ipv4.address ipv6.address ipv4.gateway ipv6.gateway "
            "ipv4.host_table ipv6.host_table"
        )
    },
}
MEASURED = {"instance": _INSTANCE, **_DEVICES}
TABLES: dict[str, Table] = {"instance": INSTANCE, **{k: t for k, t in DEVICE_TABLES.items() if not t.refused}}


@pytest.mark.parametrize("kind", TABLES)
def test_every_key_that_acts_has_a_test(kind: str) -> None:
    measured = [key for keys in MEASURED[kind].values() for key in keys.split()]
    wanted = {key.name for key in TABLES[kind].keys if not key.refused and not _is_a_note(kind, key)}
    listed = {key for key in wanted if any(fnmatchcase(key, row) for row in measured)}
    assert wanted - listed == set(), "keys without a test"
    assert [row for row in measured if not any(fnmatchcase(key, row) for key in wanted)] == [], "rows of no key"


def test_tests_exist_and_say_the_key() -> None:
    for kind, rows in MEASURED.items():
        for test, keys in rows.items():
            path, _, name = test.partition("::")
            text = _text(CHECKOUT / "tests" / path)
            assert re.search(rf"^(def|class) {name}\b", text, re.MULTILINE), f"{kind}: {test} is gone"
            for key in keys.split():
                word = re.sub(r"^ipv\d_", "", key.rstrip("*.").rpartition(".")[2])
                assert word in text, f"{kind}: {test} does not speak of {key}"


REFUSED = [(kind, key) for kind, table in {**TABLES, "server": SERVER}.items() for key in table.keys if key.refused]


@pytest.mark.parametrize(("kind", "key"), REFUSED, ids=[f"{kind} {key.name}" for kind, key in REFUSED])
def test_refused_keys_are_refused_with_their_name_and_documented(kind: str, key: Key) -> None:
    check_value(key, key.name, key.default)
    with pytest.raises(NotSupported, match=re.escape(key.name)):
        check_value(key, key.name, next(value for value in _VALUES if _passes(key, value)))
    words = re.findall(r"`([^`]+)`", _text(CHECKOUT / "docs/compatibility.md"))
    assert any(fnmatchcase(key.name, word) for word in words), f"{key.name} is not in docs/compatibility.md"


def test_no_key_is_without_effect_but_notes() -> None:
    tables = [("instance", INSTANCE), ("server", SERVER), *DEVICE_TABLES.items()]
    assert [k.name for kind, table in tables for k in table.keys if not k.acts and not _is_a_note(kind, k)] == []


_VALUES = ("true", "false", "1", "5", "60", "web", "stop", "10.0.0.0/8", "10.0.0.1", "1d", "pool/volume")


def _passes(key: Key, value: str) -> bool:
    try:
        key.check(value)
    except BadRequest:
        return False
    return value != key.default


def _is_a_note(kind: str, key: Key) -> bool:
    """Tell whether a key is what the server notes, or has no more meaning than that it is kept."""
    return key.name.startswith(VOLATILE_PREFIX) if kind == "instance" else key.name in EVERYWHERE


@cache
def _text(path: Path) -> str:
    return path.read_text()

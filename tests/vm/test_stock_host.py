"""pylxc on a stock Debian 12 host: systemd, cgroup v2 only, AppArmor, Debian's own kernel."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable

import pytest

from tests.vm.stock_host import CONTRACT, StockHost


@pytest.mark.timeout(1200)
def test_debian_guests_reach_running(host: StockHost) -> None:
    images = ("debian12", "debian13")
    launched = " & ".join(f"pylxc launch {image} {image}" for image in images)
    host.check("sh", "-c", f"{launched} & wait", timeout=600)
    for image in images:
        booted = "until [ -S /run/dbus/system_bus_socket ]; do sleep 0.2; done; systemctl is-system-running --wait"
        status, out = host.run("pylxc", "exec", image, "--", "sh", "-c", booted, timeout=300)
        failed = host.run("pylxc", "exec", image, "--", "systemctl", "--failed")[1]
        assert (status, out.strip()) == (0, "running"), failed
        controllers = host.check("pylxc", "exec", image, "--", "cat", "/sys/fs/cgroup/cgroup.controllers").split()
        assert {"memory", "pids", "cpu"} <= set(controllers)
        state = json.loads(host.check("pylxc", "query", f"/1.0/instances/{image}/state"))
        addresses = [a["address"] for a in state["network"]["eth0"]["addresses"] if a["family"] == "inet"]
        assert addresses, state["network"]
    host.check("pylxc", "delete", "--force", *images, timeout=120)


@pytest.mark.timeout(600)
def test_limits_and_exec_on_cgroup_v2(host: StockHost) -> None:
    host.check(
        "pylxc", "launch", "busybox", "b1", "-c", "limits.memory=64MiB", "-c", "limits.processes=100", timeout=120
    )
    assert host.check("pylxc", "exec", "b1", "--", "cat", "/sys/fs/cgroup/memory.max").strip() == str(64 << 20)
    assert host.check("pylxc", "exec", "b1", "--", "cat", "/sys/fs/cgroup/pids.max").strip() == "100"
    assert host.run("pylxc", "exec", "b1", "--", "sh", "-c", "exit 7")[0] == 7
    host.check("pylxc", "pause", "b1")
    assert "FROZEN" in host.check("pylxc", "list", "b1", "-f", "csv", "-c", "s")
    host.check("pylxc", "start", "b1")
    host.check("pylxc", "stop", "b1", timeout=120)
    host.check("pylxc", "delete", "b1")


@pytest.mark.timeout(600)
def test_apparmor_profile_of_an_instance(host: StockHost) -> None:
    def sh(name: str, script: str) -> str:
        return host.run("pylxc", "exec", name, "--", "sh", "-c", script)[1]

    host.check("pylxc", "launch", "busybox", "a1", "-c", "raw.apparmor=deny /etc/hostname w,", timeout=120)
    host.check("pylxc", "launch", "busybox", "a2", "-c", "security.privileged=true", timeout=120)
    for pid in ("1", "self"):
        assert sh("a1", f"cat /proc/{pid}/attr/current").startswith("pylxc-a1.")
    assert "(enforce)" in sh("a1", "cat /proc/1/attr/current")
    assert "denied" in sh("a1", "echo x > /etc/hostname")
    assert sh("a1", "echo 1 > /proc/sys/net/ipv4/ip_forward && hostname other && mount -t tmpfs none /tmp") == ""
    assert "denied" in sh("a1", "mount -t tmpfs none /proc/acpi")
    assert "denied" in sh("a2", "mount -o remount,rw /proc/sys")
    assert "denied" in sh("a2", "mount -t proc none /mnt")
    assert "denied" in sh("a2", "mount --bind /proc /mnt")
    status, out = host.run("pylxc", "config", "set", "a1", "raw.apparmor=nonsense")
    assert (status, "raw.apparmor line 1: AppArmor's parser says: syntax error" in out) == (1, True), out
    assert "denied" in sh("a1", "echo x > /etc/hostname")
    host.check("pylxc", "config", "set", "a1", "raw.apparmor=deny /etc/passwd r,")
    assert "denied" in sh("a1", "cat /etc/passwd")
    assert sh("a1", "echo x > /etc/hostname") == ""
    host.check("pylxc", "delete", "--force", "a2")
    host.check("pylxc", "stop", "--force", "a1")
    host.check("sh", "-c", "! grep pylxc- /sys/kernel/security/apparmor/profiles")
    host.check("mv", "/usr/sbin/apparmor_parser", "/usr/sbin/away")
    status, out = host.run("pylxc", "start", "a1")
    host.check("mv", "/usr/sbin/away", "/usr/sbin/apparmor_parser")
    assert (status, "'apparmor_parser' that loads profiles is missing (apt-get install apparmor)" in out) == (1, True)
    host.check("pylxc", "config", "set", "a1", "raw.lxc=lxc.apparmor.profile = unconfined")
    host.check("pylxc", "start", "a1")
    assert sh("a1", "cat /proc/1/attr/current").strip() == "unconfined"
    host.check("pylxc", "delete", "--force", "a1")
    assert host.check("sh", "-c", "ls /var/lib/pylxc/security/apparmor/profiles | grep -c a[12] || true").strip() == "0"


@pytest.mark.timeout(1200)
def test_cpus_that_come_and_go_and_limits_of_cgroup_v2(host: StockHost) -> None:
    def cpu(name: str) -> str:
        return host.check("pylxc", "exec", name, "--", "grep", "Cpus_allowed_list", "/proc/self/status").split()[1]

    def switch(online: int) -> None:
        host.check("sh", "-c", f"echo {online} > /sys/devices/system/cpu/cpu1/online")

    raised = ("-c", "limits.kernel.nice=21:22", "-c", "limits.kernel.rtprio=12:13")
    for name in ("m1", "m2"):
        host.check("pylxc", "launch", "busybox", name, "-c", "limits.cpu=1", *raised, timeout=120)
    shown = host.check("pylxc", "exec", "m2", "--", "cat", "/proc/1/limits")
    assert re.search(r"nice priority +21 +22 ", shown), shown
    assert re.search(r"realtime priority +12 +13 ", shown), shown
    assert sorted(map(cpu, ("m1", "m2"))) == ["0", "1"]
    switch(0)
    assert [cpu("m1"), cpu("m2")] == ["0", "0"]
    switch(1)
    for _ in range(50):
        if sorted(map(cpu, ("m1", "m2"))) == ["0", "1"]:
            break
    else:
        pytest.fail("the CPU that is back has got nobody")
    host.check("pylxc", "config", "device", "add", "m1", "host", "disk", "source=/", "path=/host", "readonly=true")
    host.check("pylxc", "config", "set", "m1", "limits.memory=64MiB", "limits.hugepages.2MB=4MiB")
    assert host.check("pylxc", "exec", "m1", "--", "cat", "/sys/fs/cgroup/hugetlb.2MB.max").strip() == str(4 << 20)
    greedy = ("chroot", "/host", "/usr/bin/python3", "-c", "bytearray(100 << 20)")
    assert host.run("pylxc", "exec", "m1", "--", *greedy)[0] == 137
    host.check("sh", "-c", "until pylxc warning list -f csv | grep -q 'ran out of memory'; do sleep 0.2; done")
    host.check("sh", "-euc", "dd if=/dev/zero of=/swap bs=1M count=128; chmod 600 /swap; mkswap /swap; swapon /swap")
    assert host.run("pylxc", "exec", "m1", "--", *greedy)[0] == 0
    host.check("pylxc", "config", "set", "m1", "limits.memory.swap=false")
    assert host.run("pylxc", "exec", "m1", "--", *greedy)[0] == 137
    host.check("sh", "-euc", "swapoff /swap; rm /swap")
    refused = host.run("pylxc", "config", "set", "m1", "limits.memory.swap.priority=5")[1]
    assert "the cgroup controller 'memory' has no memory.swappiness" in refused
    host.check("pylxc", "config", "device", "override", "m1", "root", "limits.write=1MiB")
    write = (
        "begin=$(date +%s); dd if=/dev/zero of=/f bs=1M count=4 conv=fsync 2>/dev/null; echo $(($(date +%s) - begin))"
    )
    assert 2 <= int(host.check("pylxc", "exec", "m1", "--", "sh", "-c", write)) < 60
    for name in ("m1", "m2"):
        host.check("pylxc", "delete", "--force", name)


@pytest.mark.timeout(600)
def test_daemon_restarts_beneath_running_guests(host: StockHost) -> None:
    host.check("pylxc", "launch", "busybox", "b2", timeout=120)
    before = json.loads(host.check("pylxc", "query", "/1.0/instances/b2/state"))["pid"]
    host.check("systemctl", "restart", "pylxc.service", timeout=120)
    after = json.loads(host.check("pylxc", "query", "/1.0/instances/b2/state"))
    assert (after["status"], after["pid"]) == ("Running", before)
    assert host.check("pylxc", "exec", "b2", "--", "echo", "there").strip() == "there"
    show = ("systemctl", "show", "--value", "-p", "MainPID", "pylxc.service")
    daemon = host.check(*show).strip()
    spawner = host.check("pgrep", "-P", daemon)
    host.check("systemctl", "reload", "pylxc.service", timeout=120)
    assert host.check(*show).strip() == daemon, "it is the same process"
    assert host.check("pgrep", "-P", daemon) != spawner, "it has begun anew"
    assert json.loads(host.check("pylxc", "query", "/1.0/instances/b2/state"))["pid"] == before
    host.check("pylxc", "delete", "--force", "b2")


# QEMU's own network: its DHCP server and gateway are 10.0.2.2, the first client gets 10.0.2.15.
NETWORKD = """\
[Match]
Name=en* eth*

[Network]
DHCP=ipv4
"""


@pytest.mark.timeout(1200)
def test_reboot_of_the_host_with_a_bridge_on_its_own_network(host: StockHost) -> None:
    script = (
        f"cat > /etc/systemd/network/20-lan.network <<'EOF'\n{NETWORKD}EOF\nsystemctl enable --now systemd-networkd"
    )
    host.check("sh", "-c", script)
    wait = "until ip -4 -br address | grep -q 10.0.2.15; do sleep 0.2; done; ip -4 -br address"
    (interface,) = (line.split()[0] for line in host.check("sh", "-c", wait).splitlines() if "10.0.2.15" in line)
    host.check("busybox", "ping", "-c1", "-W5", "10.0.2.2")
    try:
        host.check("pylxc", "network", "create", "br0", "--lan", interface, "--persist")
        host.check("pylxc", "launch", "busybox", "l1", "--lan", "-c", "boot.autostart=true")
        _is_on_the_network(host, "l1")
        _make_what_boots(host)
        _lose_power_while_the_host_goes_down(host)
        host.reboot()
        _has_booted_in_order(host)
        _is_on_the_network(host, "l1")
        assert "Bridge=br0" in host.check("cat", "/etc/systemd/network/05-pylxc-br0-port.network")
        leased = host.check("journalctl", "-b", "-u", "systemd-networkd", "--grep", "br0: DHCPv4 address 10.0.2.15")
        assert leased, "systemd-networkd has brought the bridge up, not pylxc"
    finally:
        host.run("pylxc", "delete", "--force", "l1")
        host.check("pylxc", "network", "delete", "br0")
    assert host.check("ls", "/etc/systemd/network").split() == ["20-lan.network"]
    assert f"{interface} " in host.check("sh", "-c", wait)
    assert "br0" not in [line.split()[0] for line in host.check("ip", "-br", "link").splitlines()]


def _make_what_boots(host: StockHost) -> None:
    first = ("boot.autostart=true", "boot.autostart.priority=9", "boot.autostart.delay=3")
    for name, *config in (
        ("first", *first),
        ("second", "boot.autostart=true"),
        ("off", "boot.autostart=false"),
        ("ran",),
    ):
        host.check("pylxc", "launch", "busybox", name, *(word for key in config for word in ("-c", key)), timeout=120)
    host.check("pylxc", "init", "busybox", "idle")
    _add_to_shutdown(host, "first", "/bin/sleep 2", "/bin/touch /went-down")


def _lose_power_while_the_host_goes_down(host: StockHost) -> None:
    """Cut the power when some guests have stopped and one has not; all that ran runs after the next boot."""
    _add_to_shutdown(host, "ran", "/bin/sleep 100")
    host.check("sync")
    host.check("systemctl", "poweroff", "--no-block")
    went_down = "/var/lib/pylxc/storage-pools/default/containers/first/rootfs/went-down"
    host.check("sh", "-c", f"until [ -e {went_down} ]; do sleep 0.1; done")
    host.check("pgrep", "-f", "sleep 100")
    host.kill()
    host.boot()
    host.check("sh", "-c", "until systemctl is-active -q pylxc-instances.service; do sleep 0.5; done", timeout=300)
    _settles(host, BOOTED)
    integrity = (
        "import sqlite3; print(*sqlite3.connect('/var/lib/pylxc/database/pylxc.db').execute('pragma integrity_check'))"
    )
    assert host.check("python3", "-c", integrity) == "('ok',)\n"
    assert host.check("pylxc", "warning", "list", "-f", "csv") == ""
    for name in ("l1", "first", "second", "ran"):
        assert host.check("pylxc", "exec", name, "--", "hostname") == f"{name}\n"
    host.check("pylxc", "exec", "first", "--", "rm", "-f", "/went-down")
    host.check("pylxc", "exec", "ran", "--", "sh", "-c", "sed -i '/sleep 100/d' /etc/inittab; kill -HUP 1")


def _add_to_shutdown(host: StockHost, name: str, *commands: str) -> None:
    """Give a busybox guest something to do when it shuts down."""
    lines = "".join(f"::shutdown:{command}\\n" for command in commands)
    host.check("pylxc", "exec", name, "--", "sh", "-c", f"printf '{lines}' >> /etc/inittab; kill -HUP 1")


BOOTED = dict.fromkeys(("l1", "first", "second", "ran"), "RUNNING") | dict.fromkeys(("off", "idle"), "STOPPED")
"""What there is after each boot."""


def _has_booted_in_order(host: StockHost) -> None:
    """Check that systemd has started what was to run, and nothing else, and delete it."""
    host.check("sh", "-c", "until systemctl is-active -q pylxc-instances.service; do sleep 0.5; done", timeout=300)
    _settles(host, BOOTED)
    begun = {
        name: dt.datetime.fromisoformat(
            json.loads(host.check("pylxc", "query", f"/1.0/instances/{name}"))["last_used_at"]
        )
        for name in ("first", "second", "ran")
    }
    for later in ("second", "ran"):
        assert begun[later] - begun["first"] >= dt.timedelta(seconds=3), begun
    host.check("pylxc", "exec", "first", "--", "test", "-e", "/went-down")
    host.check("pylxc", "delete", "--force", "first", "second", "off", "ran", "idle", timeout=120)


def _settles(host: StockHost, wanted: dict[str, str]) -> None:
    """Wait until these instances are as wanted."""
    lines = "\n".join(sorted(f"{name},{status}" for name, status in wanted.items()))
    names = "|".join(wanted)
    look = f"found=$(pylxc list -f csv -c ns | grep -E '^({names}),' | sort); [ \"$found\" = '{lines}' ] && exit"
    host.check("sh", "-c", f'for i in $(seq 300); do {look}; sleep 0.2; done; echo "$found"; exit 1', timeout=180)


def _is_on_the_network(host: StockHost, name: str) -> None:
    """Check that the host's address is on br0, and that an instance there has leased one as well."""
    host.check("sh", "-c", "until ip -4 address show br0 | grep -q 10.0.2.15; do sleep 0.2; done")
    host.check("sh", "-c", f"until pylxc list {name} -f csv -c 4 | grep -q 10.0.2.; do sleep 0.5; done")


@pytest.mark.timeout(900)
def test_network_devices_that_need_modules(host: StockHost) -> None:
    outside = """
    ip netns add out
    ip link add lower0 type veth peer name up0 netns out
    ip link set lower0 up
    ip address add 192.0.2.9/24 dev lower0
    ip -n out link set up0 up
    ip -n out address add 192.0.2.1/24 dev up0
    ip -n out link add link up0 name up0.7 up type vlan id 7
    ip -n out address add 10.7.0.1/24 dev up0.7
    ip -n out -6 address add fd07::1/64 dev up0.7 nodad
    ip link add ub0 up type bridge vlan_filtering 1
    bridge vlan add dev ub0 vid 5 self
    ip link add link ub0 name ub0.5 up type vlan id 5
    ip address add 10.5.0.1/24 dev ub0.5
    """
    host.check("sh", "-euc", outside)
    host.check("pylxc", "launch", "busybox", "n1", timeout=120)

    def add(device: str, *keys: str) -> None:
        host.check("pylxc", "config", "device", "add", "n1", device, "nic", f"name={device}", *keys)

    def remove(device: str) -> None:
        host.check("pylxc", "config", "device", "remove", "n1", device)

    def reaches(address: str, *setup: str) -> bool:
        script = "\n".join([*setup, f"ping -c 3 -W 2 {address}"])
        return host.run("pylxc", "exec", "n1", "--", "sh", "-c", script)[0] == 0

    add("vlan0", "nictype=macvlan", "parent=lower0", "vlan=7", "gvrp=true")
    assert reaches("10.7.0.1", "ip address add 10.7.0.5/24 dev vlan0")
    remove("vlan0")
    assert host.run("ip", "link", "show", "lower0.7")[0] != 0
    add("phys0", "nictype=physical", "parent=lower0", "vlan=7", "gvrp=true")
    assert reaches("10.7.0.1", "ip address add 10.7.0.5/24 dev phys0")
    remove("phys0")
    assert host.run("ip", "link", "show", "lower0.7")[0] != 0
    host.check("sysctl", "-w", "net.ipv4.conf.default.forwarding=1", "net.ipv4.conf.all.forwarding=1")
    add("far0", "nictype=routed", "parent=lower0", "vlan=7", "gvrp=true", "ipv4.address=10.7.0.9")
    assert "GVRP" in host.check("ip", "-d", "link", "show", "lower0.7")
    host.check("ip", "route", "add", "10.7.0.0/24", "dev", "lower0.7")
    host.check("ip", "netns", "exec", "out", "busybox", "ping", "-c", "3", "-W", "2", "10.7.0.9")
    remove("far0")
    layer2 = (
        "mode=l2",
        "ipv4.address=10.7.0.7/24",
        "ipv4.gateway=10.7.0.1",
        "ipv6.address=fd07::7",
        "ipv6.gateway=fd07::1",
    )
    add("ip0", "nictype=ipvlan", "parent=lower0", "vlan=7", "gvrp=true", "mtu=1400", *layer2)
    assert reaches("10.7.0.1")
    assert reaches("192.0.2.1")
    assert host.run("pylxc", "exec", "n1", "--", "ip", "-6", "route")[1].count("via fd07::1 dev ip0") == 1
    assert "mtu 1400" in host.check("pylxc", "exec", "n1", "--", "ip", "link", "show", "ip0")
    remove("ip0")
    host.check("sysctl", "-w", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.all.proxy_ndp=1")
    host.check("sysctl", "-w", "net.ipv4.conf.lower0.forwarding=1", "net.ipv6.conf.lower0.proxy_ndp=1")
    for mode in ("l3s", "l2"):
        tables = ("ipv4.host_table=77", "ipv6.host_table=78", "ipv6.address=2001:db8::70")
        add("ip0", "nictype=ipvlan", "parent=lower0", f"mode={mode}", "ipv4.address=192.0.2.70", *tables)
        assert reaches("192.0.2.1")
        if mode == "l3s":
            assert "192.0.2.70" in host.check("ip", "route", "show", "table", "77")
            assert "2001:db8::70" in host.check("ip", "-6", "route", "show", "table", "78")
        remove("ip0")
        assert "192.0.2.70" not in host.check("ip", "neighbour", "show", "proxy") + host.check("ip", "route")
    add("port0", "nictype=bridged", "parent=ub0", "vlan=5", "vlan.tagged=10-11")
    assert reaches("10.5.0.1", "ip address add 10.5.0.5/24 dev port0")
    shown = host.check("bridge", "vlan", "show").partition("veth")[2]
    assert "5 PVID Egress Untagged" in shown
    assert " 11" in shown
    remove("port0")
    host.check("pylxc", "network", "create", "mb0", "ipv4.address=10.6.0.1/24", "ipv6.address=none", timeout=60)
    add("man0", "network=mb0", "vlan=6")
    assert host.check("cat", "/sys/class/net/mb0/bridge/vlan_filtering").strip() == "1"
    remove("man0")
    held = ("security.mac_filtering=true", "security.ipv4_filtering=true", "limits.max=20Mbit", "ipv4.address=10.6.0.5")
    add("held0", "network=mb0", *held)
    assert reaches("10.6.0.1", "ip address add 10.6.0.5/24 dev held0")
    assert not reaches("10.6.0.1", "ip address flush dev held0", "ip address add 10.6.0.6/24 dev held0")
    assert host.check("tc", "class", "show", "dev", "ub0") == ""
    assert "rate 20Mbit" in host.check("sh", "-c", "for i in $(ls /sys/class/net); do tc class show dev $i; done")
    host.check("pylxc", "delete", "--force", "n1", timeout=60)
    host.check("pylxc", "network", "delete", "mb0", timeout=60)
    host.check("sh", "-c", "ip link delete ub0.5; ip link delete ub0; ip link delete lower0; ip netns delete out")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_project_quotas(host: StockHost, kind: str) -> None:
    """Which CI's own kernel does not have. The file system gets them when an instance is there already."""
    make, prepare = {
        "ext4": ("mkfs.ext4 -q /srv/ext4.img 512M", "tune2fs -O project,quota -Q prjquota /srv/ext4.img"),
        "xfs": ("zstd -q -d --sparse /images/xfs.zst -o /srv/xfs.img", ":"),
    }[kind]
    mount, where, name = f"mount -o loop,prjquota /srv/{kind}.img", f"/srv/{kind}", f"q-{kind}"
    host.check("sh", "-euc", f"{make}; mkdir {where}; mount -o loop {where}.img {where}; mkdir {where}/pool")
    host.check("pylxc", "storage", "create", kind, "dir", f"source={where}/pool")
    host.check("pylxc", "init", "busybox", name, "-s", kind, timeout=120)
    status, out = host.run("pylxc", "config", "device", "set", name, "root", "size=32MiB")
    assert status != 0
    assert "prjquota" in out
    host.check("sh", "-euc", f"umount {where}; {prepare}; {mount} {where}")
    host.check("pylxc", "config", "device", "set", name, "root", "size=32MiB")
    host.check("pylxc", "start", name)

    def room() -> str:
        return host.check("pylxc", "exec", name, "--", "sh", "-c", "df -k / | tail -1").split()[1]

    def holds(mebibytes: int) -> bool:
        script = f"dd if=/dev/zero of=/big bs=1M count={mebibytes} conv=fsync; status=$?; rm /big; exit $status"
        return host.run("pylxc", "exec", name, "--", "sh", "-c", script)[0] == 0

    assert room() == "32768"
    assert not holds(40)
    host.check("pylxc", "config", "device", "set", name, "root", "size=64MiB")
    assert room() == "65536"
    assert holds(40)
    host.check("pylxc", "snapshot", name, "s0")
    host.check("pylxc", "exec", name, "--", "dd", "if=/dev/zero", "of=/kept", "bs=1M", "count=16", "conv=fsync")
    status, out = host.run("pylxc", "config", "device", "set", name, "root", "size=8MiB")
    assert status != 0
    assert "in use" in out
    used = json.loads(host.check("pylxc", "query", f"/1.0/instances/{name}/state"))["disk"]["root"]
    assert 16 << 20 <= used["usage"] < used["total"] == 64 << 20
    host.check("pylxc", "restore", name, "s0", timeout=120)
    host.check("systemctl", "restart", "pylxc.service", timeout=300)
    assert room() == "65536"
    assert not holds(80)
    host.check("pylxc", "config", "device", "set", name, "root", "size=")
    assert holds(80)
    host.check("pylxc", "delete", "--force", name)
    _meets_the_contract(host, kind)
    host.check("pylxc", "storage", "delete", kind)
    host.check("umount", where)


def _meets_the_contract(host: StockHost, kind: str) -> None:
    """Run the drivers' tests of sizes, as far as they are of the driver dir, on a file system of the machine."""
    run = "tar -xf /images/contract.tar -C /opt/contract && cd /opt/contract && PYTHONPATH=. /opt/pylxc/bin/python"
    options = f"-q -c /dev/null --noconftest --basetemp /srv/{kind}/tmp -k 'size and dir'"
    host.check("sh", "-euc", f"mkdir -p /opt/contract && {run} -m pytest {options} tests/host/{CONTRACT}", timeout=600)


@pytest.mark.timeout(600)
def test_nothing_is_left_behind(host: StockHost, leftovers: Callable[[StockHost], list[str]]) -> None:
    assert leftovers(host) == []


@pytest.fixture
def leftovers() -> Callable[[StockHost], list[str]]:
    """Return a function that names the mounts, veths and cgroups that containers have left on a machine."""

    def find(machine: StockHost) -> list[str]:
        mounts = [line for line in machine.check("cat", "/proc/mounts").splitlines() if "pylxc" in line]
        links = [line for line in machine.check("ip", "-o", "link").splitlines() if "veth" in line]
        return mounts + links

    return find

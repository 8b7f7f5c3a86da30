"""Configuration keys of instances and of the profiles that they share.

See: LXD 5.0 doc/instances.md, section "Key/value configuration"
"""

from __future__ import annotations

from pylxc import validate as v
from pylxc.config.key import Key, Table

_DEFAULT_CLOUD_CONFIG = "#cloud-config"

_BOOT = (
    Key(name="boot.autorestart", type="bool", check=v.boolean, default="false", live=True,
        help="Start the instance again when it has crashed, later each time; given up after ten times in a row."),
    Key(name="boot.autostart", type="bool", check=v.boolean, unset="the last state",
        help="Start the instance when the daemon starts with the host; unset: if it was running."),
    Key(name="boot.autostart.delay", type="integer", check=v.integer(0), default="0",
        help="Seconds to wait after this instance has started before the next one by priority and name is."),
    Key(name="boot.autostart.priority", type="integer", check=v.integer(), default="0",
        help="Order of starting, the highest first; those of the same priority are started together."),
    Key(name="boot.host_shutdown_timeout", type="integer", check=v.integer(0), default="30", live=True,
        help="Seconds that a clean stop may take when the host shuts down."),
    Key(name="boot.stop.priority", type="integer", check=v.integer(), default="0",
        help="Order of stopping, the highest first; those of the same priority are stopped together."),
    Key(name="cluster.evacuate", type="string", refused=True, default="auto",
        check=v.one_of("auto", "migrate", "live-migrate", "stop"), help="What evacuating a cluster member does."),
)  # fmt: skip

_GUEST = (
    Key(name="environment.*", type="string", live=True, help="Environment of PID 1 and of `exec`."),
    Key(name="user.*", type="string", live=True, help="Free for the user; searchable."),
    Key(name="image.*", type="string", help="Properties of the image that the instance was made from."),
    Key(name="linux.kernel_modules", type="list", check=v.list_of(v.kernel_module), live=True,
        help="Kernel modules to load before the instance starts, with commas."),
    Key(name="linux.sysctl.*", type="string", help="A sysctl of the instance's own namespaces."),
    Key(name="cloud-init.network-config", type="string", unset="DHCP on eth0",
        help="Network configuration for cloud-init."),
    Key(name="cloud-init.user-data", type="string", default=_DEFAULT_CLOUD_CONFIG,
        help="User data for cloud-init."),
    Key(name="cloud-init.vendor-data", type="string", default=_DEFAULT_CLOUD_CONFIG,
        help="Vendor data for cloud-init."),
)  # fmt: skip

_LIMITS = (
    Key(name="limits.cpu", type="cpus", check=v.cpuset, live=True,
        help="Number of CPUs, or the set to be pinned to (0-3,6; 1-1 for CPU 1 alone)."),
    Key(name="limits.cpu.allowance", type="share", check=v.cpu_allowance, default="100%", live=True,
        help="Share of CPU time under load (50%), or a hard limit (25ms/100ms)."),
    Key(name="limits.cpu.priority", type="integer", check=v.integer(0, 10), default="10", live=True,
        help="Priority of CPU time against instances with the same limits, 0 to 10."),
    Key(name="limits.disk.priority", type="integer", check=v.integer(0, 10), default="5", live=True,
        help="Priority of disk I/O under load, 0 to 10."),
    Key(name="limits.hugepages.64KB", type="size", check=v.size, live=True,
        help="Limit of 64 KB huge pages."),
    Key(name="limits.hugepages.1MB", type="size", check=v.size, live=True,
        help="Limit of 1 MB huge pages."),
    Key(name="limits.hugepages.2MB", type="size", check=v.size, live=True,
        help="Limit of 2 MB huge pages."),
    Key(name="limits.hugepages.1GB", type="size", check=v.size, live=True,
        help="Limit of 1 GB huge pages."),
    *(
        Key(name=f"limits.kernel.{name}", type="rlimit", check=v.rlimit, help=f"{what}, as soft or soft:hard.")
        for name, what in (
            ("as", "Bytes of address space of a process"), ("core", "Bytes of a core dump"),
            ("cpu", "Seconds of CPU time of a process"), ("data", "Bytes of data of a process"),
            ("fsize", "Bytes of a file that a process writes"), ("locks", "File locks of a process"),
            ("memlock", "Bytes of locked memory"), ("msgqueue", "Bytes of message queues"),
            ("nice", "Ceiling of the nice value, as 20 minus it"), ("nofile", "Open files of a process"),
            ("nproc", "Processes of a user"), ("rss", "Bytes of resident memory"),
            ("rtprio", "Ceiling of real-time priority"), ("rttime", "Microseconds of real-time CPU time"),
            ("sigpending", "Queued signals of a user"), ("stack", "Bytes of the stack of a process"),
        )
    ),
    Key(name="limits.memory", type="size or share", check=v.size_or_percent, live=True,
        help="Memory, in bytes with a unit or as a share of the host's."),
    Key(name="limits.memory.enforce", type="string", check=v.one_of("hard", "soft"), default="hard", live=True,
        help="hard: the limit holds always; soft: only when the host runs short of memory."),
    Key(name="limits.memory.hugepages", type="bool", check=v.boolean, refused=True, default="false",
        condition="virtual machines", help="Back a virtual machine's memory with huge pages."),
    Key(name="limits.memory.swap", type="bool", check=v.boolean, default="true", live=True,
        help="Whether the instance's memory may be swapped."),
    Key(name="limits.memory.swap.priority", type="integer", check=v.integer(0, 10), default="10", live=True,
        help="How little the instance is swapped, 0 to 10."),
    Key(name="limits.network.priority", type="integer", check=v.integer(0, 10), refused=True, default="0",
        help="Priority of the instance's network traffic under load, 0 to 10."),
    Key(name="limits.processes", type="integer", check=v.integer(1), live=True,
        help="Number of processes and threads."),
)  # fmt: skip

_SECURITY = (
    Key(name="security.devlxd", type="bool", check=v.boolean, live=True, default="true",
        help="Whether the instance may ask the guest API at /dev/lxd/sock."),
    Key(name="security.devlxd.images", type="bool", check=v.boolean, live=True, default="false",
        help="Whether the instance may fetch public and cached images through the guest API."),
    Key(name="security.idmap.base", type="integer", check=v.integer(0, (1 << 32) - 1),
        help="First id of the host for an isolated instance; unset: chosen."),
    Key(name="security.idmap.isolated", type="bool", check=v.boolean, default="false",
        help="Give the instance a range of ids that no other instance has."),
    Key(name="security.idmap.size", type="integer", check=v.integer(1, 1 << 32),
        help="Number of ids of an isolated instance; unset: 65536."),
    Key(name="security.nesting", type="bool", check=v.boolean, default="false",
        help="Let containers run inside of the instance."),
    Key(name="security.privileged", type="bool", check=v.boolean, default="false",
        help="Run without a user namespace: root inside is root of the host."),
    Key(name="security.protection.delete", type="bool", check=v.boolean, default="false", live=True,
        help="Refuse to delete the instance."),
    Key(name="security.protection.shift", type="bool", check=v.boolean, default="false", live=True,
        help="Refuse to change the owners of the instance's files on disk: always so, pylxc shifts none there."),
    Key(name="security.agent.metrics", type="bool", check=v.boolean, refused=True, default="true",
        condition="virtual machines", help="Ask a virtual machine's agent for metrics."),
    Key(name="security.secureboot", type="bool", check=v.boolean, refused=True, default="true",
        condition="virtual machines", help="Secure boot of a virtual machine."),
    Key(name="security.syscalls.allow", type="list", check=v.syscall_list,
        help="The only system calls that are allowed, one a line."),
    Key(name="security.syscalls.deny", type="list", check=v.syscall_list,
        help="System calls that are denied, one a line, each with an optional action such as `errno 1`."),
    Key(name="security.syscalls.deny_compat", type="bool", check=v.boolean, default="false",
        help="Have no system calls of foreign and 32-bit ABIs (ENOSYS)."),
    Key(name="security.syscalls.deny_default", type="bool", check=v.boolean, default="true",
        help="Deny kexec_load, open_by_handle_at, init_module, finit_module and delete_module."),
    *(
        Key(name=f"security.syscalls.intercept.{call}", type="bool", check=v.boolean, refused=True, default="false",
            help=f"Handle {what} on behalf of the instance.")
        for call, what in (
            ("bpf", "bpf"), ("bpf.devices", "bpf for device cgroups"), ("mknod", "mknod and mknodat"),
            ("mount", "mount"), ("sched_setscheduler", "sched_setscheduler"), ("setxattr", "setxattr"),
        )
    ),
    Key(name="security.syscalls.intercept.mount.allowed", type="list", refused=True, live=True,
        help="File systems that an intercepted mount may mount, with commas."),
    Key(name="security.syscalls.intercept.mount.fuse", type="list", refused=True, live=True,
        help="File systems that an intercepted mount hands to a FUSE program (ext4=fuse2fs)."),
    Key(name="security.syscalls.intercept.mount.shift", type="bool", check=v.boolean, refused=True, default="false",
        live=True, help="Shift the ids of an intercepted mount."),
    # The names of LXD 4.0, which are still accepted.
    Key(name="security.syscalls.blacklist", type="list", check=v.syscall_list, help="Old name of `….deny`."),
    Key(name="security.syscalls.blacklist_compat", type="bool", check=v.boolean, default="false",
        help="Old name of `….deny_compat`."),
    Key(name="security.syscalls.blacklist_default", type="bool", check=v.boolean, default="true",
        help="Old name of `….deny_default`."),
    Key(name="security.syscalls.whitelist", type="list", check=v.syscall_list, help="Old name of `….allow`."),
)  # fmt: skip

_SNAPSHOTS = (
    Key(name="snapshots.schedule", type="schedule", check=v.schedule, live=True,
        help="When to take snapshots: cron fields, or @hourly, @daily, ... with commas."),
    Key(name="snapshots.schedule.stopped", type="bool", check=v.boolean, default="false", live=True,
        help="Whether a stopped instance is snapshotted on schedule too."),
    Key(name="snapshots.pattern", type="template", default="snap%d", live=True,
        help="Name of snapshots that were given none."),
    Key(name="snapshots.expiry", type="expiry", check=v.expiry, live=True,
        help="When snapshots expire, such as `1M 2H 3d 4w 5m 6y`."),
)  # fmt: skip

_RAW = (
    Key(name="raw.apparmor", type="blob", live=True, condition="hosts with AppArmor",
        help="Rules added to the AppArmor profile."),
    Key(name="raw.idmap", type="list", check=v.raw_idmap,
        help="Ids of the host to be seen inside: lines of `both|uid|gid HOST CONTAINER`."),
    Key(name="raw.lxc", type="blob", help="Configuration of liblxc; keys without an equal here are refused."),
    Key(name="raw.qemu", type="blob", refused=True, condition="virtual machines", help="Arguments of QEMU."),
    Key(name="raw.qemu.conf", type="blob", refused=True, condition="virtual machines", help="Configuration of QEMU."),
    Key(name="raw.seccomp", type="blob", help="A whole seccomp policy in liblxc's format, in place of the lists."),
)  # fmt: skip

_OTHER = (
    Key(name="migration.incremental.memory", type="bool", check=v.boolean, refused=True, default="false",
        help="Send memory in rounds when migrating live."),
    Key(name="migration.incremental.memory.goal", type="integer", check=v.integer(0), refused=True, default="70",
        live=True, help="Share of memory in sync before the instance is stopped, in percent."),
    Key(name="migration.incremental.memory.iterations", type="integer", check=v.integer(0), refused=True, default="10",
        live=True, help="Most rounds of sending memory."),
    Key(name="migration.stateful", type="bool", check=v.boolean, refused=True, default="false",
        condition="virtual machines", help="Let a virtual machine be stopped and snapshotted with its memory."),
    Key(name="nvidia.driver.capabilities", type="list", refused=True, default="compute,utility",
        help="What of the NVIDIA driver the instance needs."),
    Key(name="nvidia.runtime", type="bool", check=v.boolean, refused=True, default="false",
        help="Hand the host's NVIDIA libraries to the instance."),
    Key(name="nvidia.require.cuda", type="string", refused=True, help="The CUDA version that is needed."),
    Key(name="nvidia.require.driver", type="string", refused=True, help="The driver version that is needed."),
    Key(name="agent.nic_config", type="bool", check=v.boolean, refused=True, default="false",
        condition="virtual machines", help="Let the agent set the names and MTU of NICs."),
)  # fmt: skip

VOLATILE_PREFIX = "volatile."

_VOLATILE = (
    Key(name="volatile.apply_nvram", type="bool", acts=False, help="Make a virtual machine's NVRAM anew."),
    Key(name="volatile.apply_quota", type="string", acts=False, help="Disk quota to be set at the next start."),
    Key(name="volatile.apply_template", type="string", help="Templates due at the next start: create, copy or rename."),
    Key(name="volatile.base_image", type="string", help="Fingerprint of the image that the instance was made from."),
    Key(name="volatile.cloud-init.instance-id", type="string", help="Instance id that cloud-init sees."),
    Key(name="volatile.evacuate.origin", type="string", acts=False, help="Cluster member that it was moved from."),
    Key(name="volatile.idmap.base", type="integer", check=v.integer(0, (1 << 32) - 1),
        help="First host id of the instance's isolated range."),
    Key(name="volatile.idmap.current", type="json", check=v.id_map, help="Id map in use."),
    Key(name="volatile.idmap.next", type="json", check=v.id_map, help="Id map of the next start."),
    Key(name="volatile.last_state.idmap", type="json", check=v.id_map,
        help="Id map that the files on disk were shifted to."),
    Key(name="volatile.last_state.power", type="string", help="RUNNING or STOPPED when last seen."),
    Key(name="volatile.uuid", type="string", help="The instance's own id on this server."),
    Key(name="volatile.uuid.generation", type="string", acts=False, help="Changes when its state goes back in time."),
    Key(name="volatile.vsock_id", type="integer", acts=False, help="Address of a virtual machine's agent."),
    *(
        Key(name=f"volatile.*.{name}", type="string", check=check, help=f"Of a device: {what}.")
        for name, check, what in (
            ("apply_quota", v.anything, "quota to be set at the next start"),
            ("ceph_rbd", v.anything, "its RBD device"),
            ("host_name", v.interface_name, "name of a NIC's end on the host"),
            ("last_state.created", v.boolean, "whether its interface was made for it"),
            ("last_state.hwaddr", v.anything, "MAC address of its interface before"),
            ("last_state.index", v.integer(0), "index of its interface before"),
            ("last_state.mtu", v.integer(0), "MTU of its interface before"),
            ("last_state.vf.*", v.anything, "a virtual function's settings before"),
            ("hwaddr", v.mac, "MAC address of a NIC that is given none"),
            ("name", v.interface_name, "name of a NIC inside"),
            ("uuid", v.anything, "its id"),
        )
    ),
)  # fmt: skip

INSTANCE = Table(
    "instance",
    "Instances and profiles",
    (*_BOOT, *_GUEST, *_LIMITS, *_SECURITY, *_SNAPSHOTS, *_RAW, *_OTHER, *_VOLATILE),
)

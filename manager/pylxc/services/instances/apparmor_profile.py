"""The text of an instance's AppArmor profile.

A profile lets an instance do what it may do to itself: its own namespaces hold it already. It denies what reaches the
host should one of them fail, or where there is none (a privileged instance): the kernel's switches in /proc and /sys,
and mounts that would show these under another path. What is not denied is allowed, and a denial stands against every
rule that allows, those of `raw.apparmor` included.

See: apparmor.d(5)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from pylxc.config.instance import INSTANCE

_BASE = """\
  capability,
  dbus,
  file,
  mount,
  network,
  pivot_root,
  remount,
  umount,
  unix,

  # The host signals and looks into the instance, the instance only itself.
  signal (receive),
  ptrace (readby, tracedby),
"""
_OWN = """\
  signal (send) peer="{name}",
  signal (send) peer="{name}//*",
  ptrace (read, trace) peer="{name}",
  ptrace (read, trace) peer="{name}//*",
"""

_SECRET = (
    "/proc/kcore", "/proc/kmem", "/proc/mem", "/proc/sysrq-trigger", "/sys/firmware/efi/efivars/**",
    "/sys/kernel/debug/**", "/sys/kernel/security/**", "/sys/kernel/tracing/**",
)  # fmt: skip
"""What is neither read nor written."""

_KEPT = ("/proc/acpi/**", "/proc/scsi/**", "/proc/sys/fs/binfmt_misc/**")
"""What is not written, beside all of /proc/sys and /sys that is not the instance's own."""

_OWN_SYSCTLS = (
    "fs/mqueue", "kernel/auto_msgmni", "kernel/domainname", "kernel/hostname", "kernel/msg*", "kernel/ns_last_pid",
    "kernel/pid_max", "kernel/sem*", "kernel/shm*", "net", "user",
)  # fmt: skip
_OWN_SYS = ("class/net", "devices/virtual/net", "fs/cgroup")
RAW = "  # raw.apparmor"
"""The line before those of `raw.apparmor`."""

_KERNEL_FILE_SYSTEMS = ("configfs", "debugfs", "efivarfs", "pstore", "securityfs", "tracefs")


def text(name: str, config: Mapping[str, str], classes: Collection[str] = ()) -> str:
    """Return the profile `name` of an instance.

    Args:
        name: of the profile.
        config: the instance's expanded configuration.
        classes: further rules without conditions that parser and kernel know, such as `userns`.
    """
    nesting = INSTANCE.is_true(config, "security.nesting")
    privileged = INSTANCE.is_true(config, "security.privileged")
    lines = [_BASE.rstrip("\n"), *(f"  {word}," for word in sorted(classes))]
    lines += ["  signal,", "  ptrace,"] if nesting else [_OWN.format(name=name).rstrip("\n")]
    lines += ["", "  # The host's kernel."]
    lines += [f"  deny {path} rwklx," for path in _SECRET]
    lines += [f"  deny {path} wklx," for path in _KEPT]
    lines += [f"  deny {path}{{,/**}} wklx," for path in all_but("/proc/sys/", _OWN_SYSCTLS)]
    lines += [f"  deny {path}{{,/**}} wklx," for path in all_but("/sys/", _OWN_SYS)]
    lines += [f"  deny mount fstype={kind}," for kind in _KERNEL_FILE_SYSTEMS]
    lines += ["", *(_nesting() if nesting else _without_nesting(privileged=privileged))]
    if raw := config.get("raw.apparmor", "").strip():
        lines += ["", RAW, *(f"  {line}" for line in raw.splitlines())]
    return "\n".join([f'profile "{name}" flags=(attach_disconnected,mediate_deleted) {{', *lines, "}", ""])


def _nesting() -> Iterator[str]:
    yield "  # Whole file systems that are there to be seen by the kernel only."
    yield "  deny /dev/.lxc/proc/** rw,"
    yield "  deny /dev/.lxc/sys/** rw,"


def _without_nesting(*, privileged: bool) -> Iterator[str]:
    yield "  # Nothing is mounted over what is denied."
    yield "  deny mount -> /proc/{,**},"
    yield from (f"  deny mount -> {path}{{,/**}}," for path in all_but("/sys/", ("fs/cgroup",)))
    if privileged:
        yield "  # Nor is it shown elsewhere: its root is the host's."
        for kind, root in (("proc", "/proc"), ("sysfs", "/sys")):
            yield f"  deny mount fstype={kind},"
            yield f"  deny mount {root}/{{,**}} -> /**,"


def all_but(directory: str, kept: Sequence[str]) -> Iterator[str]:
    """Yield patterns of all that is directly or deeper in a directory, but for some of it.

    Args:
        directory: with a slash at its end.
        kept: paths below it; a last name may end in a star. What is deeper in them is kept as well.
    """
    below: dict[str, list[str]] = {}
    for path in kept:
        name, _, rest = path.partition("/")
        below.setdefault(name, []).extend([rest] if rest else [])
    names = {name.rstrip("*") for name in below}
    open_ends = tuple(name.rstrip("*") for name in below if name.endswith("*"))
    # All beginnings of names: each may go on as a name does; what goes on otherwise, or ends there, is not kept.
    for start in sorted({name[:length] for name in names for length in range(len(name) + 1)}):
        if start.startswith(open_ends or ("\0",)):
            continue
        if start and start not in names:
            yield f"{directory}{start}"
        following = "".join(sorted({name[len(start)] for name in names if name.startswith(start) and name != start}))
        yield f"{directory}{start}[^{following}]*" if following else f"{directory}{start}?*"
    for name, deeper in sorted(below.items()):
        if deeper:
            yield from all_but(f"{directory}{name}/", deeper)

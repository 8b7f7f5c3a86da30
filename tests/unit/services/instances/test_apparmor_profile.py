from __future__ import annotations

import re

import pytest

from pylxc.services.instances.apparmor import _by_line_of_raw
from pylxc.services.instances.apparmor_profile import all_but, text


def denied(profile: str, path: str) -> bool:
    """Return whether a rule without conditions on mounts denies writing to a path."""
    globs = re.findall(r"^ +deny (/\S+) \w+,$", profile, re.MULTILINE)
    return any(re.fullmatch(_expression(glob), path) for glob in globs)


def _expression(glob: str) -> str:
    pattern = glob.replace("{,/**}", "\0").replace("/**", "\1")
    pattern = pattern.replace("?", "[^/]").replace("*", "[^/]*").replace("[^", "[^/")
    return pattern.replace("[^//]", "[^/]").replace("\0", "(/.+)?").replace("\1", "/.+").replace(".", r"\.", 0)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/proc/sys/kernel/core_pattern", True),
        ("/proc/sys/kernel/modprobe", True),
        ("/proc/sys/kernel", False),  # a directory
        ("/proc/sys/kernel/host", True),
        ("/proc/sys/kernel/hostname", False),
        ("/proc/sys/kernel/hostname2", True),
        ("/proc/sys/kernel/shm_rmid_forced", False),
        ("/proc/sys/kernel/sem", False),
        ("/proc/sys/kernel/se", True),
        ("/proc/sys/net/ipv4/ip_forward", False),
        ("/proc/sys/network", True),
        ("/proc/sys/fs/mqueue/queues_max", False),
        ("/proc/sys/fs/suid_dumpable", True),
        ("/proc/sys/vm/panic_on_oom", True),
        ("/proc/sysrq-trigger", True),
        ("/proc/self/attr/current", False),
        ("/sys/fs/cgroup/memory.max", False),
        ("/sys/devices/virtual/net/eth0/mtu", False),
        ("/sys/devices/virtual/block", True),
        ("/sys/kernel/uevent_helper", True),
        ("/sys/power/state", True),
        ("/etc/passwd", False),
    ],
)
def test_what_may_not_be_written(path: str, expected: bool) -> None:
    for config in ({}, {"security.nesting": "true"}, {"security.privileged": "true"}):
        assert denied(text("p", config), path) is expected


def test_patterns_go_by_whole_names() -> None:
    assert list(all_but("/d/", ["ab", "ac*"])) == ["/d/[^a]*", "/d/a", "/d/a[^bc]*", "/d/ab?*"]
    assert list(all_but("/d/", ["x/y"])) == ["/d/[^x]*", "/d/x?*", "/d/x/[^y]*", "/d/x/y?*"]


def test_variants() -> None:
    plain, nesting = text("p", {}), text("p", {"security.nesting": "true"})
    privileged = text("p", {"security.privileged": "true"})
    assert "deny mount -> /proc/{,**}," in plain
    assert "deny mount -> /proc" not in nesting
    assert "deny /dev/.lxc/proc/** rw," in nesting
    assert "deny mount fstype=proc," in privileged
    assert "deny mount fstype=proc," not in plain
    own = text("p", {"raw.apparmor": "deny /x w,\ndeny /y w,"}, ["userns"])
    assert "  deny /x w,\n  deny /y w,\n}\n" in own
    assert "  userns,\n" in own
    assert own.startswith('profile "p" flags=')


def test_the_parser_is_quoted_by_the_line_of_the_raw_rules() -> None:
    profile = text("p", {"raw.apparmor": "deny /x w,\nnonsense"})
    last = profile.count("\n")
    for line, number in ((last - 2, 1), (last - 1, 2), (last, 2)):
        said = _by_line_of_raw(f"AppArmor parser error for /x in profile /x at line {line}: syntax error", profile)
        assert said == f"raw.apparmor line {number}: AppArmor's parser says: syntax error"
    assert _by_line_of_raw("at line 3: syntax error", profile) == "at line 3: syntax error"

from __future__ import annotations

import pytest

from pylxc.errors import NotSupported, PylxcError
from pylxc.runtime.spec import Mount
from pylxc.services.instances import checks, raw_lxc

TEXT = r"""
# A comment.
lxc.environment = COLOUR=dark red
lxc.sysctl.net.ipv4.ip_forward = 1
lxc.prlimit.nofile = 100:200
lxc.cap.drop = mknod NET_RAW
lxc.init.cmd = /sbin/init "single user"
lxc.apparmor.profile = unconfined
lxc.mount.entry = /srv/my\040files mnt/files none rbind,ro,create=dir,optional 0 0
lxc.mount.entry=tmpfs /scratch tmpfs size=1M,nosuid
"""


def test_what_has_an_equal() -> None:
    raw = raw_lxc.of({"raw.lxc": TEXT})
    assert raw.config == {
        "environment.COLOUR": "dark red",
        "linux.sysctl.net.ipv4.ip_forward": "1",
        "limits.kernel.nofile": "100:200",
    }
    assert raw.drop_capabilities == ["mknod", "net_raw"]
    assert raw.init == ("/sbin/init", "single user")
    assert raw.unconfined
    files, scratch = raw.mounts
    options = ("rbind", "ro")
    assert files == Mount(source="/srv/my files", target="/mnt/files", options=options, create="dir", optional=True)
    assert scratch == Mount(source="tmpfs", target="/scratch", fstype="tmpfs", options=("size=1M", "nosuid"))
    assert raw_lxc.of({"raw.lxc": "lxc.cap.keep = chown"}).drop_capabilities[0] == "dac_override"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("lxc.idmap = u 0 1000 1", "line 2: the key lxc.idmap has no equal in pylxc.*use raw.idmap"),
        ("lxc.apparmor.profile = mine", "lxc.apparmor.profile has no equal.*use raw.apparmor"),
        ("lxc.cgroup2.memory.max = 1", "lxc.cgroup2.memory.max has no equal.*use limits"),
        ("lxc.aa_profile = unconfined", "lxc.aa_profile has no equal"),
        ("nonsense", "line 2: 'KEY = VALUE' is needed"),
        ("lxc.cap.drop =", "'KEY = VALUE' is needed"),
        ("lxc.cap.drop = fly", "unknown capability 'fly'"),
        ("lxc.prlimit.nofiles = 1", "limits.kernel.nofile"),
        ("lxc.prlimit.nofile = many", "limits.kernel.nofile"),
        ("lxc.environment = x", "NAME=VALUE"),
        ("lxc.init.cmd = init", "an absolute path is needed"),
        ("lxc.init.cmd = /x '", "lxc.init.cmd: No closing quotation"),
        ("lxc.mount.entry = /srv mnt", "SOURCE TARGET TYPE OPTIONS"),
        ("lxc.mount.entry = srv mnt none bind", "an absolute path of the host"),
        ("lxc.mount.entry = /srv mnt none bind,fast", "unknown option 'fast'"),
        ("lxc.mount.entry = /srv mnt none bind,create=link", "create=dir or create=file"),
    ],
)
def test_what_is_refused(line: str, text: str) -> None:
    with pytest.raises(PylxcError) as caught:
        checks.config({"raw.lxc": f"lxc.cap.drop = mknod\n{line}"})
    message = str(caught.value)
    assert caught.match(text), message
    assert "\n" not in message
    assert isinstance(caught.value, NotSupported) == ("no equal" in message)

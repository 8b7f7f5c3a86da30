from __future__ import annotations

import pytest

from pylxc.errors import PylxcError
from pylxc.runtime.spec import Comparison, SyscallRule
from pylxc.services.instances.syscalls import foreign_abis, parse, policy

DENIED = {"kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}


def actions(config: dict[str, str]) -> tuple[str, dict[str, str]]:
    default, rules = policy(config)
    return default, {rule.name: rule.action for rule in rules}


def test_default_deny_list() -> None:
    assert actions({}) == ("allow", dict.fromkeys(DENIED, "errno:38"))
    assert actions({"security.syscalls.deny_default": "false"}) == ("allow", {})


def test_deny_adds_and_overrides() -> None:
    _default, found = actions({"security.syscalls.deny": "keyctl errno 1\n\nptrace\ninit_module allow"})
    expected = {"keyctl": "errno:1", "ptrace": "kill", "init_module": "allow"}
    assert found == {**dict.fromkeys(DENIED, "errno:38"), **expected}


def test_allow_is_everything() -> None:
    assert actions({"security.syscalls.allow": "read\nwrite"}) == ("kill", {"read": "allow", "write": "allow"})


def test_old_names_still_work() -> None:
    old = {"security.syscalls.blacklist": "keyctl", "security.syscalls.blacklist_default": "no"}
    assert actions(old) == ("allow", {"keyctl": "kill"})
    assert not foreign_abis({"security.syscalls.blacklist_compat": "true"})
    assert not foreign_abis({"security.syscalls.deny_compat": "true"})
    assert foreign_abis({})


DENYLIST = """2
denylist errno 1   # what a rule without an action does
reject_force_umount
[all]
kexec_load errno 38

swapon
mknod errno 22 [1,0x2000,SCMP_CMP_MASKED_EQ,0xf000] [2,7,SCMP_CMP_GE]
"""


def test_policy_of_liblxc() -> None:
    default, rules = policy({"raw.seccomp": DENYLIST, "security.syscalls.deny": "reboot"})
    assert default == "allow"
    assert rules == (
        SyscallRule("umount2", "errno:13", (Comparison(1, "&=", 1, 1),)),
        SyscallRule("kexec_load", "errno:38"),
        SyscallRule("swapon", "errno:1"),
        SyscallRule("mknod", "errno:22", (Comparison(1, "&=", 0x2000, 0xF000), Comparison(2, ">=", 7))),
    )
    assert parse("2\nwhitelist\nread\nwrite") == ("kill", (SyscallRule("read", "allow"), SyscallRule("write", "allow")))
    assert parse("2\nallowlist trap\nread")[0] == "trap"


@pytest.mark.parametrize(
    ("text", "text_of_error"),
    [
        ("1\nwhitelist\n3", "line 1: a policy of version 2"),
        ("# nothing", "line 1: a policy of version 2"),
        ("2", "line 2: allowlist or denylist"),
        ("2\nsomelist", "line 2: allowlist or denylist"),
        ("2\ndenylist explode", "line 2: Unknown seccomp action 'explode'"),
        ("2\ndenylist\nmknod notify", "line 3: Unknown seccomp action 'notify'"),
        ("2\ndenylist\nmknod errno 5000", "line 3: Unknown seccomp action"),
        ("2\ndenylist\n\n[x86]\nread", r"line 4: .*\[x86\] cannot be"),
        ("2\ndenylist\nread kill [9,1,SCMP_CMP_EQ]", "line 3: a condition is"),
        ("2\ndenylist\nread kill [0,1,SCMP_CMP_IS]", "line 3: a condition is"),
        ("2\ndenylist\nread kill [0,one,SCMP_CMP_EQ]", "line 3: 'one' is no number"),
        ("2\ndenylist\nread kill [0,0x10000000000000000,SCMP_CMP_EQ]", "line 3: .* more than 64 bits"),
        ("2\ndenylist\nread kill [0,1,SCMP_CMP_MASKED_EQ]", "line 3: a mask goes with"),
        ("2\ndenylist\nread-write!", "line 3: 'CALL "),
    ],
)
def test_policies_that_are_refused(text: str, text_of_error: str) -> None:
    with pytest.raises(PylxcError, match=text_of_error):
        parse(text)

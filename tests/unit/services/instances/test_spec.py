from __future__ import annotations

import pytest

from pylxc.errors import BadRequest
from pylxc.services.instances import checks
from pylxc.services.instances.spec import confinement, seccomp

DENIED = {"kexec_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}


def test_default_deny_list() -> None:
    default, rules = seccomp({})
    assert default == "allow"
    assert dict(rules) == dict.fromkeys(DENIED, "errno:38")
    assert seccomp({"security.syscalls.deny_default": "false"}) == ("allow", ())


def test_deny_adds_and_overrides() -> None:
    _default, rules = seccomp({"security.syscalls.deny": "keyctl errno 1\n\nptrace\ninit_module allow"})
    assert dict(rules) == {
        **dict.fromkeys(DENIED, "errno:38"),
        "keyctl": "errno:1",
        "ptrace": "kill",
        "init_module": "allow",
    }


def test_allow_is_everything() -> None:
    assert seccomp({"security.syscalls.allow": "read\nwrite"}) == ("kill", (("read", "allow"), ("write", "allow")))


def test_old_names_still_work() -> None:
    _default, rules = seccomp({"security.syscalls.blacklist": "keyctl", "security.syscalls.blacklist_default": "no"})
    assert rules == (("keyctl", "kill"),)


def test_privileged_drops_capabilities() -> None:
    assert confinement({}).drop_capabilities == ()
    assert {"sys_module", "sys_rawio", "sys_time"} <= set(
        confinement({"security.privileged": "true"}).drop_capabilities
    )


@pytest.mark.parametrize(
    "config",
    [
        {"security.syscalls.deny": "keyctl explode"},
        {"security.syscalls.allow": "read", "security.syscalls.deny": "write"},
        {"no.such.key": "1"},
    ],
)
def test_refuses_configurations(config: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        checks.config(config)


@pytest.mark.parametrize("key", ["volatile.uuid", "volatile.eth0.hwaddr", "image.os"])
def test_profiles_hold_nothing_of_one_instance(key: str) -> None:
    checks.config({key: "x"})
    with pytest.raises(BadRequest, match="profile"):
        checks.config({key: "x"}, in_profile=True)


@pytest.mark.parametrize(
    ("given", "name"),
    [("x86_64", "x86_64"), ("amd64", "x86_64"), ("2", "x86_64"), ("", None), ("0", None), (None, None)],
)
def test_architectures(given: str | None, name: str | None) -> None:
    assert checks.architecture(given) == name
    with pytest.raises(BadRequest):
        checks.architecture("pdp11")

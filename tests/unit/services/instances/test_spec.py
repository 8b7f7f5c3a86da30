from __future__ import annotations

import pytest

from pylxc.errors import BadRequest
from pylxc.services.instances import checks
from pylxc.services.instances.raw_lxc import RawLxc
from pylxc.services.instances.spec import confinement


def test_privileged_drops_capabilities() -> None:
    assert confinement({}, RawLxc(), "").drop_capabilities == ()
    privileged = confinement({"security.privileged": "true"}, RawLxc(drop_capabilities=["mknod"]), "")
    assert {"sys_module", "sys_rawio", "sys_time", "mknod"} <= set(privileged.drop_capabilities)


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
    value = "00:16:3e:00:00:01"
    checks.config({key: value})
    with pytest.raises(BadRequest, match="profile"):
        checks.config({key: value}, in_profile=True)


@pytest.mark.parametrize(
    ("given", "name"),
    [("x86_64", "x86_64"), ("amd64", "x86_64"), ("2", "x86_64"), ("", None), ("0", None), (None, None)],
)
def test_architectures(given: str | None, name: str | None) -> None:
    assert checks.architecture(given) == name
    with pytest.raises(BadRequest):
        checks.architecture("pdp11")

from __future__ import annotations

import pytest

from pylxc import validate
from pylxc.errors import BadRequest


@pytest.mark.parametrize("name", ["a", "c1", "web-01", "A" * 63])
def test_accepts_instance_names(name: str) -> None:
    validate.instance_name(name)


@pytest.mark.parametrize(
    "name", ["", "1c", "-c", "c-", "c_1", "c.1", "c/1", "c 1", "ü", "A" * 64, "c1\n", "..", "c1\0"]
)
def test_refuses_instance_names(name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid instance name"):
        validate.instance_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", "a\0", "a\nb", "x" * 256])
def test_refuses_object_names_that_paths_cannot_hold(name: str) -> None:
    with pytest.raises(BadRequest):
        validate.object_name(name, "profile")


@pytest.mark.parametrize("name", ["p_1", "p 1", "*", "p'"])
def test_refuses_project_names_that_would_mix_with_instance_names(name: str) -> None:
    with pytest.raises(BadRequest):
        validate.project_name(name)


@pytest.mark.parametrize("name", ["x", "a" * 16, "a/b", "-ab", ".."])
def test_refuses_interface_names(name: str) -> None:
    with pytest.raises(BadRequest):
        validate.interface_name(name)


def test_booleans() -> None:
    for word in ("true", "1", "yes", "ON"):
        validate.boolean(word)
        assert validate.is_true(word)
    for word in ("false", "0", "no", "off"):
        validate.boolean(word)
        assert validate.is_false(word)
    assert not validate.is_true(None)
    with pytest.raises(BadRequest):
        validate.boolean("2")


@pytest.mark.parametrize("value", ["", "1.5", "1e3", "٣", "1" * 30, " 1"])
def test_refuses_integers(value: str) -> None:
    with pytest.raises(BadRequest):
        validate.integer()(value)


def test_integer_bounds() -> None:
    validate.integer(0, 10)("10")
    for value in ("-1", "11"):
        with pytest.raises(BadRequest):
            validate.integer(0, 10)(value)

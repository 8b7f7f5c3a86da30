from __future__ import annotations

import pytest

from pylxc.errors import BadRequest
from pylxc.wire.check import check
from pylxc.wire.instances import InstanceExecPost, InstancesPost, InstanceStatePut
from pylxc.wire.server import InitPost


def test_a_whole_answer_sent_back_is_taken_without_what_is_not_wanted() -> None:
    body = {"name": "c1", "status": "Running", "created_at": 7, "config": {"volatile.uuid": "x"}, "profiles": None}
    assert check(body, InstancesPost) == {"name": "c1", "config": {"volatile.uuid": "x"}, "profiles": None}


def test_null_is_as_good_as_absent() -> None:
    assert check({"config": None, "source": {"live": None, "type": "none"}}, InstancesPost) == {
        "source": {"type": "none"}
    }


def test_keys_with_dashes_and_nested_types() -> None:
    body = {"command": ["ls"], "wait-for-websocket": True, "environment": {"A": "b"}}
    assert check(body, InstanceExecPost) == body
    assert check({"preseed": {"networks": [{"name": "n", "x": 1}]}}, InitPost) == {
        "preseed": {"networks": [{"name": "n"}]}
    }


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], "the body"),
        ({"name": 5}, "'name'"),
        ({"ephemeral": "true"}, "'ephemeral'"),
        ({"ephemeral": 1}, "'ephemeral'"),
        ({"config": {"limits.cpu": 2}}, "'config.limits.cpu'"),
        ({"devices": {"root": {"size": 3}}}, "'devices.root.size'"),
        ({"profiles": ["a", 3]}, "'profiles[1]'"),
        ({"source": "none"}, "'source'"),
    ],
)
def test_a_wrong_type_is_named(body: object, named: str) -> None:
    with pytest.raises(BadRequest, match=named.replace("[", r"\[")):
        check(body, InstancesPost)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "a\0b"}, "'name'"),
        ({"name": "a\ud800"}, "'name'"),
        ({"config": {"user.\udfff": "x"}}, "'config'"),
        ({"config": {"a\0": "x"}}, "'config'"),
        ({"profiles": ["\ud83d"]}, "'profiles[0]'"),
    ],
)
def test_text_that_is_none(body: object, named: str) -> None:
    with pytest.raises(BadRequest, match=named.replace("[", r"\[")) as error:
        check(body, InstancesPost)
    str(error.value).encode()
    assert check({"name": "\U0001f4a9"}, InstancesPost) == {"name": "\U0001f4a9"}


@pytest.mark.parametrize("timeout", [10**30, True, 1.5, "30"])
def test_numbers(timeout: object) -> None:
    with pytest.raises(BadRequest, match="timeout"):
        check({"timeout": timeout}, InstanceStatePut)

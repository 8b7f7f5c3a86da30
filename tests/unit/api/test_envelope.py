from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from aiohttp import web

from pylxc.api.responses import Sync, render
from tests.unit.api.conftest import Api

KEYS = {"type", "status", "status_code", "operation", "error_code", "error", "metadata"}


def test_sync_answers_have_all_seven_keys(api: Api) -> None:
    answer = api.request("GET", "/")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json == {
        "type": "sync",
        "status": "Success",
        "status_code": 200,
        "operation": "",
        "error_code": 0,
        "error": "",
        "metadata": ["/1.0"],
    }


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/1.0/nothing-here", 404),
        ("GET", "/1.0/", 404),
        ("GET", "/2.0", 404),
        ("GET", "/1.0/operations/00000000-0000-0000-0000-000000000000", 404),
        ("DELETE", "/1.0", 501),
        ("OPTIONS", "/1.0", 501),
        ("TRACE", "/1.0", 501),
        ("GET", "/1.0/operations/%ff", 400),
        ("GET", "/1.0/operations/a%00b", 400),
        ("GET", "/1.0/operations?recursion=x", 400),
        ("GET", "/1.0/operations?project=p&all-projects=true", 400),
        ("GET", "/1.0/events", 400),
        ("GET", "/1.0/operations?target=other", 400),
    ],
)
def test_errors_are_envelopes(api: Api, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    body = answer.json
    assert answer.status == status
    assert set(body) == KEYS
    assert (body["type"], body["error_code"], body["metadata"]) == ("error", status, None)
    assert (body["status"], body["status_code"], body["operation"]) == ("", 0, "")
    assert body["error"]
    assert "\n" not in body["error"]


def test_head_answers_headers_only(api: Api) -> None:
    answer = api.request("HEAD", "/1.0")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["ETag"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("body", [b"null", b"{}", b"{broken", b""])
def test_a_body_does_not_matter_where_none_is_read(api: Api, method: str, body: bytes) -> None:
    path = "/1.0" if method == "GET" else "/1.0/operations/x"
    answer = api.request(method, path, body, {"Content-Type": "application/json"})
    assert answer.status == (200 if method == "GET" else 404)


def test_an_unusual_host_and_an_absolute_url_are_fine(api: Api) -> None:
    assert api.request("GET", "/1.0", None, {"Host": "localhost:None"}).status == 200
    assert api.request("GET", "http://localhost/1.0").status == 200


def test_an_empty_project_is_the_default_one(api: Api) -> None:
    assert api.get("/1.0?project=")["environment"]["project"] == "default"


def test_expect_is_answered(api: Api) -> None:
    data = b"PATCH /1.0 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    answer = api.raw(data)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def _error(answer: bytes) -> tuple[int, dict[str, Any], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body), head


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"nonsense\r\n\r\n", 400),
        (b"GET /1.0 HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 600_000 + b"\r\n\r\n", 431),
        (b"GET /1.0/" + b"a" * 600_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"PUT /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: -3\r\n\r\n", 400),
    ],
)
def test_what_is_no_http_gets_one_clear_answer_and_a_close(api: Api, data: bytes, status: int) -> None:
    answered, body, head = _error(api.raw(data))
    assert answered == status
    assert body["error_code"] == status
    assert b"Connection: close" in head
    assert api.request("GET", "/1.0").status == 200


def test_a_stopping_server_says_so_and_closes(api: Api) -> None:
    api.stop_accepting()
    answer = api.request("GET", "/1.0")
    assert answer.status == 503
    assert answer.headers["Connection"] == "close"


def test_a_draining_server_changes_nothing_more_and_still_answers(api: Api) -> None:
    api.app.draining = True
    assert api.request("PATCH", "/1.0", {"config": {"user.a": "1"}}).status == 503
    assert api.get("/1.0")["config"] == {}


def test_a_client_that_leaves_in_the_middle_of_its_body_does_no_harm(api: Api) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(api.path)
        connection.sendall(b"PUT /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert api.request("GET", "/1.0").status == 200


def test_maps_are_sorted_and_fields_are_not() -> None:
    found = render(
        Sync([{"name": "c1", "config": {"b": "2", "a": "1"}, "devices": {"root": {"type": "disk", "path": "/"}}}])
    )
    assert isinstance(found, web.Response)
    assert isinstance(found.text, str)
    (entity,) = json.loads(found.text)["metadata"]
    assert [*entity] == ["name", "config", "devices"]
    assert [*entity["config"]] == ["a", "b"]
    assert [*entity["devices"]["root"]] == ["path", "type"]

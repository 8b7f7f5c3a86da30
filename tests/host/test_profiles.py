"""Profiles and projects over the API: what is made, changed, refused, and left as it was."""

from __future__ import annotations

import http.client
import json
import socket
from email.message import Message
from typing import Any

import pytest

from tests.support.daemon import ApiError, Daemon, unique


def refused(daemon: Daemon, method: str, path: str, body: Any, status: int, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        daemon.request(method, path, body)
    assert (caught.value.status, text in caught.value.text) == (status, True), caught.value.text


def raw(daemon: Daemon, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Message, Any]:
    """Return an answer's status, headers and JSON."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect(f"{daemon.dir}/unix.socket")
        connection = http.client.HTTPConnection("pylxc")
        connection.sock = sock
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        with connection.getresponse() as response:
            return response.status, response.headers, json.loads(response.read())


def test_life_of_a_profile(daemon: Daemon) -> None:
    name, new = unique("p"), unique("q")
    body = {"name": name, "description": "mine", "config": {"user.a": "1"}, "devices": {"n": {"type": "none"}}}
    status, headers, answer = raw(daemon, "POST", "/1.0/profiles", body)
    assert (status, headers["Location"], answer["metadata"]) == (201, f"/1.0/profiles/{name}", None)
    assert daemon.request("GET", f"/1.0/profiles/{name}") == {**body, "used_by": []}
    daemon.request("PATCH", f"/1.0/profiles/{name}", {"config": {"user.b": "2"}, "devices": {"m": {"type": "none"}}})
    patched = daemon.request("GET", f"/1.0/profiles/{name}")
    assert patched["config"] == {"user.a": "1", "user.b": "2"}
    assert set(patched["devices"]) == {"m", "n"}
    assert patched["description"] == "mine"
    daemon.request("PUT", f"/1.0/profiles/{name}", {"config": {"user.c": "3"}})
    put = daemon.request("GET", f"/1.0/profiles/{name}")
    assert (put["config"], put["devices"], put["description"]) == ({"user.c": "3"}, {}, "")
    status, headers, _ = raw(daemon, "POST", f"/1.0/profiles/{name}", {"name": new})
    assert (status, headers["Location"]) == (201, f"/1.0/profiles/{new}")
    assert f"/1.0/profiles/{new}" in daemon.request("GET", "/1.0/profiles")
    daemon.request("DELETE", f"/1.0/profiles/{new}")
    refused(daemon, "GET", f"/1.0/profiles/{new}", None, 404, "Profile not found")


def test_entity_tags(daemon: Daemon) -> None:
    name = unique("p")
    daemon.request("POST", "/1.0/profiles", {"name": name})
    path = f"/1.0/profiles/{name}"
    tag = raw(daemon, "GET", path)[1]["ETag"]
    assert raw(daemon, "PUT", path, {"config": {"user.x": "1"}}, **{"If-Match": tag})[0] == 200
    assert raw(daemon, "PUT", path, {"config": {}}, **{"If-Match": tag})[0] == 412
    assert daemon.request("GET", path)["config"] == {"user.x": "1"}
    daemon.request("DELETE", path)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "name"),
        ({"name": "a/b"}, 400, "Invalid profile name"),
        ({"name": ".."}, 400, "Invalid profile name"),
        ({"name": "default"}, 409, "already exists"),
        ({"name": "x", "config": {"volatile.uuid": "1"}}, 400, "cannot be set in a profile"),
        ({"name": "x", "config": {"limits.cpus": "1"}}, 400, "did you mean limits.cpu"),
        ({"name": "x", "config": {"security.nesting": "perhaps"}}, 400, "security.nesting"),
        ({"name": "x", "devices": {"d": {"type": "floppy"}}}, 400, "floppy"),
        ({"name": "x", "devices": {"d": {}}}, 400, "type"),
        ({"name": "x", "devices": {"d": {"type": "nic", "network": "nope"}}}, 400, "nope"),
        ({"name": "x", "devices": "none"}, 400, "devices"),
    ],
)
def test_bad_profiles(daemon: Daemon, body: Any, status: int, text: str) -> None:
    before = daemon.request("GET", "/1.0/profiles")
    refused(daemon, "POST", "/1.0/profiles", body, status, text)
    assert daemon.request("GET", "/1.0/profiles") == before


def test_the_default_profile_and_project_stay(daemon: Daemon) -> None:
    for kind in ("profiles", "projects"):
        refused(daemon, "DELETE", f"/1.0/{kind}/default", None, 403, "default")
        refused(daemon, "POST", f"/1.0/{kind}/default", {"name": "other"}, 403, "default")


def test_life_of_a_project(daemon: Daemon) -> None:
    name, new = unique("p"), unique("q")
    assert raw(daemon, "POST", "/1.0/projects", {"name": name, "description": "mine"})[0] == 201
    project = daemon.request("GET", f"/1.0/projects/{name}")
    assert project["config"] == {
        "features.images": "true",
        "features.profiles": "true",
        "features.storage.volumes": "true",
    }
    assert project["used_by"] == [f"/1.0/profiles/default?project={name}"]
    profile = unique("p")
    daemon.request("POST", f"/1.0/profiles?project={name}", {"name": profile})
    assert f"/1.0/profiles/{profile}" not in daemon.request("GET", "/1.0/profiles")
    refused(daemon, "DELETE", f"/1.0/projects/{name}", None, 400, "Only empty projects")
    refused(daemon, "PATCH", f"/1.0/projects/{name}", {"config": {"features.profiles": "false"}}, 400, "non-empty")
    daemon.request("DELETE", f"/1.0/profiles/{profile}?project={name}")
    daemon.request("PATCH", f"/1.0/projects/{name}", {"config": {"features.profiles": "false"}})
    assert daemon.request("GET", f"/1.0/projects/{name}")["used_by"] == []
    assert daemon.request("GET", f"/1.0/profiles?project={name}") == [
        f"/1.0/profiles/{p.rsplit('/', 1)[1]}?project={name}" for p in daemon.request("GET", "/1.0/profiles")
    ]
    assert daemon.request("GET", f"/1.0/projects/{name}/state")["resources"]["instances"] == {"Limit": -1, "Usage": 0}
    status, _, answer = raw(daemon, "POST", f"/1.0/projects/{name}", {"name": new})
    assert status == 202
    daemon.wait(answer["operation"])
    daemon.request("DELETE", f"/1.0/projects/{new}")
    refused(daemon, "GET", f"/1.0/projects/{new}", None, 404, "Project not found")


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"name": "a_b"}, 400, "Invalid project name"),
        ({"name": "default"}, 409, "already exists"),
        ({"name": "x", "config": {"features.imags": "true"}}, 400, "did you mean features.images"),
        ({"name": "x", "config": {"restricted": "sometimes"}}, 400, "restricted"),
    ],
)
def test_bad_projects(daemon: Daemon, body: Any, status: int, text: str) -> None:
    refused(daemon, "POST", "/1.0/projects", body, status, text)
    assert daemon.request("GET", "/1.0/projects") == ["/1.0/projects/default"]


def test_instances_of_a_project_that_is_not_there(daemon: Daemon) -> None:
    body = {"name": "c1", "source": {"type": "none"}}
    refused(daemon, "POST", "/1.0/instances?project=nope", body, 404, "Project not found")
    refused(daemon, "GET", "/1.0/profiles?project=nope", None, 404, "Project not found")

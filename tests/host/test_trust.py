"""Who is trusted over the network, how one comes to be, and what a certificate that is restricted can reach."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as websocket

from tests.support.clients import ADDRESS, Identity, TlsClient, context, dial, trust
from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique

CERTIFICATES = "/1.0/certificates"


def token_of(operation: dict[str, Any], name: str) -> str:
    """Return the token of an operation, put together as `lxc` does it."""
    fields = operation["metadata"]
    token = {
        "client_name": name,
        "fingerprint": fields["fingerprint"],
        "addresses": fields["addresses"],
        "secret": fields["secret"],
        "expires_at": fields["expiresAt"],
    }
    return base64.b64encode(json.dumps(token).encode()).decode()


def issue(daemon: Daemon, name: str, **more: Any) -> tuple[str, str]:
    """Return a join token, and the operation that it is."""
    answer = daemon.parse(
        daemon.send("POST", CERTIFICATES, json.dumps({"type": "client", "name": name, "token": True, **more}).encode())
    )
    return token_of(answer["metadata"], name), answer["operation"]


@pytest.fixture(scope="module")
def server(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    """Return a daemon that listens, has a pool, an image, and the projects `own` and `other`."""
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    module_daemon.request("PATCH", "/1.0", {"config": {"core.https_address": ADDRESS}})
    module_daemon.import_image("busybox", busybox_files)
    for name in ("own", "other"):
        features = {"features.images": "false", "features.profiles": "false"}
        module_daemon.request("POST", "/1.0/projects", {"name": name, "config": features})
    return module_daemon


@pytest.fixture
def daemon(server: Daemon) -> Iterator[Daemon]:
    """Return the server; nobody is trusted any more afterwards."""
    yield server
    for url in server.request("GET", CERTIFICATES):
        server.request("DELETE", url)
    server.request("PATCH", "/1.0", {"config": {"core.trust_password": "", "core.remote_token_expiry": ""}})


@pytest.fixture
def make_identity(tmp_path: Path) -> Callable[[], Identity]:
    return lambda: Identity(tmp_path, unique("who"))


# Coming to be trusted.


def test_token(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    token, operation = issue(daemon, "laptop")
    fields = json.loads(base64.b64decode(token))
    assert fields["addresses"] == [ADDRESS]
    assert fields["fingerprint"] == daemon.request("GET", "/1.0")["environment"]["certificate_fingerprint"]
    found = daemon.request("GET", operation)
    assert (found["class"], found["status"], found["may_cancel"]) == ("token", "Running", True)
    assert found["metadata"]["request"]["name"] == "laptop"
    identity = make_identity()
    client = TlsClient(daemon, identity)
    body = {"type": "client", "name": "whatever", "password": token}
    assert client.status("POST", CERTIFICATES, body) == 201
    assert client.request("GET", "/1.0")["auth"] == "trusted"
    assert client.request("GET", f"{CERTIFICATES}/{identity.fingerprint}")["name"] == "laptop"
    assert daemon.request("GET", operation)["status"] == "Cancelled"
    assert TlsClient(daemon, make_identity()).status("POST", CERTIFICATES, body) == 403


def test_a_token_lets_one_of_many_in(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    token, _ = issue(daemon, "race")
    clients = [TlsClient(daemon, make_identity()) for _ in range(5)]
    statuses: list[int] = []

    def join(client: TlsClient) -> None:
        statuses.append(client.status("POST", CERTIFICATES, {"type": "client", "password": token}))

    threads = [threading.Thread(target=join, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 403, 403, 403, 403]
    assert len(daemon.request("GET", CERTIFICATES)) == 1


def test_a_token_can_be_revoked_and_expires(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    token, operation = issue(daemon, "revoked")
    daemon.request("DELETE", operation)
    body = {"type": "client", "password": token}
    assert TlsClient(daemon, make_identity()).status("POST", CERTIFICATES, body) == 403
    daemon.request("PATCH", "/1.0", {"config": {"core.remote_token_expiry": "1S"}})
    token, operation = issue(daemon, "late")
    time.sleep(1.1)
    body = {"type": "client", "password": token}
    assert TlsClient(daemon, make_identity()).status("POST", CERTIFICATES, body) == 403
    assert daemon.request("GET", operation)["status"] == "Cancelled"


@pytest.mark.parametrize(
    "password",
    [
        "",
        "wrong",
        base64.b64encode(b"[" * 10_000).decode(),
        base64.b64encode(b'{"client_name": 1, "fingerprint": [], "secret": {}}').decode(),
        base64.b64encode(b'{"client_name": "x", "fingerprint": "x", "secret": "\\u00e9"}').decode(),
    ],
)
def test_other_words_let_nobody_in(daemon: Daemon, make_identity: Callable[[], Identity], password: str) -> None:
    client = TlsClient(daemon, make_identity())
    assert client.status("POST", CERTIFICATES, {"type": "client", "password": password}) == 403
    assert daemon.request("GET", CERTIFICATES) == []


def test_a_password_that_is_not_set_is_not_empty(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    for password in ("", "0", " "):
        body = {"type": "client", "password": password}
        assert TlsClient(daemon, make_identity()).status("POST", CERTIFICATES, body) == 403


def test_trust_password(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    daemon.request("PATCH", "/1.0", {"config": {"core.trust_password": "sesame"}})
    assert daemon.request("GET", "/1.0")["config"]["core.trust_password"] is True
    with daemon.database() as database:
        (stored,) = database.execute("select value from config where key='core.trust_password'").fetchone()
    assert "sesame" not in stored
    assert len(bytes.fromhex(stored)) == 96
    config = daemon.request("GET", "/1.0")["config"]
    daemon.request("PUT", "/1.0", {"config": config})  # as `config edit` sends it back
    identity = make_identity()
    client = TlsClient(daemon, identity)
    assert client.status("POST", CERTIFICATES, {"type": "client", "password": "Sesame"}) == 403
    assert client.status("POST", CERTIFICATES, {"type": "client", "password": "sesame"}) == 201
    assert client.request("GET", "/1.0")["auth"] == "trusted"
    (found,) = daemon.request("GET", f"{CERTIFICATES}?recursion=1")
    assert (found["name"], found["fingerprint"], found["certificate"]) == (
        identity.name,
        identity.fingerprint,
        identity.pem,
    )


def test_no_token_without_a_listener(daemon: Daemon) -> None:
    daemon.request("PATCH", "/1.0", {"config": {"core.https_address": ""}})
    try:
        with pytest.raises(ApiError, match="isn't listening on network"):
            issue(daemon, "nowhere")
    finally:
        daemon.request("PATCH", "/1.0", {"config": {"core.https_address": ADDRESS}})


def test_bad_requests(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    good = make_identity().base64
    for body, status in (
        ({"type": "client"}, 400),
        ({"type": "client", "certificate": "?"}, 400),
        ({"type": "client", "certificate": base64.b64encode(b"no certificate").decode()}, 400),
        ({"type": "other", "certificate": good}, 400),
        ({"type": "server", "certificate": good}, 501),
        ({"type": "client", "certificate": good, "name": "a\nb"}, 400),
        ({"type": "client", "certificate": good, "restricted": True, "projects": ["no such"]}, 404),
        ({"type": "client", "name": "x", "token": True, "projects": ["no such"]}, 404),
    ):
        with pytest.raises(ApiError) as raised:
            daemon.request("POST", CERTIFICATES, body)
        assert raised.value.status == status, body
    assert daemon.request("GET", CERTIFICATES) == []


# What is for everybody.


def test_public_images(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    stranger = TlsClient(daemon, make_identity())
    fingerprint = daemon.request("GET", "/1.0/images/aliases/busybox")["target"]
    paths = [f"/1.0/images/{fingerprint}", f"/1.0/images/{fingerprint[:12]}", f"/1.0/images/{fingerprint}/export"]
    paths.append("/1.0/images/aliases/busybox")
    assert stranger.request("GET", "/1.0/images") == []
    assert [stranger.status("GET", path) for path in paths] == [404] * 4
    daemon.request("PATCH", f"/1.0/images/{fingerprint}", {"public": True})
    try:
        assert stranger.request("GET", "/1.0/images") == [f"/1.0/images/{fingerprint}"]
        assert [stranger.status("GET", path) for path in paths] == [200] * 4
        for method, path in (
            ("DELETE", paths[0]),
            ("PUT", paths[0]),
            ("POST", "/1.0/images"),
            ("GET", "/1.0/images/aliases"),
            ("GET", "/1.0/images?all-projects=true"),
        ):
            assert stranger.status(method, path) == 403, (method, path)
    finally:
        daemon.request("PATCH", f"/1.0/images/{fingerprint}", {"public": False})


# The certificates.


def test_certificates(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    first, second = make_identity(), make_identity()
    trust(daemon, first)
    with pytest.raises(ApiError, match="already in trust store"):
        trust(daemon, first)
    url = f"{CERTIFICATES}/{first.fingerprint}"
    assert daemon.request("GET", CERTIFICATES) == [url]
    short = f"{CERTIFICATES}/{first.fingerprint[:12]}"
    found = daemon.request("GET", short)
    assert found == {
        "certificate": first.pem,
        "fingerprint": first.fingerprint,
        "name": first.name,
        "projects": [],
        "restricted": False,
        "type": "client",
    }
    daemon.request("PATCH", short, {"name": "renamed"})
    assert daemon.request("GET", short)["name"] == "renamed"
    daemon.request("PUT", short, {**found, "name": "put", "restricted": True, "projects": ["own", "other"]})
    found = daemon.request("GET", short)
    assert (found["name"], found["restricted"], found["projects"]) == ("put", True, ["other", "own"])
    stale = daemon.send("PUT", short, json.dumps(found).encode(), {"If-Match": '"0"'})
    assert json.loads(stale)["error_code"] == 412
    daemon.request("PATCH", short, {"certificate": second.pem})
    assert daemon.request("GET", CERTIFICATES) == [f"{CERTIFICATES}/{second.fingerprint}"]
    with pytest.raises(ApiError) as raised:
        daemon.request("GET", short)
    assert raised.value.status == 404
    daemon.request("DELETE", f"{CERTIFICATES}/{second.fingerprint}")
    assert daemon.request("GET", CERTIFICATES) == []


def test_an_unclear_prefix(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    by_digit: dict[str, Identity] = {}
    while True:
        identity = make_identity()
        if (other := by_digit.setdefault(identity.fingerprint[0], identity)) is not identity:
            break
    trust(daemon, identity)
    trust(daemon, other)
    with pytest.raises(ApiError, match="More than one certificate matches"):
        daemon.request("DELETE", f"{CERTIFICATES}/{identity.fingerprint[0]}")
    for wildcard in ("%25", "_", "*"):
        with pytest.raises(ApiError) as raised:
            daemon.request("GET", f"{CERTIFICATES}/{wildcard}")
        assert raised.value.status == 404


def test_events(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    admin, identity = make_identity(), make_identity()
    trust(daemon, admin)
    url = f"wss://{ADDRESS}/1.0/events?type=lifecycle"
    with websocket(url, sock=dial(daemon), ssl=context(admin)) as events:
        client = TlsClient(daemon, admin)
        client.request("POST", CERTIFICATES, {"type": "client", "name": "x", "certificate": identity.base64})
        client.request("PATCH", f"{CERTIFICATES}/{identity.fingerprint}", {"name": "y"})
        client.request("DELETE", f"{CERTIFICATES}/{identity.fingerprint}")
        seen = [json.loads(events.recv(10))["metadata"] for _ in range(3)]
    assert [each["action"] for each in seen] == ["certificate-created", "certificate-updated", "certificate-deleted"]
    assert all(each["source"] == f"{CERTIFICATES}/{identity.fingerprint}" for each in seen)
    asked = {"username": admin.fingerprint, "protocol": "tls", "address": client.source}
    assert all(each["requestor"] == asked for each in seen)


def test_a_project_takes_its_name_and_its_trust_along(daemon: Daemon, make_identity: Callable[[], Identity]) -> None:
    identity = make_identity()
    daemon.request("POST", "/1.0/projects", {"name": "brief"})
    trust(daemon, identity, restricted=True, projects=["brief"])
    client = TlsClient(daemon, identity)
    assert client.status("GET", "/1.0/instances?project=brief") == 200
    daemon.request("POST", "/1.0/projects/brief", {"name": "renamed"})
    assert client.status("GET", "/1.0/instances?project=brief") == 403
    assert client.status("GET", "/1.0/instances?project=renamed") == 200
    daemon.request("DELETE", "/1.0/projects/renamed")
    daemon.request("POST", "/1.0/projects", {"name": "renamed"})  # another one
    assert client.status("GET", "/1.0/instances?project=renamed") == 403
    daemon.request("DELETE", "/1.0/projects/renamed")
    assert daemon.request("GET", f"{CERTIFICATES}?recursion=1")[0]["projects"] == []


# Restricted.


@pytest.fixture
def confined(daemon: Daemon, make_identity: Callable[[], Identity]) -> tuple[TlsClient, Identity]:
    """Return a client that is restricted to the project `own`."""
    identity = make_identity()
    trust(daemon, identity, restricted=True, projects=["own"])
    return TlsClient(daemon, identity), identity


def empty(name: str, **source: Any) -> dict[str, Any]:
    return {"name": name, "source": {"type": "none", **source}}


def test_it_works_in_its_project(daemon: Daemon, confined: tuple[TlsClient, Identity]) -> None:
    client, identity = confined
    name = unique("c")
    found = client.request("GET", "/1.0?project=own")
    assert (found["auth"], found["config"]) == ("trusted", {})
    client.run("POST", "/1.0/instances?project=own", {"name": name, "source": {"type": "image", "alias": "busybox"}})
    client.run("PUT", f"/1.0/instances/{name}/state?project=own", {"action": "start"})
    ran = {"command": ["true"], "record-output": True, "wait-for-websocket": False}
    assert client.run("POST", f"/1.0/instances/{name}/exec?project=own", ran)["metadata"]["return"] == 0
    assert client.status("GET", f"/1.0/instances/{name}/files?path=/etc&project=own") == 200
    assert [i["name"] for i in client.request("GET", "/1.0/instances?project=own&recursion=2")] == [name]
    assert client.status("GET", "/1.0/metrics?project=own") == 200
    client.run("PUT", f"/1.0/instances/{name}/state?project=own", {"action": "stop", "force": True})
    client.run("DELETE", f"/1.0/instances/{name}?project=own")
    assert client.request("GET", "/1.0/projects") == ["/1.0/projects/own"]
    assert client.request("GET", CERTIFICATES) == [f"{CERTIFICATES}/{identity.fingerprint}"]
    for path in ("/1.0/networks", "/1.0/storage-pools", "/1.0/storage-pools/default", "/1.0/resources"):
        assert client.status("GET", f"{path}?project=own") == 200, path


DENIED: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/1.0/instances", None),
    ("GET", "/1.0/instances?project=other", None),
    ("GET", "/1.0/containers?project=other", None),
    ("GET", "/1.0/instances?project=other&project=own", None),
    ("GET", "/1.0/instances?project=OWN", None),
    ("GET", "/1.0/instances?all-projects=true", None),
    ("GET", "/1.0/instances?all-projects=1&project=own", None),
    ("GET", "/1.0/images?all-projects=yes", None),
    ("GET", "/1.0/operations", None),
    ("GET", "/1.0/operations?all-projects=true", None),
    ("GET", "/1.0/metrics", None),
    ("GET", "/1.0/metrics?project=other", None),
    ("GET", "/1.0/projects/other", None),
    ("GET", "/1.0/projects/other/state?project=own", None),
    ("GET", "/1.0/warnings?project=own", None),
    ("GET", "/internal/database?project=own", None),
    ("GET", "/1.0/networks/any/leases?project=own", None),
    ("GET", "/1.0/pylxc/images?project=own&protocol=recipe", None),
    ("PATCH", "/1.0?project=own", {"config": {"user.x": "1"}}),
    ("PUT", "/1.0/projects/own?project=own", {"config": {}}),
    ("POST", "/1.0/projects?project=own", {"name": "mine"}),
    ("POST", "/1.0/projects/own?project=own", {"name": "mine"}),
    ("DELETE", "/1.0/projects/own?project=own", None),
    ("POST", "/1.0/storage-pools?project=own", {"name": "p", "driver": "dir"}),
    ("DELETE", "/1.0/storage-pools/default?project=own", None),
    ("POST", "/1.0/networks?project=own", {"name": "n", "type": "bridge"}),
    ("POST", "/1.0/profiles?project=own", {"name": "p"}),
    ("PUT", "/1.0/profiles/default?project=own", {"config": {}, "devices": {}}),
    ("POST", "/1.0/images/aliases?project=own", {"name": "a", "target": "0" * 64}),
    ("POST", "/1.0/certificates?project=own", {"type": "client", "name": "x", "token": True}),
    ("POST", "/1.0/certificates?project=own", {"type": "client", "name": "x", "certificate": "AAAA"}),
    ("PUT", "/internal/shutdown?project=own", None),
    ("POST", "/1.0/pylxc/init?project=own", {}),
    ("POST", "/1.0/instances?project=own", empty("x", type="copy", source="x", project="other")),
    ("POST", "/1.0/instances?project=own", empty("x", type="copy", source="x", project="default")),
    ("POST", "/1.0/instances/x?project=own", {"name": "x", "migration": True, "project": "other"}),
    ("POST", "/1.0/images?project=own", {"source": {"type": "instance", "name": "x", "project": "other"}}),
    ("POST", "/1.0/storage-pools/default/volumes/custom/x?project=own", {"name": "x", "project": "other"}),
)


def test_it_reaches_nothing_else(confined: tuple[TlsClient, Identity]) -> None:
    client, _ = confined
    answers = [(method, path, client.status(method, path, body)) for method, path, body in DENIED]
    assert [answer for answer in answers if answer[2] != 403] == []


def test_used_by_tells_of_its_own_only(daemon: Daemon, confined: tuple[TlsClient, Identity]) -> None:
    names = {project: unique("u") for project in ("own", "other", "default")}
    for project, name in names.items():
        daemon.request("POST", f"/1.0/instances?project={project}", empty(name))
    try:
        assert len(daemon.request("GET", "/1.0/profiles/default")["used_by"]) >= 3
        wanted = [f"/1.0/instances/{names['own']}?project=own"]
        assert confined[0].request("GET", "/1.0/profiles/default?project=own")["used_by"] == wanted
        (listed,) = [
            each
            for each in confined[0].request("GET", "/1.0/profiles?project=own&recursion=1")
            if each["name"] == "default"
        ]
        assert listed["used_by"] == wanted
        pool = confined[0].request("GET", "/1.0/storage-pools/default?project=own")["used_by"]
        assert wanted[0] in pool
        assert not any("other" in url or names["default"] in url for url in pool)
    finally:
        for project, name in names.items():
            daemon.request("DELETE", f"/1.0/instances/{name}?project={project}")


def test_operations_of_others(daemon: Daemon, confined: tuple[TlsClient, Identity]) -> None:
    client, _ = confined
    _, token = issue(daemon, "secret")
    name = unique("o")
    made = daemon.parse(daemon.send("POST", "/1.0/instances?project=other", json.dumps(empty(name)).encode()))
    daemon.wait(made["operation"])
    try:
        for url in (token, made["operation"]):
            for method, path in (("GET", url), ("DELETE", url), ("GET", f"{url}/wait"), ("GET", f"{url}/websocket")):
                assert client.status(method, f"{path}?project=own") == 404, (method, path)
        listed = json.dumps(client.request("GET", "/1.0/operations?project=own&recursion=1"))
        assert "token" not in listed
        assert name not in listed
        assert daemon.request("GET", token)["status"] == "Running"
    finally:
        daemon.request("DELETE", token)
        daemon.request("DELETE", f"/1.0/instances/{name}?project=other")


def test_events_of_others(daemon: Daemon, confined: tuple[TlsClient, Identity]) -> None:
    _, identity = confined
    for query in ("", "?project=other", "?all-projects=true"):
        assert confined[0].status("GET", f"/1.0/events{query}") == 403
    name = unique("e")
    with websocket(f"wss://{ADDRESS}/1.0/events?project=own", sock=dial(daemon), ssl=context(identity)) as events:
        daemon.request("POST", "/1.0/instances?project=other", empty(name))
        daemon.request("PATCH", "/1.0", {"config": {"user.event": "1"}})
        daemon.request("DELETE", issue(daemon, "event")[1])
        daemon.request("DELETE", f"/1.0/instances/{name}?project=other")
        daemon.request("POST", "/1.0/instances?project=own", empty(name))
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["metadata"].get("action") != "instance-created":
            seen.append(json.loads(events.recv(10)))
        daemon.request("DELETE", f"{CERTIFICATES}/{identity.fingerprint}")
        daemon.request("DELETE", f"/1.0/instances/{name}?project=own")
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(json.loads(events.recv(10)))
    assert {each["project"] for each in seen} == {"own"}
    assert {each["type"] for each in seen} == {"lifecycle", "operation"}
    assert not any(each["metadata"].get("action") == "instance-deleted" for each in seen)


def test_it_renews_its_certificate_and_nothing_more(
    daemon: Daemon, confined: tuple[TlsClient, Identity], make_identity: Callable[[], Identity]
) -> None:
    client, identity = confined
    admin, new = make_identity(), make_identity()
    trust(daemon, admin)
    own = f"{CERTIFICATES}/{identity.fingerprint}"
    assert client.status("GET", f"{CERTIFICATES}/{admin.fingerprint}") == 403
    assert client.status("DELETE", f"{CERTIFICATES}/{admin.fingerprint}") == 403
    assert client.status("PATCH", f"{CERTIFICATES}/{admin.fingerprint}", {"certificate": new.pem}) == 403
    found = client.request("GET", own)
    for change in ({"restricted": False}, {"projects": ["own", "other"]}, {"name": "x"}, {"type": "metrics"}):
        assert client.status("PUT", own, {**found, **change}) == 403, change
        assert client.status("PATCH", own, change) == 403, change
    assert client.status("PUT", own, {"certificate": new.pem}) == 403  # would not be restricted
    assert client.status("PUT", own, {**found, "certificate": new.pem}) == 200
    assert client.request("GET", "/1.0")["auth"] == "untrusted"
    renewed = TlsClient(daemon, new)
    assert renewed.status("GET", "/1.0/instances?project=own") == 200
    assert renewed.status("GET", "/1.0/instances") == 403
    assert renewed.status("DELETE", f"{CERTIFICATES}/{new.fingerprint}") == 200
    assert renewed.request("GET", "/1.0")["auth"] == "untrusted"

"""Every endpoint and method of the dialect's table: status, kind of answer, entity tag and shape."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from pylxc.api.app import endpoints
from tests.support import shapes
from tests.support.daemon import POOL_AND_BRIDGE, Daemon
from tests.support.wire import KEYS, Answer, ask, ended

INSTANCE = "/1.0/instances/c1"
POOL = "/1.0/storage-pools/default"
VOLUME = f"{POOL}/volumes/custom/v1"
NETWORK = "/1.0/networks/pylxcbr0"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")

READ: list[tuple[str, bool, Any]] = [
    ("/", False, ["/1.0"]),
    ("/1.0", True, shapes.SERVER),
    ("/1.0/instances", False, [INSTANCE]),
    ("/1.0/instances?recursion=1", False, [shapes.INSTANCE]),
    ("/1.0/instances?recursion=2", False, [shapes.INSTANCE_FULL]),
    ("/1.0/instances?filter=name%20eq%20c1%20and%20not%20status%20eq%20stopped", False, [INSTANCE]),
    ("/1.0/instances?filter=config.user.stage%20eq%20prod", False, []),
    ("/1.0/instances?all-projects=true", False, [INSTANCE]),
    ("/1.0/instances?project=", False, [INSTANCE]),
    ("/1.0/instances?project=j1", False, []),
    ("/1.0/instances?instance-type=virtual-machine", False, []),
    ("/1.0/containers", False, ["/1.0/containers/c1"]),
    ("/1.0/containers?recursion=1", False, [shapes.INSTANCE]),
    ("/1.0/virtual-machines", False, []),
    ("/1.0/containers/c1", True, shapes.INSTANCE),
    ("/1.0/containers/c1/state", False, shapes.STATE),
    (INSTANCE, True, shapes.INSTANCE),
    (f"{INSTANCE}?recursion=1", True, shapes.INSTANCE_FULL),
    (f"{INSTANCE}/state", False, shapes.STATE),
    (f"{INSTANCE}/console", False, bytes),
    (f"{INSTANCE}/files?path=/etc/hostname", False, bytes),
    (f"{INSTANCE}/files?path=/bin/sh", False, bytes),
    (f"{INSTANCE}/files?path=/root", False, []),
    (f"{INSTANCE}/logs", False, [f"{INSTANCE}/logs/lxc.log"]),
    (f"{INSTANCE}/logs/lxc.log", False, bytes),
    (f"{INSTANCE}/snapshots", False, [f"{INSTANCE}/snapshots/s0"]),
    (f"{INSTANCE}/snapshots?recursion=1", False, [shapes.SNAPSHOT]),
    (f"{INSTANCE}/snapshots/s0", True, shapes.SNAPSHOT),
    (f"{INSTANCE}/backups", False, [f"{INSTANCE}/backups/b0"]),
    (f"{INSTANCE}/backups?recursion=1", False, [shapes.BACKUP]),
    (f"{INSTANCE}/backups/b0", False, shapes.BACKUP),
    (f"{INSTANCE}/backups/b0/export", False, bytes),
    (f"{INSTANCE}/metadata", True, shapes.METADATA),
    (f"{INSTANCE}/metadata/templates", False, list),
    (f"{INSTANCE}/metadata/templates?path=etc-hostname.tpl", False, bytes),
    ("/1.0/images", False, ["/1.0/images/IMAGE"]),
    ("/1.0/images?recursion=1", False, [shapes.IMAGE]),
    ("/1.0/images?filter=properties.os%20eq%20busybox", False, ["/1.0/images/IMAGE"]),
    ("/1.0/images/IMAGE", True, shapes.IMAGE),
    ("/1.0/images/SHORT", True, shapes.IMAGE),
    ("/1.0/images/IMAGE/export", False, bytes),
    ("/1.0/images/aliases", False, ["/1.0/images/aliases/a%2F1", "/1.0/images/aliases/busybox"]),
    ("/1.0/images/aliases?recursion=1", False, [shapes.ALIAS]),
    ("/1.0/images/aliases/a%2F1", True, shapes.ALIAS),
    ("/1.0/images/aliases/a/1", True, shapes.ALIAS),
    ("/1.0/operations", False, dict),
    ("/1.0/operations?recursion=1&all-projects=true", False, dict),
    ("/1.0/profiles", False, list),
    ("/1.0/profiles?recursion=1", False, [shapes.PROFILE]),
    ("/1.0/profiles?project=j1", False, ["/1.0/profiles/default?project=j1"]),
    ("/1.0/profiles/default", True, shapes.PROFILE),
    ("/1.0/projects", False, ["/1.0/projects/default", "/1.0/projects/j1"]),
    ("/1.0/projects?recursion=1", False, [shapes.PROJECT]),
    ("/1.0/projects/j1", True, shapes.PROJECT),
    ("/1.0/projects/default/state", False, shapes.PROJECT_STATE),
    ("/1.0/networks", False, ["/1.0/networks/lo", NETWORK]),
    ("/1.0/networks?recursion=1", False, [shapes.NETWORK]),
    (NETWORK, True, shapes.NETWORK),
    (f"{NETWORK}/state", False, shapes.NETWORK_STATE),
    (f"{NETWORK}/leases", False, [shapes.LEASE]),
    (f"{NETWORK}/forwards", False, [f"{NETWORK}/forwards/192.0.2.1"]),
    (f"{NETWORK}/forwards?recursion=1", False, [shapes.FORWARD]),
    (f"{NETWORK}/forwards/192.0.2.1", True, shapes.FORWARD),
    ("/1.0/storage-pools", False, [POOL]),
    ("/1.0/storage-pools?recursion=1", False, [shapes.POOL]),
    (POOL, True, shapes.POOL),
    (f"{POOL}/resources", False, shapes.POOL_RESOURCES),
    (f"{POOL}/volumes", False, list),
    (f"{POOL}/volumes?recursion=1", False, [shapes.VOLUME]),
    (f"{POOL}/volumes?filter=name%20eq%20v1", False, [VOLUME]),
    (f"{POOL}/volumes/custom?all-projects=true", False, [VOLUME, f"{VOLUME}/snapshots/s0"]),
    (f"{POOL}/volumes/image", False, [f"{POOL}/volumes/image/IMAGE"]),
    (f"{POOL}/volumes/virtual-machine", False, []),
    (VOLUME, True, shapes.VOLUME),
    (f"{VOLUME}/state", False, shapes.VOLUME_STATE),
    (f"{POOL}/volumes/container/c1", True, shapes.VOLUME),
    (f"{POOL}/volumes/container/c1/state", False, shapes.VOLUME_STATE),
    (f"{VOLUME}/snapshots", False, [f"{VOLUME}/snapshots/s0"]),
    (f"{VOLUME}/snapshots?recursion=1", False, [shapes.VOLUME_SNAPSHOT]),
    (f"{VOLUME}/snapshots/s0", True, shapes.VOLUME_SNAPSHOT),
    (f"{VOLUME}/backups", False, [f"{VOLUME}/backups/b0"]),
    (f"{VOLUME}/backups?recursion=1", False, [shapes.VOLUME_BACKUP]),
    (f"{VOLUME}/backups/b0", False, shapes.VOLUME_BACKUP),
    (f"{VOLUME}/backups/b0/export", False, bytes),
    ("/1.0/certificates", False, ["/1.0/certificates/CERTIFICATE"]),
    ("/1.0/certificates?recursion=1", False, [shapes.CERTIFICATE]),
    ("/1.0/certificates/CERTIFICATE", True, shapes.CERTIFICATE),
    ("/1.0/resources", False, shapes.RESOURCES),
    ("/1.0/warnings", False, list),
    ("/1.0/warnings?recursion=1", False, [shapes.WARNING]),
    ("/1.0/warnings/WARNING", True, shapes.WARNING),
    ("/1.0/metrics", False, bytes),
    ("/1.0/cluster", False, shapes.CLUSTER),
    ("/1.0/metadata/configuration", False, dict),
]
"""What is read: path, whether it has an entity tag, and the answer: its keys, what a list holds, or its type."""

CHANGE: list[tuple[str, str, Any, int, str]] = [
    ("PUT", "/1.0", {"config": {"user.a": "b"}}, 200, ""),
    ("PATCH", "/1.0", {"config": {"user.a": ""}}, 200, ""),
    ("POST", "/1.0/instances", {"name": "c2", "source": {"type": "none"}}, 202, "/1.0/operations/"),
    ("POST", "/1.0/instances", {"name": "c3", "source": {"type": "copy", "source": "c1"}}, 202, "/1.0/operations/"),
    ("PUT", "/1.0/instances", {"state": {"action": "freeze"}}, 202, "/1.0/operations/"),
    ("PUT", f"{INSTANCE}/state", {"action": "unfreeze"}, 202, "/1.0/operations/"),
    ("PATCH", "/1.0/instances/c2", {"config": {"user.a": "c"}}, 200, ""),
    ("POST", "/1.0/instances/c2", {"name": "c4"}, 202, "/1.0/operations/"),
    ("DELETE", "/1.0/instances/c4", None, 202, "/1.0/operations/"),
    ("DELETE", "/1.0/containers/c3", None, 202, "/1.0/operations/"),
    ("POST", f"{INSTANCE}/exec", {"command": ["true"]}, 202, "/1.0/operations/"),
    ("POST", f"{INSTANCE}/files?path=/tmp/a", b"x", 200, ""),
    ("DELETE", f"{INSTANCE}/files?path=/tmp/a", None, 200, ""),
    ("DELETE", f"{INSTANCE}/console", None, 200, ""),
    ("POST", f"{INSTANCE}/snapshots", {"name": "s1"}, 202, "/1.0/operations/"),
    ("PUT", f"{INSTANCE}/snapshots/s1", {"expires_at": "2099-01-01T00:00:00Z"}, 202, "/1.0/operations/"),
    ("PATCH", f"{INSTANCE}/snapshots/s1", {"expires_at": "2099-01-02T00:00:00Z"}, 202, "/1.0/operations/"),
    ("POST", f"{INSTANCE}/snapshots/s1", {"name": "s2"}, 202, "/1.0/operations/"),
    ("DELETE", f"{INSTANCE}/snapshots/s2", None, 202, "/1.0/operations/"),
    ("POST", f"{INSTANCE}/backups", {"name": "b1"}, 202, "/1.0/operations/"),
    ("POST", f"{INSTANCE}/backups/b1", {"name": "b2"}, 202, "/1.0/operations/"),
    ("DELETE", f"{INSTANCE}/backups/b2", None, 202, "/1.0/operations/"),
    ("PUT", f"{INSTANCE}/metadata", {"architecture": "x86_64", "creation_date": 1}, 200, ""),
    ("PATCH", f"{INSTANCE}/metadata", {"properties": {"a": "b"}}, 200, ""),
    ("POST", f"{INSTANCE}/metadata/templates?path=a.tpl", b"x", 200, ""),
    ("DELETE", f"{INSTANCE}/metadata/templates?path=a.tpl", None, 200, ""),
    ("PATCH", "/1.0/images/IMAGE", {"properties": {"a": "b"}}, 200, ""),
    ("PUT", "/1.0/images/IMAGE", {"public": True, "properties": {"os": "Busybox"}}, 200, ""),
    ("POST", "/1.0/images/IMAGE/refresh", None, 400, ""),
    ("POST", "/1.0/images/aliases", {"name": "b/1", "target": "IMAGE"}, 201, "/1.0/images/aliases/b%2F1"),
    ("PUT", "/1.0/images/aliases/b%2F1", {"target": "IMAGE", "description": "x"}, 200, ""),
    ("PATCH", "/1.0/images/aliases/b%2F1", {"description": "y"}, 200, ""),
    ("POST", "/1.0/images/aliases/b%2F1", {"name": "b2"}, 201, "/1.0/images/aliases/b2"),
    ("DELETE", "/1.0/images/aliases/b2", None, 200, ""),
    ("POST", "/1.0/profiles", {"name": "f1"}, 201, "/1.0/profiles/f1"),
    ("POST", "/1.0/profiles", {"name": "f1"}, 409, ""),
    ("PUT", "/1.0/profiles/f1", {"description": "x"}, 200, ""),
    ("PATCH", "/1.0/profiles/f1", {"description": "y"}, 200, ""),
    ("POST", "/1.0/profiles/f1", {"name": "f2"}, 201, "/1.0/profiles/f2"),
    ("DELETE", "/1.0/profiles/f2", None, 200, ""),
    ("POST", "/1.0/projects", {"name": "j2"}, 201, "/1.0/projects/j2"),
    ("PATCH", "/1.0/projects/j2", {"description": "y"}, 200, ""),
    ("POST", "/1.0/projects/j2", {"name": "j3"}, 202, "/1.0/operations/"),
    ("DELETE", "/1.0/projects/j3", None, 200, ""),
    ("DELETE", "/1.0/projects/default", None, 403, ""),
    ("POST", "/1.0/networks", {"name": "n1", "type": "bridge"}, 201, "/1.0/networks/n1"),
    ("PATCH", "/1.0/networks/n1", {"description": "y"}, 200, ""),
    ("POST", "/1.0/networks/n1", {"name": "n2"}, 201, "/1.0/networks/n2"),
    ("POST", "/1.0/networks/n2/forwards", {"listen_address": "192.0.2.2"}, 201, "/1.0/networks/n2/forwards/192.0.2.2"),
    ("PATCH", "/1.0/networks/n2/forwards/192.0.2.2", {"description": "y"}, 200, ""),
    ("PUT", "/1.0/networks/n2/forwards/192.0.2.2", {"description": "z"}, 200, ""),
    ("DELETE", "/1.0/networks/n2/forwards/192.0.2.2", None, 200, ""),
    ("DELETE", "/1.0/networks/n2", None, 200, ""),
    ("POST", "/1.0/storage-pools", {"name": "p1", "driver": "dir"}, 201, "/1.0/storage-pools/p1"),
    ("PATCH", "/1.0/storage-pools/p1", {"description": "y"}, 200, ""),
    ("DELETE", "/1.0/storage-pools/p1", None, 200, ""),
    ("POST", f"{POOL}/volumes", {"name": "v2", "type": "custom"}, 200, ""),
    ("POST", f"{POOL}/volumes/custom", {"name": "v3", "source": {"type": "copy", "name": "v1", "pool": "default"}}, 202,
        "/1.0/operations/"),
    ("PUT", f"{POOL}/volumes/custom/v2", {"description": "x"}, 200, ""),
    ("PATCH", f"{POOL}/volumes/custom/v2", {"description": "y"}, 200, ""),
    ("POST", f"{POOL}/volumes/custom/v2", {"name": "v4"}, 201, f"{POOL}/volumes/custom/v4"),
    ("DELETE", f"{POOL}/volumes/custom/v4", None, 200, ""),
    ("DELETE", f"{POOL}/volumes/custom/v3", None, 200, ""),
    ("POST", f"{VOLUME}/snapshots", {"name": "s1"}, 202, "/1.0/operations/"),
    ("PUT", f"{VOLUME}/snapshots/s1", {"description": "x"}, 200, ""),
    ("PATCH", f"{VOLUME}/snapshots/s1", {"description": "x"}, 200, ""),
    ("POST", f"{VOLUME}/snapshots/s1", {"name": "s2"}, 202, "/1.0/operations/"),
    ("DELETE", f"{VOLUME}/snapshots/s2", None, 202, "/1.0/operations/"),
    ("POST", f"{VOLUME}/backups", {"name": "b1"}, 202, "/1.0/operations/"),
    ("POST", f"{VOLUME}/backups/b1", {"name": "b2"}, 202, "/1.0/operations/"),
    ("DELETE", f"{VOLUME}/backups/b2", None, 202, "/1.0/operations/"),
    ("PATCH", "/1.0/certificates/CERTIFICATE", {"name": "other"}, 200, ""),
    ("DELETE", "/1.0/certificates/CERTIFICATE", None, 200, ""),
    ("POST", "/1.0/certificates", {"type": "client", "name": "n", "certificate": "PEM"}, 201,
        "/1.0/certificates/CERTIFICATE"),
    ("PATCH", "/1.0/warnings/WARNING", {"status": "acknowledged"}, 200, ""),
    ("PUT", "/1.0/warnings/WARNING", {"status": "new"}, 200, ""),
]  # fmt: skip
"""What is changed, in this order: method, path, body, status, and what Location begins with."""

TAGGED = [path for path, tagged, _ in READ if tagged and "?" not in path and "SHORT" not in path]
ASYNC = (INSTANCE, "/1.0/containers/c1", f"{INSTANCE}/snapshots/s0")
_UNCHANGEABLE = (f"{POOL}/volumes/container/c1",)

Facts = dict[str, str]


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    """Run a daemon that has one of everything."""
    daemon = module_daemon
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    daemon.import_image("busybox", busybox_files)
    config = {"user.stage": "dev", "limits.cpu": "4000-4001"}  # CPUs that are not there: a warning
    source = {"type": "image", "alias": "busybox"}
    daemon.request("POST", "/1.0/instances", {"name": "c1", "source": source, "config": config, "start": True})
    daemon.request("POST", f"{INSTANCE}/snapshots", {"name": "s0"})
    daemon.request("POST", f"{INSTANCE}/backups", {"name": "b0"})
    image = daemon.request("GET", "/1.0/images/aliases/busybox")["target"]
    daemon.request("POST", "/1.0/images/aliases", {"name": "a/1", "target": image})
    daemon.request("POST", "/1.0/projects", {"name": "j1"})
    daemon.request("POST", "/1.0/certificates", {"type": "client", "name": "n", "certificate": own_certificate(daemon)})
    daemon.request("POST", f"{NETWORK}/forwards", {"listen_address": "192.0.2.1"})
    daemon.request("POST", f"{POOL}/volumes/custom", {"name": "v1"})
    daemon.request("POST", f"{VOLUME}/snapshots", {"name": "s0"})
    daemon.request("POST", f"{VOLUME}/backups", {"name": "b0"})
    return daemon


@pytest.fixture(scope="module")
def facts(host: Daemon) -> Facts:
    """Return what the words in capitals stand for."""
    image = host.request("GET", "/1.0/images/aliases/busybox")["target"]
    warning = host.request("GET", "/1.0/warnings")[0].rpartition("/")[2]
    certificate = host.request("GET", "/1.0/certificates")[0].rpartition("/")[2]
    found = {"IMAGE": image, "SHORT": image[:12], "WARNING": warning, "CERTIFICATE": certificate}
    return found | {"PEM": own_certificate(host)}


def own_certificate(host: Daemon) -> str:
    """Return the server's certificate, as good as any for being trusted: base64 of its DER form."""
    pem: str = host.request("GET", "/1.0")["environment"]["certificate"]
    return "".join(line for line in pem.splitlines() if "-----" not in line)


def fill(facts: Facts, text: str) -> str:
    for word, value in facts.items():
        text = text.replace(word, value)
    return text


def data(facts: Facts, body: Any) -> bytes | None:
    return body if isinstance(body, bytes) or body is None else fill(facts, json.dumps(body)).encode()


def check_envelope(answer: Answer) -> None:
    envelope = answer.json
    assert set(envelope) == KEYS
    if envelope["type"] == "error":
        assert (envelope["error_code"], envelope["status"], envelope["status_code"]) == (answer.status, "", 0)
        assert (envelope["operation"], envelope["metadata"]) == ("", None)
        assert "\n" not in envelope["error"]
    elif envelope["type"] == "sync":
        assert (envelope["status"], envelope["status_code"], envelope["operation"]) == ("Success", 200, "")
        assert answer.status == (201 if "location" in answer.headers else 200)
    else:
        assert (envelope["status"], envelope["status_code"], answer.status) == ("Operation created", 100, 202)
        assert envelope["operation"] == answer.headers["location"]
        assert set(envelope["metadata"]) == shapes.OPERATION
        assert envelope["metadata"]["status_code"] >= 103


def times(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if re.search(r"_(at|date)$", key) and isinstance(value, str):
                yield value
            yield from times(value)
    elif isinstance(data, list):
        for value in data:
            yield from times(value)


@pytest.mark.parametrize(("path", "tagged", "shape"), READ, ids=[path for path, _, _ in READ])
def test_read(host: Daemon, facts: Facts, path: str, tagged: bool, shape: Any) -> None:
    answer = ask(host, "GET", fill(facts, path))
    assert answer.status == 200, answer.body
    assert bool(re.fullmatch(r'"[0-9a-f]{64}"', answer.headers.get("etag", ""))) is tagged
    if shape is bytes:
        assert answer.type == "raw"
        return
    check_envelope(answer)
    found = answer.metadata
    for moment in times(found):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", moment)
    if isinstance(shape, type):
        assert isinstance(found, shape)
    elif isinstance(shape, frozenset):
        assert set(found) == shape
        iterated = ("devices", "config", "profiles", "used_by", "aliases", "snapshots", "backups", "addresses", "ports")
        assert all(found[key] is not None for key in iterated if key in found)
    elif shape and isinstance(shape[0], frozenset):
        assert found
        assert all(set(item) == shape[0] for item in found)
    else:
        assert found == [fill(facts, url) for url in shape]


def test_every_change(host: Daemon, facts: Facts) -> None:
    for method, path, body, status, location in CHANGE:
        answer = ask(host, method, fill(facts, path), data(facts, body))
        assert answer.status == status, (method, path, answer.body)
        check_envelope(answer)
        assert answer.headers.get("location", "").startswith(fill(facts, location)), (method, path, answer.headers)
        if answer.type == "async":
            found = ended(host, answer)
            assert found["status_code"] == 200, (method, path, found)


@pytest.mark.parametrize("path", TAGGED)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_if_match(host: Daemon, facts: Facts, method: str, path: str) -> None:
    """A tag that does not match is 412 and changes nothing; one that does is no obstacle."""
    path = fill(facts, path)
    before = ask(host, "GET", path)
    body = before.metadata if method == "PUT" or "warnings" in path else {}
    wrong = ask(host, method, path, body, {"If-Match": '"' + "0" * 64 + '"'})
    if wrong.type == "async":
        assert ended(host, wrong)["status_code"] == 412
    elif path in _UNCHANGEABLE:
        assert wrong.status in (400, 501)
        return
    else:
        assert wrong.status == 412, wrong.body
        check_envelope(wrong)
    assert ask(host, "GET", path).headers["etag"] == before.headers["etag"]
    for tag in (before.headers["etag"], before.headers["etag"].strip('"'), "W/" + before.headers["etag"]):
        right = ask(host, method, path, body, {"If-Match": tag})
        assert right.status in (200, 202), right.body
        if right.type == "async":
            assert ended(host, right)["status_code"] == 200
    assert ask(host, "GET", path).headers["etag"] == before.headers["etag"]


def test_methods_that_are_not_there_are_501(host: Daemon) -> None:
    for endpoint in endpoints():
        path = re.sub(r"\{[^}]*\}", "x", endpoint.path)
        for method in METHODS:
            if getattr(endpoint, method.lower()) is None and not (method == "HEAD" and endpoint.get):
                answer = ask(host, method, path)
                assert answer.status == 501, (method, path)
                if method != "HEAD":
                    check_envelope(answer)
                    assert answer.json["error"] == "not implemented"


@pytest.mark.parametrize(
    "path",
    ["/1.0/", "/2.0", "/1.0/nonsense", "/1.0/instances/", f"{INSTANCE}/", f"{INSTANCE}/nonsense", "/1.0//instances",
     "/1.0/instances/none", "/1.0/instances/c1%2Fsnapshots", "/1.0%2Finstances", "/1.0/images/aliases/A%2F1",
     "/1.0/profiles/none", "/1.0/operations/none", "/1.0/networks/none", "/1.0/storage-pools/none",
     f"{POOL}/volumes/custom/none", "/1.0/projects/none", "/1.0/warnings/none", "/1.0/certificates/none",
     "/1.0/profiles?project=none", "/1.0/storage-pools/default/buckets"],
)  # fmt: skip
def test_what_is_not_there_is_404(host: Daemon, path: str) -> None:
    answer = ask(host, "GET", path)
    assert answer.status == 404, answer.body
    check_envelope(answer)


@pytest.mark.parametrize("name", ["a b", "a/b", "ü", "%41", "a+b", "a?b"])
def test_segments_are_unescaped_once(host: Daemon, facts: Facts, name: str) -> None:
    """Routing looks at the raw path, so that whatever a name holds is one segment."""
    where = ask(host, "POST", "/1.0/images/aliases", {"name": name, "target": facts["IMAGE"]}).headers["location"]
    assert where == f"/1.0/images/aliases/{quote(name, safe='')}"
    assert host.request("GET", where)["name"] == name
    host.request("DELETE", where)


@pytest.mark.parametrize("body", [b"null", b"", b"{}", b'"x"'])
def test_a_body_where_none_is_wanted(host: Daemon, body: bytes) -> None:
    assert ask(host, "GET", INSTANCE, body).status == 200
    assert ask(host, "DELETE", "/1.0/profiles/none", body).status == 404


def test_whole_answers_can_be_sent_back(host: Daemon, facts: Facts) -> None:
    """Clients put what they got, with all its keys; nothing changes by that."""
    for path in (fill(facts, path) for path in TAGGED if path not in _UNCHANGEABLE):
        before = ask(host, "GET", path)
        answer = ask(host, "PUT", path, before.metadata)
        assert answer.status == (202 if path in ASYNC else 200), (path, answer.body)
        if answer.type == "async":
            assert ended(host, answer)["status_code"] == 200
        assert ask(host, "GET", path).headers["etag"] == before.headers["etag"], path


def test_lists_are_sorted(host: Daemon) -> None:
    for path in ("/1.0/profiles", "/1.0/projects", "/1.0/networks", "/1.0/images/aliases"):
        names = [item["name"] for item in host.request("GET", f"{path}?recursion=1")]
        assert names == sorted(names), path

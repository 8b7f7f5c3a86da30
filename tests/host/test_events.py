"""Every change is announced under LXD's name of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon import POOL_AND_BRIDGE, Daemon
from tests.support.wire import Listener, ask, ended, listening

INSTANCE = "/1.0/instances/c1"
VOLUME = "/1.0/storage-pools/p1/volumes/custom"
FORWARDS = "/1.0/networks/n1/forwards"
IMAGE = "/1.0/images/IMAGE"

CHANGES: list[tuple[str, str, Any, list[str]]] = [
    ("POST", "/1.0/instances", {"name": "c1", "source": {"type": "image", "alias": "busybox"}}, ["instance-created"]),
    ("PUT", f"{INSTANCE}/state", {"action": "start"}, ["instance-started"]),
    ("PUT", f"{INSTANCE}/state", {"action": "freeze"}, ["instance-paused"]),
    ("PUT", f"{INSTANCE}/state", {"action": "unfreeze"}, ["instance-resumed"]),
    ("POST", f"{INSTANCE}/exec", {"command": ["true"], "record-output": True}, ["instance-exec"]),
    ("GET", f"{INSTANCE}/logs/lxc.log", None, ["instance-log-retrieved"]),
    ("DELETE", f"{INSTANCE}/logs/EXEC", None, ["instance-log-deleted"]),
    ("GET", f"{INSTANCE}/console", None, ["instance-console-retrieved"]),
    ("DELETE", f"{INSTANCE}/console", None, ["instance-console-reset"]),
    ("POST", f"{INSTANCE}/files?path=/tmp/f", b"hello", ["instance-file-pushed"]),
    ("GET", f"{INSTANCE}/files?path=/tmp/f", None, ["instance-file-retrieved"]),
    ("HEAD", f"{INSTANCE}/files?path=/tmp/f", None, []),
    ("DELETE", f"{INSTANCE}/files?path=/tmp/f", None, ["instance-file-deleted"]),
    ("PATCH", INSTANCE, {"config": {"user.a": "b"}}, ["instance-updated"]),
    ("POST", f"{INSTANCE}/snapshots", {"name": "s0"}, ["instance-snapshot-created"]),
    ("PUT", f"{INSTANCE}/snapshots/s0", {"expires_at": "2099-01-01T00:00:00Z"}, ["instance-snapshot-updated"]),
    ("POST", f"{INSTANCE}/snapshots/s0", {"name": "s1"}, ["instance-snapshot-renamed"]),
    ("PUT", f"{INSTANCE}/state", {"action": "restart", "force": True}, ["instance-restarted"]),
    ("PUT", f"{INSTANCE}/state", {"action": "stop", "force": True}, ["instance-stopped"]),
    ("PUT", INSTANCE, {"restore": "s1"}, ["instance-restored"]),
    ("GET", f"{INSTANCE}/metadata", None, ["instance-metadata-retrieved"]),
    ("PATCH", f"{INSTANCE}/metadata", {"properties": {"a": "b"}}, ["instance-metadata-updated"]),
    ("POST", f"{INSTANCE}/metadata/templates?path=t.tpl", b"x", ["instance-metadata-template-created"]),
    ("GET", f"{INSTANCE}/metadata/templates?path=t.tpl", None, ["instance-metadata-template-retrieved"]),
    ("DELETE", f"{INSTANCE}/metadata/templates?path=t.tpl", None, ["instance-metadata-template-deleted"]),
    ("POST", f"{INSTANCE}/backups", {"name": "b0"}, ["instance-backup-created"]),
    ("GET", f"{INSTANCE}/backups/b0/export", None, ["instance-backup-retrieved"]),
    ("POST", f"{INSTANCE}/backups/b0", {"name": "b1"}, ["instance-backup-renamed"]),
    ("DELETE", f"{INSTANCE}/backups/b1", None, ["instance-backup-deleted"]),
    ("POST", "/1.0/images", {"source": {"type": "instance", "name": "c1"}}, ["image-created"]),
    ("PATCH", IMAGE, {"properties": {"a": "b"}}, ["image-updated"]),
    ("GET", f"{IMAGE}/export", None, ["image-retrieved"]),
    ("POST", "/1.0/images/aliases", {"name": "a/1", "target": "IMAGE"}, ["image-alias-created"]),
    ("PATCH", "/1.0/images/aliases/a%2F1", {"description": "x"}, ["image-alias-updated"]),
    ("POST", "/1.0/images/aliases/a%2F1", {"name": "a2"}, ["image-alias-renamed"]),
    ("DELETE", "/1.0/images/aliases/a2", None, ["image-alias-deleted"]),
    ("DELETE", IMAGE, None, ["image-deleted"]),
    ("DELETE", f"{INSTANCE}/snapshots/s1", None, ["instance-snapshot-deleted"]),
    ("POST", INSTANCE, {"name": "c2"}, ["instance-renamed"]),
    ("DELETE", "/1.0/instances/c2", None, ["instance-deleted"]),
    ("POST", "/1.0/profiles", {"name": "f1"}, ["profile-created"]),
    ("PATCH", "/1.0/profiles/f1", {"description": "x"}, ["profile-updated"]),
    ("POST", "/1.0/profiles/f1", {"name": "f2"}, ["profile-renamed"]),
    ("DELETE", "/1.0/profiles/f2", None, ["profile-deleted"]),
    ("POST", "/1.0/projects", {"name": "j1"}, ["project-created"]),
    ("PATCH", "/1.0/projects/j1", {"description": "x"}, ["project-updated"]),
    ("POST", "/1.0/profiles?project=j1", {"name": "f1"}, ["profile-created"]),
    ("DELETE", "/1.0/profiles/f1?project=j1", None, ["profile-deleted"]),
    ("POST", "/1.0/projects/j1", {"name": "j2"}, ["project-renamed"]),
    ("DELETE", "/1.0/projects/j2", None, ["project-deleted"]),
    ("POST", "/1.0/networks", {"name": "n1", "type": "bridge"}, ["network-created"]),
    ("PATCH", "/1.0/networks/n1", {"description": "x"}, ["network-updated"]),
    ("POST", FORWARDS, {"listen_address": "192.0.2.7"}, ["network-forward-created"]),
    ("PATCH", f"{FORWARDS}/192.0.2.7", {"description": "x"}, ["network-forward-updated"]),
    ("DELETE", f"{FORWARDS}/192.0.2.7", None, ["network-forward-deleted"]),
    ("POST", "/1.0/networks/n1", {"name": "n2"}, ["network-renamed"]),
    ("DELETE", "/1.0/networks/n2", None, ["network-deleted"]),
    ("POST", "/1.0/storage-pools", {"name": "p1", "driver": "dir"}, ["storage-pool-created"]),
    ("PATCH", "/1.0/storage-pools/p1", {"description": "x"}, ["storage-pool-updated"]),
    ("POST", VOLUME, {"name": "v1"}, ["storage-volume-created"]),
    ("PATCH", f"{VOLUME}/v1", {"description": "x"}, ["storage-volume-updated"]),
    ("POST", f"{VOLUME}/v1/snapshots", {"name": "s0"}, ["storage-volume-snapshot-created"]),
    ("PATCH", f"{VOLUME}/v1/snapshots/s0", {"description": "x"}, ["storage-volume-snapshot-updated"]),
    ("PUT", f"{VOLUME}/v1", {"restore": "s0"}, ["storage-volume-restored"]),
    ("POST", f"{VOLUME}/v1/snapshots/s0", {"name": "s1"}, ["storage-volume-snapshot-renamed"]),
    ("DELETE", f"{VOLUME}/v1/snapshots/s1", None, ["storage-volume-snapshot-deleted"]),
    ("POST", f"{VOLUME}/v1/backups", {"name": "b0"}, ["storage-volume-backup-created"]),
    ("GET", f"{VOLUME}/v1/backups/b0/export", None, ["storage-volume-backup-retrieved"]),
    ("POST", f"{VOLUME}/v1/backups/b0", {"name": "b1"}, ["storage-volume-backup-renamed"]),
    ("DELETE", f"{VOLUME}/v1/backups/b1", None, ["storage-volume-backup-deleted"]),
    ("POST", f"{VOLUME}/v1", {"name": "v2"}, ["storage-volume-renamed"]),
    ("DELETE", f"{VOLUME}/v2", None, ["storage-volume-deleted"]),
    ("DELETE", "/1.0/storage-pools/p1", None, ["storage-pool-deleted"]),
    ("PATCH", "/1.0", {"config": {"user.a": "b"}}, ["config-updated"]),
    ("POST", "/1.0/certificates", {"type": "client", "name": "n", "certificate": "PEM"}, ["certificate-created"]),
    ("PATCH", "/1.0/certificates/OWN", {"name": "o"}, ["certificate-updated"]),
    ("DELETE", "/1.0/certificates/OWN", None, ["certificate-deleted"]),
    ("PATCH", "/1.0/warnings/WARNING", {"status": "acknowledged"}, ["warning-acknowledged"]),
    ("PUT", "/1.0/warnings/WARNING", {"status": "new"}, ["warning-reset"]),
    ("DELETE", "/1.0/warnings/WARNING", None, ["warning-deleted"]),
]  # fmt: skip
"""One after the other: a request, and the actions that it is announced as. Words in capitals are found out."""


@pytest.fixture(scope="module")
def host(module_daemon: Daemon, busybox_files: list[str]) -> Daemon:
    module_daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_AND_BRIDGE})
    module_daemon.import_image("busybox", busybox_files)
    return module_daemon


@pytest.fixture
def listener(host: Daemon) -> Iterator[Listener]:
    with listening(host) as found:
        yield found


def found_out(host: Daemon, facts: dict[str, str], text: str) -> str:
    if "EXEC" in text:
        facts["EXEC"] = host.request("GET", f"{INSTANCE}/logs")[0].rpartition("/")[2]
    if "WARNING" in text and "WARNING" not in facts:
        facts["WARNING"] = host.request("GET", "/1.0/warnings")[0].rpartition("/")[2]
    for word, value in facts.items():
        text = text.replace(word, value)
    return text


def test_every_change_has_its_event(host: Daemon, listener: Listener) -> None:
    warn(host)
    listener.lifecycle()
    server = host.request("GET", "/1.0")["environment"]
    facts = {"PEM": "".join(server["certificate"].splitlines()[1:-1]), "OWN": server["certificate_fingerprint"]}
    for method, pattern, body, actions in CHANGES:
        path = found_out(host, facts, pattern)
        data = body if isinstance(body, bytes) or body is None else found_out(host, facts, json.dumps(body)).encode()
        answer = ask(host, method, path, data)
        assert answer.status < 400, (method, path, answer.body)
        if answer.type == "async":
            operation = ended(host, answer)
            assert operation["status_code"] == 200, (method, path, operation)
            if path == "/1.0/images":
                facts["IMAGE"] = operation["metadata"]["fingerprint"]
        events = listener.lifecycle()
        assert [event["metadata"]["action"] for event in events] == actions, (method, path, body)
        for event in events:
            check(event, "j1" if "project=j1" in path else "default")


def warn(host: Daemon) -> None:
    """Have there be a warning: an instance starts without a limit that this host does not have."""
    host.request("POST", "/1.0/instances", {"name": "w", "source": {"type": "image", "alias": "busybox"}})
    host.request("PATCH", "/1.0/instances/w", {"config": {"limits.cpu": "4000-4001"}})
    host.request("PUT", "/1.0/instances/w/state", {"action": "start"})


def check(event: dict[str, Any], project: str) -> None:
    """Hold an event against the shape that all of them have."""
    assert event["type"] == "lifecycle"
    assert event["location"] == "none"
    assert event["timestamp"].endswith("Z")
    assert event.get("project", project) == project
    metadata = event["metadata"]
    assert metadata["source"].startswith("/1.0")
    assert metadata["requestor"]["protocol"] == "unix"
    assert metadata["requestor"]["username"] == "root"
    assert ("?project=j1" in metadata["source"]) is (project == "j1")
    if metadata["action"].endswith("-renamed"):
        assert metadata["context"]["old_name"]


def test_who_cancels_is_told_of(host: Daemon, listener: Listener) -> None:
    host.request("PUT", "/1.0/instances/w/state", {"action": "stop", "force": True})
    listener.lifecycle()
    answer = ask(host, "POST", "/1.0/instances/w/wait", {"condition": "running", "timeout": -1})
    operation = answer.json["operation"]
    host.request("DELETE", operation)
    (event,) = listener.lifecycle()
    assert (event["metadata"]["action"], event["metadata"]["source"]) == ("operation-cancelled", operation)


def test_types_and_projects_are_kept_apart(host: Daemon) -> None:
    host.request("POST", "/1.0/projects", {"name": "elsewhere"})
    with listening(host, "type=operation") as here, listening(host, "project=elsewhere&type=operation") as elsewhere:
        answer = ask(host, "PUT", "/1.0/instances/w/state", {"action": "start"})
        states: list[int] = []
        while not states or states[-1] < 200:
            event = here.event()
            assert (event["type"], event["project"]) == ("operation", "default")
            if event["metadata"]["id"] in answer.json["operation"]:
                states.append(event["metadata"]["status_code"])
        assert states[-1] == 200
        with pytest.raises(TimeoutError):
            elsewhere.event(0.2)


@pytest.mark.parametrize("query", ["type=nonsense", "all-projects=true&project=default", ""])
def test_what_is_no_request_for_events(host: Daemon, query: str) -> None:
    assert ask(host, "GET", f"/1.0/events?{query}").status == 400

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest

from pylxc.services.services import Services
from tests.unit.api.conftest import Api


def test_the_server_tells_what_clients_need(api: Api) -> None:
    server = api.get("/1.0")
    assert (server["api_status"], server["api_version"], server["auth"]) == ("stable", "1.0", "trusted")
    assert server["auth_methods"] == ["tls"]
    assert server["public"] is False
    assert {"instances", "etag", "patch", "pylxc_init"} <= set(server["api_extensions"])
    environment = server["environment"]
    assert environment["server_pid"] == os.getpid()
    assert environment["kernel_architecture"] == environment["architectures"][0]
    assert environment["storage"] == ""
    assert {"Name": "dir", "Version": "1", "Remote": False} in environment["storage_supported_drivers"]
    assert environment["server_clustered"] is False


def test_the_certificate_is_made_once_and_its_key_is_private(api: Api, tmp_path: Path) -> None:
    environment = api.get("/1.0")["environment"]
    der = ssl.PEM_cert_to_DER_cert(environment["certificate"])
    assert environment["certificate_fingerprint"] == hashlib.sha256(der).hexdigest()
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert api.get("/1.0")["environment"]["certificate"] == environment["certificate"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")


def test_patch_merges_and_put_replaces(api: Api) -> None:
    assert api.request("PATCH", "/1.0", {"config": {"user.a": "1", "core.shutdown_timeout": 7}}).status == 200
    assert api.request("PATCH", "/1.0", {"config": {"user.b": True}}).status == 200
    assert api.get("/1.0")["config"] == {"user.a": "1", "user.b": "true", "core.shutdown_timeout": "7"}
    assert api.request("PATCH", "/1.0", {"config": {"user.a": ""}}).status == 200
    assert "user.a" not in api.get("/1.0")["config"]
    assert api.request("PUT", "/1.0", {"config": {"user.c": "3"}, "environment": {"junk": 1}}).status == 200
    assert api.get("/1.0")["config"] == {"user.c": "3"}


def test_a_change_is_told_with_who_made_it(api: Api, services: Services) -> None:
    listener = services.events.subscribe({"lifecycle"}, None)
    api.request("PATCH", "/1.0", {"config": {"user.a": "1"}})
    event = listener.get(5)
    assert event is not None
    assert (event["metadata"]["action"], event["metadata"]["source"]) == ("config-updated", "/1.0")
    assert event["metadata"]["context"] == {"user.a": "1"}
    assert event["metadata"]["requestor"]["protocol"] == "unix"
    assert "project" not in event
    api.request("PATCH", "/1.0", {"config": {"user.a": "1"}})
    assert listener.get(0.05) is None


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b'{"config": {"user.x": NaN}}', 400, "JSON"),
        (b"[]", 400, "the body"),
        (b"null", 400, "the body"),
        (b'{"config": []}', 400, "config"),
        (b'{"config": {"user.x": {}}}', 400, "config.user.x"),
        (b'{"config": {"user.x": 99999999999999999999999999}}', 400, "config.user.x"),
        (b'{"config": {"user.x": "a\\u0000b"}}', 400, "config.user.x"),
        (b'{"config": {"core.nonsense": "1"}}', 400, "core.nonsense"),
        (b'{"config": {"core.shutdown_timeout": "soon"}}', 400, "core.shutdown_timeout"),
        (b'{"config": {"core.https_address": ":nonsense"}}', 400, "nonsense"),
        (b'{"config": {"core.https_trusted_proxy": "10.0.0.1"}}', 501, "core.https_trusted_proxy"),
        (b'"' + b"x" * (17 * 2**20) + b'"', 400, "too large"),
        (b"\xff\xfe{}", 400, "JSON"),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(api: Api, body: bytes, status: int, named: str) -> None:
    before = api.get("/1.0")["config"]
    answer = api.request("PUT", "/1.0", body)
    assert answer.status == status, answer.body
    assert named in answer.json["error"]
    assert api.get("/1.0")["config"] == before


def test_if_match_guards_a_change(api: Api) -> None:
    tag = api.request("GET", "/1.0").headers["ETag"]
    assert tag.startswith('"')
    assert api.request("PUT", "/1.0", {"config": {"user.a": "1"}}, {"If-Match": tag}).status == 200
    answer = api.request("PUT", "/1.0", {"config": {"user.a": "2"}}, {"If-Match": tag})
    assert answer.status == 412
    assert api.get("/1.0")["config"] == {"user.a": "1"}
    bare = api.request("GET", "/1.0").headers["ETag"].strip('"')
    assert api.request("PUT", "/1.0", {"config": {}}, {"If-Match": bare}).status == 200


def test_what_is_not_there_is_empty(api: Api) -> None:
    assert api.get("/1.0/cluster") == {"server_name": "", "enabled": False, "member_config": []}
    assert api.get("/1.0/warnings?recursion=1") == []
    assert api.request("GET", "/1.0/warnings/x").status == 404


def test_the_registry_is_published(api: Api) -> None:
    assert "server" in api.get("/1.0/metadata/configuration")["configs"]


def test_resources_agree_with_the_kernel(api: Api) -> None:
    resources = api.get("/1.0/resources")
    assert set(resources) == {"cpu", "memory", "gpu", "network", "storage", "usb", "pci", "system"}
    threads = [t for s in resources["cpu"]["sockets"] for c in s["cores"] for t in c["threads"]]
    assert resources["cpu"]["total"] == len(threads) >= (os.cpu_count() or 1)
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert resources["memory"]["total"] == pages
    assert 0 < resources["memory"]["used"] < pages
    assert resources["pci"]["total"] == len(resources["pci"]["devices"])


def test_a_client_that_leaves_does_not_stop_what_it_has_begun(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()
    replace = services.server.replace

    def slow(*arguments: Any) -> None:
        begun.set()
        assert go_on.wait(10)
        replace(*arguments)
        done.set()

    monkeypatch.setattr(services.server, "replace", slow)
    body = b'{"config": {"user.a": "kept"}}'
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(api.path)
        connection.sendall(b"PUT /1.0 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert begun.wait(10)
    assert api.get("/1.0")["config"] == {}
    go_on.set()
    assert done.wait(10)
    assert api.get("/1.0")["config"] == {"user.a": "kept"}


def test_what_is_unexpected_is_logged_and_not_told(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise ZeroDivisionError("inner detail")

    monkeypatch.setattr(services.server, "get", broken)
    answer = api.request("GET", "/1.0")
    assert answer.status == 500
    assert "inner detail" not in answer.json["error"]
    assert "inner detail" in caplog.text

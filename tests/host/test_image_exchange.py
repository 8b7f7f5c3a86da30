"""Images between servers: what strangers see of them, tokens, and other servers that mean ill."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.test_images import image
from tests.support.clients import ADDRESS, Identity, TlsClient, trust
from tests.support.clock import Clock
from tests.support.daemon import ApiError, Daemon, unique
from tests.support.sources import pull, staged
from tests.support.tls import Authority
from tests.support.wait import until
from tests.support.webserver import WebServer

FAR = "198.51.100.7"
"""An address of another machine, as far as the daemon can tell."""
OTHER = "0" * 64


@pytest.fixture(scope="module")
def module_daemon(trusting_daemon: Daemon) -> Daemon:
    assert trusting_daemon.netns
    command = ["ip", "-n", trusting_daemon.netns.name, "address", "add", f"{FAR}/32", "dev", "lo"]
    subprocess.run(command, check=True)
    trusting_daemon.request("PATCH", "/1.0", {"config": {"core.https_address": ADDRESS}})
    return trusting_daemon


@pytest.fixture
def stranger(daemon: Daemon) -> TlsClient:
    return TlsClient(daemon)


@pytest.fixture
def web(tmp_path: Path, daemon: Daemon, authority: Authority) -> Iterator[WebServer]:
    (tmp_path / "web").mkdir()
    web = WebServer(tmp_path / "web", authority, daemon.netns, FAR)
    yield web
    web.close()


def imported(daemon: Daemon, *, public: bool = False, alias: str = "") -> tuple[str, bytes]:
    """Return the fingerprint of a new image, and its content."""
    content = image()
    headers = {"X-LXD-public": "true"} if public else {}
    headers |= {"X-LXD-aliases": f"alias={alias}"} if alias else {}
    answer = daemon.parse(daemon.send("POST", "/1.0/images", content, headers))
    return str(daemon.wait(answer["operation"])["fingerprint"]), content


def token(daemon: Daemon, method: str, path: str, body: Any = None) -> tuple[str, str]:
    """Ask for a token; return its secret, and the operation that it is."""
    data = None if body is None else json.dumps(body).encode()
    answer = daemon.parse(daemon.send(method, path, data))
    assert answer["metadata"]["class"] == "token"
    return answer["metadata"]["metadata"]["secret"], answer["operation"]


def expected(daemon: Daemon, fingerprint: str, **more: Any) -> str:
    """Have the daemon expect an image; return the secret by which it is sent."""
    source = {"mode": "push", "fingerprint": fingerprint}
    return token(daemon, "POST", "/1.0/images", {"source": source, **more})[0]


# What strangers see.


def test_strangers_see_public_images_only(daemon: Daemon, stranger: TlsClient) -> None:
    names = unique("public"), unique("private")
    public, content = imported(daemon, public=True, alias=names[0])
    private, _ = imported(daemon, alias=names[1])
    assert f"/1.0/images/{public}" in stranger.request("GET", "/1.0/images")
    assert private not in json.dumps(stranger.request("GET", "/1.0/images?recursion=1&filter=public%20eq%20false"))
    listed = {i["fingerprint"]: i for i in stranger.request("GET", "/1.0/images?recursion=1")}
    assert listed[public] == daemon.request("GET", f"/1.0/images/{public}")
    assert private not in listed
    assert stranger.request("GET", f"/1.0/images/{public[:12]}")["fingerprint"] == public
    assert stranger.request("GET", f"/1.0/images/aliases/{names[0]}")["target"] == public
    assert stranger.send("GET", f"/1.0/images/{public}/export") == (200, content)
    for path in (
        f"images/{private}",
        f"images/{private[:12]}",
        f"images/{private}/export",
        f"images/aliases/{names[1]}",
    ):
        nothing = path.replace(private, OTHER).replace(private[:12], OTHER[:12]).replace(names[1], "nosuch")
        assert stranger.send("GET", f"/1.0/{path}") == stranger.send("GET", f"/1.0/{nothing}")
        assert stranger.status("GET", f"/1.0/{path}") == 404
        assert stranger.status("GET", f"/1.0/{path}?secret=") == 404
    assert stranger.request("GET", "/1.0/images?project=nosuch") == []
    assert stranger.status("GET", f"/1.0/images/{public}?project=nosuch") == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/1.0/images?all-projects=true"),
        ("GET", "/1.0/images/aliases"),
        ("POST", "/1.0/images"),
        ("PUT", "/1.0/images/FP"),
        ("PATCH", "/1.0/images/FP"),
        ("DELETE", "/1.0/images/FP"),
        ("POST", "/1.0/images/FP/refresh"),
        ("POST", "/1.0/images/FP/export"),
        ("POST", "/1.0/images/FP/secret"),
        ("DELETE", "/1.0/images/aliases/x"),
        ("GET", "/1.0/pylxc/images?protocol=recipe"),
    ],
)
def test_strangers_change_nothing(daemon: Daemon, stranger: TlsClient, method: str, path: str) -> None:
    public, _ = imported(daemon, public=True)
    before = daemon.request("GET", "/1.0/images?recursion=1")
    assert stranger.status(method, path.replace("FP", public), {"public": False}) == 403
    assert daemon.request("GET", "/1.0/images?recursion=1") == before


# Tokens.


def test_a_secret_opens_one_image_once(daemon: Daemon, stranger: TlsClient) -> None:
    (first, content), (second, _) = imported(daemon), imported(daemon)
    secret, operation = token(daemon, "POST", f"/1.0/images/{first[:20]}/secret")
    assert daemon.request("GET", operation)["resources"] == {"images": [f"/1.0/images/{first}"]}
    for path in (second, f"{second}/export"):
        assert stranger.status("GET", f"/1.0/images/{path}?secret={secret}") == 404
    for _ in range(2):  # to look at it uses nothing up
        assert stranger.request("GET", f"/1.0/images/{first}?secret={secret}")["fingerprint"] == first
    assert stranger.send("GET", f"/1.0/images/{first}/export?secret={secret}") == (200, content)
    assert daemon.request("GET", operation)["status"] == "Cancelled"
    for path in (first, f"{first}/export"):
        assert stranger.status("GET", f"/1.0/images/{path}?secret={secret}") == 404
    assert secret not in daemon.logs()


def test_a_secret_is_good_for_one_of_many(daemon: Daemon, stranger: TlsClient) -> None:
    fingerprint, _ = imported(daemon)
    secret, _ = token(daemon, "POST", f"/1.0/images/{fingerprint}/secret")
    statuses: list[int] = []

    def fetch() -> None:
        statuses.append(stranger.status("GET", f"/1.0/images/{fingerprint}/export?secret={secret}"))

    threads = [threading.Thread(target=fetch) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 404, 404, 404, 404]


def test_secrets_are_revoked_and_expire(make_daemon: Callable[[], Daemon]) -> None:
    daemon = make_daemon()
    clock = Clock(daemon)
    daemon.start()
    daemon.request("PATCH", "/1.0", {"config": {"core.https_address": ADDRESS}})
    stranger = TlsClient(daemon)
    fingerprint, content = imported(daemon)
    secret, operation = token(daemon, "POST", f"/1.0/images/{fingerprint}/secret")
    daemon.request("DELETE", operation)
    assert stranger.status("GET", f"/1.0/images/{fingerprint}?secret={secret}") == 404
    secret, operation = token(daemon, "POST", f"/1.0/images/{fingerprint}/secret")
    sent = expected(daemon, OTHER)
    clock.advance(minutes=9)
    assert stranger.status("GET", f"/1.0/images/{fingerprint}?secret={secret}") == 200
    clock.advance(minutes=2)
    assert stranger.status("GET", f"/1.0/images/{fingerprint}?secret={secret}") == 404
    assert daemon.request("GET", operation)["status"] == "Cancelled"
    headers = {"X-LXD-fingerprint": OTHER, "X-LXD-secret": sent}
    assert stranger.send("POST", "/1.0/images", content, headers)[0] == 403


def test_an_image_is_sent_by_a_stranger(daemon: Daemon, stranger: TlsClient) -> None:
    """What was asked for counts, and not what the sender says."""
    content, alias = image(), unique("sent")
    fingerprint = hashlib.sha256(content).hexdigest()
    secret = expected(
        daemon,
        fingerprint,
        aliases=[{"name": alias}],
        properties={"colour": "blue"},
        expires_at="2040-01-02T03:04:05Z",
    )
    headers = {
        "X-LXD-fingerprint": fingerprint,
        "X-LXD-secret": secret,
        "X-LXD-public": "true",
        "X-LXD-properties": "colour=red",
        "X-LXD-aliases": "alias=theirs",
    }
    status, answer = stranger.send("POST", "/1.0/images", content, headers)
    assert status == 202
    begun = json.loads(answer)["metadata"]
    wait = f"/1.0/operations/{begun['id']}/wait"
    assert stranger.status("GET", wait) == 403
    assert stranger.request("GET", f"{wait}?secret={begun['metadata']['secret']}")["status_code"] == 200
    found = daemon.request("GET", f"/1.0/images/{fingerprint}")
    assert (found["public"], found["properties"]) == (False, {"colour": "blue"})
    assert [each["name"] for each in found["aliases"]] == [alias]
    assert dt.datetime.fromisoformat(found["expires_at"]).year == 2040
    assert stranger.send("POST", "/1.0/images", content, headers)[0] == 403


def test_another_image_is_not_taken(daemon: Daemon, stranger: TlsClient) -> None:
    before = daemon.request("GET", "/1.0/images")
    content = image()
    secret = expected(daemon, OTHER)
    for fingerprint, given in (
        (hashlib.sha256(content).hexdigest(), secret),
        (OTHER, "wrong"),
        (OTHER, "\xff"),
        ("", secret),
    ):
        headers = {"X-LXD-fingerprint": fingerprint, "X-LXD-secret": given}
        assert stranger.send("POST", "/1.0/images", content, headers)[0] == 403
    status, answer = stranger.send("POST", "/1.0/images", content, {"X-LXD-fingerprint": OTHER, "X-LXD-secret": secret})
    begun = json.loads(answer)["metadata"]
    wait = f"/1.0/operations/{begun['id']}/wait?secret={begun['metadata']['secret']}"
    assert status == 202
    assert "fingerprint is" in stranger.request("GET", wait)["err"]
    assert daemon.request("GET", "/1.0/images") == before
    assert not staged(daemon)


def test_what_breaks_off_leaves_nothing(daemon: Daemon, stranger: TlsClient) -> None:
    """An upload that ends too early."""
    content = image()
    secret = expected(daemon, hashlib.sha256(content).hexdigest())
    with stranger.connect() as connection:
        head = f"POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nX-LXD-secret: {secret}\r\n"
        head += f"X-LXD-fingerprint: {hashlib.sha256(content).hexdigest()}\r\n\r\n"
        connection.sendall(head.encode() + content)
        until(lambda: staged(daemon), "it begins")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: not staged(daemon), "nothing is left")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"mode": "push"}, "whole fingerprint"),
        ({"mode": "push", "fingerprint": "abcd"}, "whole fingerprint"),
        ({"mode": "push", "fingerprint": "../" * 22}, "whole fingerprint"),
        ({"mode": "push", "type": "url", "url": "https://x"}, "Unsupported|leads|Failed"),
    ],
)
def test_nothing_else_is_expected(daemon: Daemon, source: dict[str, str], text: str) -> None:
    with pytest.raises(ApiError, match=text):
        daemon.request("POST", "/1.0/images", {"source": source})


# Sending.


def sent(daemon: Daemon, fingerprint: str, web: WebServer, **more: Any) -> str:
    """Have an image sent to a server that is none of LXD's; return the operation."""
    body = {"target": web.url, "secret": "5ec3e7", **more}
    data = json.dumps(body).encode()
    return str(daemon.parse(daemon.send("POST", f"/1.0/images/{fingerprint}/export", data))["operation"])


def begun(status: int = 200) -> bytes:
    return json.dumps(
        {"metadata": {"id": "../../x", "status_code": status, "err": "no\nroom", "metadata": {}}}
    ).encode()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"status": 403}, "does not take it: 403"),
        ({"status": 500}, "does not take it: 500"),
        ({"redirect": "https://127.0.0.1:8443/"}, "does not take it: 302"),
        ({"body": b"<html>"}, "does not answer as LXD does"),
        ({"body": b'{"metadata": []}'}, "does not answer as LXD does"),
        ({"body": b'{"metadata": {"id": 1, "status_code": "x"}}'}, "does not answer as LXD does"),
        ({"body": begun(400)}, "cannot take the image: noroom"),
        ({"body": begun(103)}, "has no '/1.0/operations/"),
        ({"body": b"x" * 100_000_000}, "does not answer as LXD does"),
    ],
)
def test_hostile_targets(daemon: Daemon, web: WebServer, how: dict[str, Any], text: str) -> None:
    fingerprint, _ = imported(daemon)
    web.fault("/1.0/images", **how)
    with pytest.raises(ApiError, match=text) as refused:
        daemon.wait(sent(daemon, fingerprint, web))
    assert "\n" not in refused.value.text


def test_the_target_is_known_by_its_certificate(
    daemon: Daemon, web: WebServer, authority: Authority, tmp_path: Path
) -> None:
    fingerprint, _ = imported(daemon)
    web.fault("/1.0/images", body=begun())
    with pytest.raises(ApiError, match="cannot be trusted"):
        daemon.wait(sent(daemon, fingerprint, web, certificate=Identity(tmp_path, "another").pem))
    assert web.requests == []
    assert daemon.wait(sent(daemon, fingerprint, web, certificate=authority.pem)) is not None
    (asked,) = web.requests
    assert asked.headers["x-lxd-fingerprint"] == fingerprint
    assert asked.headers["x-lxd-secret"] == "5ec3e7"
    for body, text in (
        ({"certificate": "none"}, "Invalid certificate"),
        ({"secret": ""}, "secret of a token"),
        ({"secret": "a\r\nX-Evil: 1"}, "secret of a token"),
        ({"target": "http://198.51.100.7/"}, "https:// URLs only"),
        ({"target": "https://x/\r\n"}, "https:// URLs only"),
    ):
        with pytest.raises(ApiError, match=text):
            sent(daemon, fingerprint, web, **body)


def test_a_target_that_is_never_done(daemon: Daemon, web: WebServer) -> None:
    """It is asked at a walk, until somebody cancels."""
    fingerprint, _ = imported(daemon)
    answer = json.dumps({"metadata": {"id": "x", "status_code": 103}}).encode()
    web.fault("/1.0/*", body=answer)
    operation = sent(daemon, fingerprint, web)
    until(lambda: len(web.requests) > 2, "it is asked")
    begin, asked = time.monotonic(), len(web.requests)
    time.sleep(1)
    assert len(web.requests) - asked < 4 * (time.monotonic() - begin)
    daemon.request("DELETE", operation)
    with pytest.raises(ApiError, match="cancelled"):
        daemon.wait(operation, timeout=10)


def test_sending_is_cancelled(daemon: Daemon, web: WebServer) -> None:
    fingerprint, _ = imported(daemon)
    web.fault("/1.0/images", body=begun(), hang=0)
    operation = sent(daemon, fingerprint, web)
    until(lambda: web.requests, "it is sent")
    daemon.request("DELETE", operation)
    with pytest.raises(ApiError, match="cancelled"):
        daemon.wait(operation, timeout=10)


# Where the daemon goes.


def test_nothing_leads_to_this_hosts_own_services(
    daemon: Daemon, web: WebServer, tmp_path: Path, authority: Authority
) -> None:
    """By no redirect, no other spelling, and no URL that a server tells."""
    (tmp_path / "own").mkdir()
    own = WebServer(tmp_path / "own", authority, daemon.netns)
    port = own.url.rpartition(":")[2]
    try:
        web.fault("/1.0/*", redirect=f"{own.url}/1.0/x")
        web.headers["/url"] = {"LXD-Image-Hash": OTHER, "LXD-Image-URL": f"{own.url}/secret"}
        source = {"type": "image", "protocol": "lxd", "server": web.url, "fingerprint": "abcd"}
        with pytest.raises(ApiError, match=r"leads to 127\.0\.0\.1, which is this host's own"):
            pull(daemon, source)
        with pytest.raises(ApiError, match=r"leads to 127\.0\.0\.1, which is this host's own"):
            pull(daemon, {"type": "url", "url": f"{web.url}/url"})
        for host in ("127.1", "0x7f.1", "2130706433"):
            with pytest.raises(ApiError, match="one of this host's own address"):
                pull(daemon, {**source, "server": f"https://{host}:{port}"})
        assert own.requests == []
        with pytest.raises(ApiError, match="has no public image"):
            pull(daemon, {**source, "server": own.url})
        assert own.requests  # who may do all that root may says so
    finally:
        own.close()


def test_restricted_clients(daemon: Daemon, web: WebServer, tmp_path: Path) -> None:
    """They have images of their projects sent and fetched, and never name this host's own addresses."""
    for name, features in (("own", "false"), ("other", "true")):
        config = {"features.images": features, "features.profiles": "false"}
        daemon.request("POST", "/1.0/projects", {"name": name, "config": config})
    identity = Identity(tmp_path, unique("who"))
    trust(daemon, identity, restricted=True, projects=["own"])
    client = TlsClient(daemon, identity)
    fingerprint, _ = imported(daemon)
    web.fault("/1.0/images", body=begun())
    export, secret = f"/1.0/images/{fingerprint}/export", f"/1.0/images/{fingerprint}/secret"
    body = {"target": web.url, "secret": "5ec3e7", "project": "theirs"}
    assert client.run("POST", f"{export}?project=own", body)["status_code"] == 200
    assert client.status("POST", f"{secret}?project=own") == 202
    there = {"type": "image", "protocol": "lxd", "server": web.url, "fingerprint": "abcd", "project": "theirs"}
    near = [
        f"https://{host}:1"
        for host in ("127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "[::ffff:127.0.0.1]")
    ]
    for path, denied in (
        (f"{export}?project=other", body),
        (f"{secret}?project=other", None),
        *((f"{export}?project=own", {**body, "target": url}) for url in near),
        *(("/1.0/instances?project=own", {"name": "x", "source": {**there, "server": url}}) for url in near),
        ("/1.0/instances?project=own", {"name": "x", "project": "other", "source": there}),
        ("/1.0/instances?project=own", {"name": "x", "source": {**there, "type": "copy", "source": "y"}}),
        ("/1.0/storage-pools/default/volumes?project=own", {"name": "x", "source": {**there, "name": "y"}}),
    ):
        assert client.status("POST", path, denied) == 403, (path, denied)
    assert client.status("POST", "/1.0/instances?project=own", {"name": "x", "source": there}) == 202

"""Images from LXD 5.0.2 itself, over TLS; and from URLs."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from bench.lxd import Lxd
from tests.host.test_images import image
from tests.support.daemon import ApiError, Daemon, unique
from tests.support.namespace import NetworkNamespace
from tests.support.sources import pull
from tests.support.tls import Authority
from tests.support.webserver import WebServer

ADDRESS = "203.0.113.1"


def connect(server: NetworkNamespace, client: NetworkNamespace) -> None:
    """Lay a cable between two namespaces."""
    ip = ["ip", "-n", server.name]
    peer = ["peer", "name", "tolxd", "netns", client.name]
    subprocess.run([*ip, "link", "add", "topylxc", "type", "veth", *peer], check=True)
    for namespace, link, address in ((server, "topylxc", f"{ADDRESS}/24"), (client, "tolxd", "203.0.113.2/24")):
        subprocess.run(["ip", "-n", namespace.name, "address", "add", address, "dev", link], check=True)
        subprocess.run(["ip", "-n", namespace.name, "link", "set", link, "up"], check=True)


@pytest.fixture(scope="module")
def module_daemon(trusting_daemon: Daemon) -> Daemon:
    return trusting_daemon


@pytest.fixture(scope="module")
def lxd(module_daemon: Daemon, need: Any) -> Iterator[Lxd]:
    """LXD with a listener that the daemon reaches."""
    need("lxd", "lxc")
    assert module_daemon.netns
    lxd = Lxd()
    try:
        connect(lxd.netns, module_daemon.netns)
        lxd.run("config", "set", "core.https_address", f"{ADDRESS}:8443")
        yield lxd
    finally:
        lxd.close()


def source(lxd: Lxd, **more: str) -> dict[str, str]:
    certificate = Path(f"{lxd.dir}/server.crt").read_text()
    server = f"https://{ADDRESS}:8443"
    return {"type": "image", "mode": "pull", "server": server, "protocol": "lxd", "certificate": certificate, **more}


@pytest.fixture(scope="module")
def split(lxd: Lxd, busybox_files: list[str]) -> str:
    """Return the fingerprint of a public split image, which LXD calls bb/one."""
    lxd.run("image", "import", *busybox_files, "--alias", "bb/one", "--public")
    fingerprint: str = json.loads(lxd.run("image", "list", "bb/one", "--format", "json"))[0]["fingerprint"]
    return fingerprint


def test_split(daemon: Daemon, lxd: Lxd, split: str, name: str) -> None:
    """By alias for an instance, which keeps the source."""
    body = {"name": name, "source": source(lxd, alias="bb/one"), "start": True}
    daemon.request("POST", "/1.0/instances", body)
    assert daemon.instances()[name] == "Running"
    kept = daemon.request("GET", f"/1.0/images/{split}")
    theirs = json.loads(lxd.run("image", "list", split, "--format", "json"))[0]
    assert kept["cached"] is True
    assert kept["properties"] == theirs["properties"]
    assert kept["created_at"] == theirs["created_at"]
    assert kept["update_source"]["alias"] == "bb/one"
    assert kept["update_source"]["server"] == f"https://{ADDRESS}:8443"
    assert daemon.request("POST", f"/1.0/images/{split}/refresh") == {"refreshed": False, "fingerprint": split}
    daemon.delete_all()


def test_unified(daemon: Daemon, lxd: Lxd, tmp_path: Path) -> None:
    content = image()
    (tmp_path / "unified.tar.gz").write_bytes(content)
    lxd.run("image", "import", str(tmp_path / "unified.tar.gz"), "--public")
    fingerprint = hashlib.sha256(content).hexdigest()
    assert pull(daemon, source(lxd, fingerprint=fingerprint[:16])) == fingerprint
    assert "update_source" not in daemon.request("GET", f"/1.0/images/{fingerprint}")
    daemon.command("image", "export", fingerprint, str(tmp_path / "out"))
    assert (tmp_path / "out.tar.gz").read_bytes() == content


def test_listing(daemon: Daemon, lxd: Lxd, split: str) -> None:
    place = {key: value for key, value in source(lxd).items() if key in ("protocol", "server", "certificate")}
    found = {i["fingerprint"]: i for i in daemon.request("GET", f"/1.0/pylxc/images?{urlencode(place)}")}
    assert found[split]["aliases"] == [{"name": "bb/one", "description": ""}]
    (one,) = daemon.request("GET", f"/1.0/pylxc/images?{urlencode({**place, 'alias': 'bb/one'})}")
    assert one == found[split]


def test_private(daemon: Daemon, lxd: Lxd, tmp_path: Path) -> None:
    """Not there for strangers, unless they have the secret."""
    content = image()
    (tmp_path / "private.tar.gz").write_bytes(content)
    lxd.run("image", "import", str(tmp_path / "private.tar.gz"))
    fingerprint = hashlib.sha256(content).hexdigest()
    with pytest.raises(ApiError, match=f"{ADDRESS}:8443 has no public image"):
        pull(daemon, source(lxd, fingerprint=fingerprint))
    # The client of LXD shows no secret; the API gives one, to be used within moments.
    operation = json.loads(lxd.run("query", "-X", "POST", "--raw", f"/1.0/images/{fingerprint}/secret"))
    secret = operation["metadata"]["metadata"]["secret"]
    assert pull(daemon, source(lxd, fingerprint=fingerprint, secret=secret)) == fingerprint
    assert secret not in json.dumps(daemon.request("GET", f"/1.0/images/{fingerprint}"))


def test_refused(daemon: Daemon, lxd: Lxd, split: str) -> None:
    with pytest.raises(ApiError, match="has no public image 'nosuch'"):
        pull(daemon, source(lxd, alias="nosuch"))
    with pytest.raises(ApiError, match=r"cannot be trusted: .*self-signed certificate"):
        pull(daemon, source(lxd, alias="bb/one", certificate=""))
    with pytest.raises(ApiError, match="by its alias or fingerprint"):
        pull(daemon, source(lxd))
    with pytest.raises(ApiError, match="Failed reaching"):
        pull(daemon, source(lxd, alias="bb/one", server=f"https://{ADDRESS}:1"))


# An LXD that is none: what a web server says in its place.


@pytest.fixture
def web(tmp_path: Path, daemon: Daemon, authority: Authority) -> Iterator[WebServer]:
    (tmp_path / "web").mkdir()
    web = WebServer(tmp_path / "web", authority, daemon.netns)
    yield web
    web.close()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>", "does not answer as LXD does"),
        (b"[]", "does not answer as LXD does"),
        (b'{"metadata": {"type": "container", "fingerprint": "../../etc"}}', "makes no sense"),
        (b'{"metadata": {"type": "virtual-machine"}}', "is none of a container"),
    ],
)
def test_no_lxd(daemon: Daemon, web: WebServer, body: bytes, text: str) -> None:
    web.fault("/1.0/images/abcd", body=body)
    with pytest.raises(ApiError, match=text) as refused:
        pull(daemon, {"type": "image", "protocol": "lxd", "server": web.url, "fingerprint": "abcd"})
    assert "\n" not in refused.value.text


def described(fingerprint: str, size: int) -> bytes:
    image = {
        "type": "container", "architecture": "x86_64", "properties": {}, "filename": "x", "fingerprint": fingerprint,
        "size": size, "created_at": "2024-01-01T00:00:00Z", "expires_at": "1970-01-01T00:00:00Z",
        "uploaded_at": "2024-01-01T00:00:00Z",
    }  # fmt: skip
    return json.dumps({"type": "sync", "metadata": image}).encode()


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"corrupt": True}, "damaged or forged"),
        ({"body": b"x" * 100_000}, "is longer than the"),
        ({"status": 500}, "answers 500"),
        ({"cut": 100, "times": 2}, ""),
    ],
)
def test_broken_export(daemon: Daemon, web: WebServer, how: dict[str, Any], text: str) -> None:
    content = image()
    fingerprint = hashlib.sha256(content).hexdigest()
    export = web.root / "1.0/images" / fingerprint / "export"
    export.parent.mkdir(parents=True)
    export.write_bytes(content)
    web.fault(f"/1.0/images/{fingerprint}", body=described(fingerprint, len(content)))
    web.fault("*/export", **how)
    source = {"type": "image", "protocol": "lxd", "server": web.url, "fingerprint": fingerprint}
    if not text:
        assert pull(daemon, source) == fingerprint
        assert daemon.request("GET", f"/1.0/images/{fingerprint}")["expires_at"] == "1970-01-01T00:00:00Z"
        return
    with pytest.raises(ApiError, match=text):
        pull(daemon, source)
    with pytest.raises(ApiError, match="not found"):
        daemon.request("GET", f"/1.0/images/{fingerprint}")


# Source type `url`.


def test_url(daemon: Daemon, web: WebServer) -> None:
    """The web server tells fingerprint and place, and is told what it is asked for."""
    content = image()
    fingerprint = hashlib.sha256(content).hexdigest()
    (web.root / "file.tar.gz").write_bytes(content)
    web.headers["/latest"] = {"LXD-Image-Hash": fingerprint, "LXD-Image-URL": "file.tar.gz"}
    alias = unique("url")
    source = {"type": "url", "url": f"{web.url}/latest"}
    assert pull(daemon, source, aliases=[{"name": alias}], properties={"mine": "1"}) == fingerprint
    kept = daemon.request("GET", f"/1.0/images/{fingerprint}")
    assert kept["properties"] == {"mine": "1"}
    assert [one["name"] for one in kept["aliases"]] == [alias]
    assert "update_source" not in kept
    first = web.requests[0]
    assert (first.method, first.path) == ("HEAD", "/latest")
    assert first.headers["lxd-server-architectures"] == "x86_64, i686"
    assert first.headers["lxd-server-version"] == "5.0.2"


def test_bad_url(daemon: Daemon, web: WebServer) -> None:
    web.headers["/nothing"] = {}
    (web.root / "file").write_bytes(image())
    web.headers["/wrong"] = {"LXD-Image-Hash": "0" * 64, "LXD-Image-URL": "/file"}
    for path, text in (
        ("/nothing", "leads to no image"),
        ("/wrong", "damaged or forged"),
        ("/missing", "has no '/missing'"),
    ):
        with pytest.raises(ApiError, match=text):
            pull(daemon, {"type": "url", "url": web.url + path})
    with pytest.raises(ApiError, match="https:// URLs only"):
        pull(daemon, {"type": "url", "url": "http://127.0.0.1/"})


def test_by_the_command_as_a_remote(daemon: Daemon, lxd: Lxd, split: str, name: str) -> None:
    """Known by the certificate that was accepted; its images are listed, launched and copied."""
    daemon.command("remote", "add", "site", ADDRESS, "--public", "--accept-certificate")
    assert Path(f"{daemon.dir}/client/servercerts/site.crt").read_text() == Path(f"{lxd.dir}/server.crt").read_text()
    assert f"bb/one,{split[:12]},yes," in daemon.command("image", "list", "site:bb", "--format", "csv").stdout
    assert f"Fingerprint: {split}" in daemon.command("image", "info", "site:bb/one").stdout
    daemon.command("launch", "site:bb/one", name)
    assert daemon.command("config", "get", name, "volatile.base_image").stdout == f"{split}\n"
    daemon.command("init", f"site:{split[:12]}", f"{name}b")
    alias = unique("kept")
    daemon.command("image", "copy", "site:bb/one", "local:", "--alias", alias)
    assert f"Fingerprint: {split}" in daemon.command("image", "info", alias).stdout
    refused = daemon.command("image", "info", "site:nope", check=False)
    assert (refused.returncode, "has no public image 'nope'" in refused.stderr) == (1, True)
    daemon.delete_all()

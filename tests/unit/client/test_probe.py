from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from pylxc.client.probe import probe
from pylxc.errors import BadRequest, Unavailable
from tests.support.tls import Authority
from tests.support.webserver import WebServer


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[WebServer]:
    """A server that answers GET /1.0 as LXD does to callers that it does not know."""
    (tmp_path / "tree").mkdir()
    answer = {"type": "sync", "metadata": {"api_version": "1.0", "public": True, "auth": "untrusted"}}
    (tmp_path / "tree/1.0").write_text(json.dumps(answer))
    server = WebServer(tmp_path / "tree", authority, None)
    yield server
    server.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_nobody_has_signed_for_is_known_by_its_certificate(
    server: WebServer, authority: Authority
) -> None:
    found = probe(server.url)
    assert not found.trusted
    assert found.certificate.split() == authority.pem.split()
    assert found.fingerprint == hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority.pem)).hexdigest()


def test_a_server_that_the_host_trusts(
    server: WebServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    assert probe(server.url).trusted


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"metadata": null}', b"\xff", b"{"])
def test_what_is_no_server_of_lxds(server: WebServer, body: bytes) -> None:
    server.fault("/1.0", body=body)
    with pytest.raises(Unavailable, match="is no server of LXD's protocol"):
        probe(server.url)


def test_servers_that_do_not_answer() -> None:
    with pytest.raises(Unavailable, match=r"https://127.0.0.1:1 does not answer: Connection refused"):
        probe("https://127.0.0.1:1")
    with pytest.raises(BadRequest, match="Invalid URL"):
        probe("https://[x")

"""pylxd from another host: by password, then everything that it does on the socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import ADDRESS, Identity
from tests.support.daemon import POOL_ONLY, Daemon, unique

pytestmark = pytest.mark.filterwarnings("ignore")  # pylxd and ws4py use what Python has deprecated


@pytest.fixture
def client(
    module_daemon: Daemon, busybox_files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Return pylxd's client of a server that does not know it."""
    import pylxd

    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # requests prefers these to what it is told
        monkeypatch.delenv(name, raising=False)
    module_daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))
    module_daemon.import_image("busybox", busybox_files)
    module_daemon.request("PATCH", "/1.0", {"config": {"core.https_address": ADDRESS, "core.trust_password": "sesame"}})
    identity = Identity(tmp_path, "pylxd")
    assert module_daemon.netns
    with module_daemon.netns.entered():
        pair = (identity.certificate_file, identity.key_file)
        certificate = f"{module_daemon.dir}/server.crt"
        yield pylxd.Client(endpoint=f"https://{ADDRESS}", cert=pair, verify=certificate)


def test_daily_work(client: Any) -> None:
    assert not client.trusted
    client.authenticate("sesame")
    assert client.trusted
    (certificate,) = client.certificates.all()
    name = unique("p")
    source = {"type": "image", "alias": "busybox"}
    instance = client.instances.create({"name": name, "source": source}, wait=True)
    instance.start(wait=True)
    try:
        ran = instance.execute(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (ran.exit_code, ran.stdout, ran.stderr) == (3, "out\n", "err\n")
        instance.files.put("/root/file", b"x" * 200_000)
        assert instance.files.get("/root/file") == b"x" * 200_000
    finally:
        instance.stop(force=True, wait=True)
        instance.delete(wait=True)
    certificate.delete()
    client.host_info = client.api.get().json()["metadata"]
    assert not client.trusted

"""Images through the daemon: import, export, aliases, and recipes built by mmdebstrap."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, unique
from tests.support.tls import Authority
from tests.support.webserver import WebServer


def image(tag: str | None = None, *, architecture: str = "x86_64", metadata: str | None = None) -> bytes:
    """Return a small unified image that no other call has returned."""
    text = metadata if metadata is not None else f"architecture: {architecture}\ncreation_date: 1700000000\n"
    text += f"# {tag or unique('image')}\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("metadata.yaml")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
        directory = tarfile.TarInfo("rootfs/etc")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(directory)
    return buffer.getvalue()


def curl(daemon: Daemon, path: str, *options: str, data: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    """Send a request with curl, an unrelated client; return status, headers (lower case) and body."""
    command = ["curl", "--silent", "--include", "--unix-socket", f"{daemon.dir}/unix.socket", f"http://pylxc{path}"]
    command += ["--header", "Expect:"]
    if data is not None:
        command += ["--data-binary", "@-", "--header", "Content-Type:"]
    done = subprocess.run([*command, *options], input=data, capture_output=True, check=True, timeout=60)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body


def upload(daemon: Daemon, content: bytes, *headers: str) -> dict[str, Any]:
    """Upload a unified image and return the finished operation's metadata."""
    options = [word for header in headers for word in ("--header", header)]
    status, _, body = curl(daemon, "/1.0/images", *options, data=content)
    answer = json.loads(body)
    if status != 202:
        raise ApiError(status, answer["error"])
    done = daemon.request("GET", f"{answer['operation']}/wait")
    if done["status_code"] != 200:
        raise ApiError(done["status_code"], done["err"])
    metadata: dict[str, Any] = done["metadata"]
    return metadata


def upload_split(daemon: Daemon, metadata: bytes, rootfs: bytes, tmp_path: Path) -> dict[str, Any]:
    """Upload a split image as curl's multipart form and return the finished operation's metadata."""
    (tmp_path / "meta").write_bytes(metadata)
    (tmp_path / "root").write_bytes(rootfs)
    parts = ["--form", f"metadata=@{tmp_path}/meta", "--form", f"rootfs=@{tmp_path}/root"]
    _, _, body = curl(daemon, "/1.0/images", *parts)
    done = daemon.request("GET", f"{json.loads(body)['operation']}/wait")
    assert done["status_code"] == 200, done["err"]
    result: dict[str, Any] = done["metadata"]
    return result


def staged(daemon: Daemon) -> list[str]:
    """Return what lies in the store and belongs to no image."""
    return [name for name in os.listdir(f"{daemon.dir}/images") if name.startswith(".")]


def test_unified_upload_and_export(daemon: Daemon) -> None:
    """The way pylxd and plain curl do it: raw bytes, no content type."""
    content = image()
    result = upload(
        daemon, content, "X-LXD-Public: 1", "X-LXD-Filename: my.tar.gz", "X-LXD-Properties: os=Test&release=a%26b"
    )
    fingerprint = hashlib.sha256(content).hexdigest()
    assert result == {"fingerprint": fingerprint, "size": str(len(content))}
    found = daemon.request("GET", f"/1.0/images/{fingerprint[:12]}")
    assert found["fingerprint"] == fingerprint
    assert found["size"] == len(content)
    assert found["public"] is True
    assert found["filename"] == "my.tar.gz"
    assert found["properties"] == {"os": "Test", "release": "a&b"}
    assert found["architecture"] == "x86_64"
    assert found["created_at"] == "2023-11-14T22:13:20Z"
    assert found["cached"] is False
    status, headers, body = curl(daemon, f"/1.0/images/{fingerprint}/export")
    assert status == 200
    assert headers["content-disposition"] == 'inline;filename="my.tar.gz"'
    assert body == content


def test_split_upload_and_export(daemon: Daemon, tmp_path: Path, busybox_files: list[str]) -> None:
    meta, rootfs = sorted(busybox_files, key=lambda path: "meta" not in os.path.basename(path))
    content = [Path(meta).read_bytes(), Path(rootfs).read_bytes()]
    fingerprint = hashlib.sha256(b"".join(content)).hexdigest()
    if fingerprint not in str(daemon.request("GET", "/1.0/images")):
        assert upload_split(daemon, content[0], content[1], tmp_path)["fingerprint"] == fingerprint
    name = unique("split")
    daemon.request("POST", "/1.0/images/aliases", {"name": name, "target": fingerprint})
    (tmp_path / "out").mkdir()
    daemon.lxc("image", "export", name, str(tmp_path / "out"))
    exported = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert exported == {f"meta-{fingerprint}.tar.xz": content[0], f"{fingerprint}.squashfs": content[1]}


def test_parts_in_the_wrong_order(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    parts = ["--form", f"rootfs=@{tmp_path}/x", "--form", f"metadata=@{tmp_path}/x"]
    status, _, body = curl(daemon, "/1.0/images", *parts)
    assert (status, "expected the part 'metadata'" in json.loads(body)["error"]) == (400, True)
    assert not staged(daemon)


def test_virtual_machine_is_refused(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    parts = ["--form", f"metadata=@{tmp_path}/x", "--form", f"rootfs.img=@{tmp_path}/x"]
    assert curl(daemon, "/1.0/images", *parts)[0] == 400
    assert not staged(daemon)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"rubbish", "unknown archive format"),
        (b"{broken json", "unknown archive format"),
        (image(metadata="- a list\n"), "no map"),
        (image(metadata="architecture: x86_64\n"), "creation_date"),
        (image(metadata="architecture: pdp11\ncreation_date: 1\n"), "unknown architecture 'pdp11'"),
        (image(architecture="s390x"), "The image is for s390x, and this host runs"),
        (image(metadata="{unbalanced: [\n"), "no YAML"),
    ],
)
def test_bad_upload(daemon: Daemon, content: bytes, text: str) -> None:
    before = daemon.request("GET", "/1.0/images")
    with pytest.raises(ApiError, match=text) as refused:
        upload(daemon, content)
    assert "\n" not in refused.value.text
    assert daemon.request("GET", "/1.0/images") == before
    assert not staged(daemon)


def test_empty_upload(daemon: Daemon) -> None:
    assert curl(daemon, "/1.0/images", "--request", "POST")[0] == 400


def test_wrong_fingerprint(daemon: Daemon) -> None:
    with pytest.raises(ApiError, match="fingerprint"):
        upload(daemon, image(), f"X-LXD-Fingerprint: {'0' * 64}")


def test_client_that_goes_away(daemon: Daemon) -> None:
    """An upload that breaks off leaves nothing."""
    before = daemon.request("GET", "/1.0/images")
    with daemon_socket(daemon) as connection:
        connection.sendall(b"POST /1.0/images HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 100_000)
        wait_until(lambda: bool(staged(daemon)))
    wait_until(lambda: not staged(daemon))
    assert daemon.request("GET", "/1.0/images") == before


def test_duplicate(daemon: Daemon) -> None:
    content = image()
    upload(daemon, content)
    with pytest.raises(ApiError, match="Image with same fingerprint already exists"):
        upload(daemon, content)


def test_put_patch_etag(daemon: Daemon) -> None:
    fingerprint = upload(daemon, image(), "X-LXD-Properties: a=1&b=2")["fingerprint"]
    url = f"/1.0/images/{fingerprint}"
    tag = curl(daemon, url)[1]["etag"]
    daemon.request("PATCH", url, {"properties": {"b": "3"}})
    assert daemon.request("GET", url)["properties"] == {"a": "1", "b": "3"}
    body = json.dumps({"public": True, "properties": {"c": "4"}}).encode()
    assert curl(daemon, url, "--request", "PUT", "--header", f"If-Match: {tag}", data=body)[0] == 412
    assert curl(daemon, url, "--request", "PUT", data=body)[0] == 200
    found = daemon.request("GET", url)
    assert (found["public"], found["properties"]) == (True, {"c": "4"})


def test_delete(daemon: Daemon) -> None:
    fingerprint = upload(daemon, image())["fingerprint"]
    name = unique("alias")
    daemon.request("POST", "/1.0/images/aliases", {"name": name, "target": fingerprint})
    daemon.request("DELETE", f"/1.0/images/{fingerprint[:20]}")
    assert not os.path.exists(f"{daemon.dir}/images/{fingerprint}")
    for url in (f"/1.0/images/{fingerprint}", f"/1.0/images/aliases/{name}"):
        with pytest.raises(ApiError) as gone:
            daemon.request("GET", url)
        assert gone.value.status == 404


def test_ambiguous_prefix(daemon: Daemon) -> None:
    prints = [upload(daemon, image())["fingerprint"] for _ in range(17)]  # two of them begin alike: 16 digits
    first = [fingerprint[0] for fingerprint in prints]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(ApiError, match="more than one") as refused:
        daemon.request("GET", f"/1.0/images/{twice}")
    assert refused.value.status == 400


def test_aliases(daemon: Daemon) -> None:
    fingerprint = upload(daemon, image())["fingerprint"]
    name = f"{unique('debian')}/12/cloud"
    status, headers, _ = curl(
        daemon, "/1.0/images/aliases", data=json.dumps({"name": name, "target": fingerprint}).encode()
    )
    quoted = f"/1.0/images/aliases/{name.replace('/', '%2F')}"
    assert (status, headers["location"]) == (201, quoted)
    for url in (quoted, f"/1.0/images/aliases/{name}"):
        assert daemon.request("GET", url) == {
            "name": name,
            "description": "",
            "target": fingerprint,
            "type": "container",
        }
    with pytest.raises(ApiError, match="already exists") as refused:
        daemon.request("POST", "/1.0/images/aliases", {"name": name, "target": fingerprint})
    assert refused.value.status == 409
    daemon.request("PATCH", quoted, {"description": "hello"})
    daemon.request("POST", quoted, {"name": f"{name}/renamed"})
    assert daemon.request("GET", f"{quoted}%2Frenamed")["description"] == "hello"
    assert f"{quoted}%2Frenamed" in daemon.request("GET", "/1.0/images/aliases")
    daemon.request("DELETE", f"{quoted}%2Frenamed")
    with pytest.raises(ApiError, match="not found"):
        daemon.request("GET", f"{quoted}%2Frenamed")


def test_filter(daemon: Daemon) -> None:
    tag = unique("os")
    fingerprint = upload(daemon, image(), f"X-LXD-Properties: os={tag}")["fingerprint"]
    assert daemon.request("GET", f"/1.0/images?filter=properties.os%20eq%20{tag}") == [f"/1.0/images/{fingerprint}"]


def test_sweep_after_a_crash(make_daemon: Any) -> None:
    """Files without a row, rows without a file and half uploads are put right when the daemon comes back."""
    daemon: Daemon = make_daemon()
    daemon.start()
    lost, kept = (upload(daemon, image())["fingerprint"] for _ in range(2))
    daemon.signal(signal.SIGKILL)
    os.unlink(f"{daemon.dir}/images/{lost}")
    Path(f"{daemon.dir}/images/{'f' * 64}").touch()
    Path(f"{daemon.dir}/images/{kept}.rootfs.staging").touch()
    os.mkdir(f"{daemon.dir}/images/.staging-dead")
    daemon.start()
    assert daemon.request("GET", "/1.0/images") == [f"/1.0/images/{kept}"]
    assert sorted(os.listdir(f"{daemon.dir}/images")) == [kept, f"{kept}.rootfs.staging"]


# Recipes.


@pytest.fixture(scope="module")
def builder(need: Any) -> Iterator[Daemon]:
    """A daemon that reaches the package mirror."""
    need("mmdebstrap", "mksquashfs")
    daemon = Daemon(host_network=True)
    daemon.start()
    daemon.command("admin", "init", "--preseed", input=json.dumps(POOL_ONLY))  # no network of ours on this host
    yield daemon
    assert not daemon.close()


def recipe_source(alias: str) -> dict[str, str]:
    return {"type": "image", "mode": "pull", "protocol": "recipe", "alias": alias}


def test_recipe_is_built_once(builder: Daemon) -> None:
    first = builder.request("POST", "/1.0/images", {"source": recipe_source("busybox")}, timeout=300)
    built = builder.request("GET", f"/1.0/images/{first['fingerprint']}")
    assert built["properties"]["os"] == "Busybox"
    assert built["properties"]["architecture"] == "amd64"
    assert built["update_source"]["protocol"] == "recipe"
    begin = time.monotonic()
    again = builder.request("POST", "/1.0/images", {"source": recipe_source("busybox")})
    assert again["fingerprint"] == first["fingerprint"]
    assert time.monotonic() - begin < 2
    assert not staged(builder)


def test_refresh_builds_anew(builder: Daemon) -> None:
    name = unique("fresh")
    body = {"source": recipe_source("busybox"), "aliases": [{"name": name}]}
    old = builder.request("POST", "/1.0/images", body, timeout=300)["fingerprint"]
    result = builder.request("POST", f"/1.0/images/{old}/refresh", timeout=300)
    assert result["refreshed"] is True
    assert builder.request("GET", f"/1.0/images/aliases/{name}")["target"] == result["fingerprint"]
    with pytest.raises(ApiError, match="not found"):
        builder.request("GET", f"/1.0/images/{old}")


def own_recipe(daemon: Daemon, name: str, text: str) -> None:
    os.makedirs(f"{daemon.dir}/recipes", exist_ok=True)
    Path(f"{daemon.dir}/recipes/{name}.yaml").write_text(text)


def test_own_recipe(builder: Daemon, tmp_path: Path) -> None:
    name = unique("own")
    own_recipe(
        builder, name, f"extends: busybox\ndescription: Mine\naliases: [{name}/1]\nfiles: {{/etc/mine: hello}}\n"
    )
    offers = builder.request("GET", "/1.0/pylxc/images?protocol=recipe")
    assert [{"name": f"{name}/1", "description": ""}] in [offer["aliases"] for offer in offers]
    built = builder.request("POST", "/1.0/images", {"source": recipe_source(f"{name}/1")}, timeout=300)
    rootfs = f"{builder.dir}/images/{built['fingerprint']}.rootfs"
    command = ["unsquashfs", "-cat", rootfs, "etc/mine"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hello"


def test_recipe_that_fails(builder: Daemon) -> None:
    name = unique("bad")
    own_recipe(builder, name, f"extends: busybox\naliases: [{name}]\ncommands: [/bin/busybox false-command]\n")
    with pytest.raises(ApiError, match=r"Failed building the recipe .*false-command: applet not found"):
        builder.request("POST", "/1.0/images", {"source": recipe_source(name)}, timeout=300)
    assert not staged(builder)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[WebServer]:
    """A web server over TLS; clients that SSL_CERT_FILE is set for trust it."""
    (tmp_path / "served").mkdir()
    server = WebServer(tmp_path / "served", Authority(tmp_path), None)
    yield server
    server.close()


def test_image_build(builder: Daemon, tmp_path: Path, web: WebServer) -> None:
    """By a recipe from a file, stdin or the web, which refresh builds again."""
    name = unique("web")
    text = "extends: busybox\nfiles: {/etc/mine: hello}\nproperties: {owner: me}\n"
    (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "served" / f"{name}.yaml").write_text(text)

    def build(place: str, *options: str, **more: Any) -> str:
        out: str = builder.command("image", "build", place, *options, timeout=300, **more).stdout
        return out.rpartition("Image built with fingerprint: ")[2].strip()

    built = build(str(tmp_path / f"{name}.yaml"))
    assert builder.request("GET", f"/1.0/images/aliases/{name}")["target"] == built
    image = builder.request("GET", f"/1.0/images/{built}")
    assert (image["properties"]["owner"], image["cached"]) == ("me", False)
    assert "recipe" not in image["update_source"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(builder.env, "SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert build(f"{web.url}/{name}.yaml", "--alias", f"{name}/2") == built
    assert builder.request("GET", f"/1.0/images/aliases/{name}/2")["target"] == built
    refreshed = builder.request("POST", f"/1.0/images/{built}/refresh", timeout=300)
    assert refreshed["refreshed"] is True
    rootfs = f"{builder.dir}/images/{refreshed['fingerprint']}.rootfs"
    command = ["unsquashfs", "-cat", rootfs, "etc/mine"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hello"
    source = {**recipe_source(name), "recipe": text}
    with pytest.raises(ApiError, match="No recipe is called"):  # a text makes an image, and not an instance at once
        builder.request("POST", "/1.0/instances", {"name": name, "source": source})


def test_image_build_refuses(builder: Daemon, tmp_path: Path, web: WebServer) -> None:
    before = builder.request("GET", "/1.0/images")
    web.fault("/away.yaml", redirect="http://127.0.0.1/web.yaml")
    web.headers["/away.yaml"] = {}
    files = {"binary": b"\xff\xfe", "large": b"#" * 1_100_000, "key": b"extends: busybox\npackges: []\n"}
    files["parent"] = b"extends: no-such\n"
    files["mirror"] = b"extends: busybox\nmirror: http://127.0.0.1:9/debian\n"
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(builder.env, "SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        for place, expected in (
            (f"{tmp_path}/missing.yaml", "No such file"),
            (f"{tmp_path}/binary.yaml", "is no text"),
            (f"{tmp_path}/large.yaml", "too large"),
            (f"{tmp_path}/key.yaml", "unknown key 'packges'"),
            (f"{tmp_path}/parent.yaml", "no recipe 'no-such'"),
            (f"{tmp_path}/mirror.yaml", "127.0.0.1:9"),
            (web.url.replace("https", "http") + "/web.yaml", "by https only"),
            (f"{web.url}/away.yaml", "http://127.0.0.1"),
            (f"{web.url}/missing.yaml", "Not Found"),
        ):
            refused = builder.command("image", "build", place, check=False, timeout=300)
            assert refused.returncode == 1
            assert expected in refused.stderr
            assert sum(line.startswith("Error: ") for line in refused.stderr.splitlines()) == 1
    assert builder.request("GET", "/1.0/images") == before
    assert not staged(builder)


@pytest.mark.parametrize(
    ("alias", "text"), [("no/such", "No recipe is called"), ("", "alias"), ("../../etc/passwd", "No recipe is called")]
)
def test_unknown_recipe(builder: Daemon, alias: str, text: str) -> None:
    with pytest.raises(ApiError, match=text):
        builder.request("POST", "/1.0/images", {"source": recipe_source(alias)})


def start_slow_build(daemon: Daemon) -> str:
    """Start a build that hangs in its last command; return the operation's URL."""
    name = unique("slow")
    own_recipe(daemon, name, f"extends: busybox\naliases: [{name}]\ncommands: [/bin/busybox sleep 1000]\n")
    _, _, body = curl(daemon, "/1.0/images", data=json.dumps({"source": recipe_source(name)}).encode())
    operation: str = json.loads(body)["operation"]
    wait_until(lambda: bool(build_processes(daemon, "sleep")), 120)
    return operation


def build_processes(daemon: Daemon, word: str = "") -> list[str]:
    """Return the processes whose root or command line lies in the daemon's store."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            root = os.readlink(f"/proc/{pid}/root")
        except OSError:
            continue
        if (f"{daemon.dir}/images" in command or "/tree/rootfs" in root) and word in command:
            found.append(f"{pid} {command}")
    return found


def test_cancelled_build(builder: Daemon, tmp_path: Path) -> None:
    """It ends at once, and until then it holds no loop device that the host has mounted."""
    disk, place = tmp_path / "disk", tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mkfs.ext4", "-q", disk, "8M"], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        operation = start_slow_build(builder)
    finally:
        subprocess.run(["umount", place], check=True)
    assert not subprocess.run(["losetup", "--associated", disk], check=True, capture_output=True).stdout
    builder.request("DELETE", operation)
    assert builder.request("GET", f"{operation}/wait")["status"] == "Cancelled"
    assert not build_processes(builder)
    assert not staged(builder)


def test_killed_daemon_takes_its_build_along(builder: Daemon) -> None:
    start_slow_build(builder)
    builder.signal(signal.SIGKILL)
    wait_until(lambda: not build_processes(builder))
    builder.start()
    assert not staged(builder)


def daemon_socket(daemon: Daemon) -> Any:
    """Return a connected socket."""
    import socket

    connection = socket.socket(socket.AF_UNIX)
    connection.connect(f"{daemon.dir}/unix.socket")
    return connection


def wait_until(condition: Any, seconds: float = 60) -> None:
    """Wait for something that no event tells of."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)

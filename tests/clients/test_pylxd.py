"""pylxd from PyPI, unmodified: what scripts and Ansible's modules of old do with it every day."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, unique
from tests.support.wait import until

pytestmark = pytest.mark.filterwarnings("ignore")  # pylxd and ws4py use what Python has deprecated


@pytest.fixture(scope="module")
def client(lxc_daemon: Daemon | None, lxc_env: dict[str, str]) -> Iterator[Any]:
    """Return pylxd's client; it finds the server as `lxc` does, by LXD_DIR."""
    import pylxd

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LXD_DIR", lxc_env["LXD_DIR"])
        yield pylxd.Client()


@pytest.fixture(scope="module")
def guest(client: Any, image: str) -> Iterator[Any]:
    """Return a running instance."""
    found = client.instances.create(
        {"name": unique("p"), "source": {"type": "image", "alias": image}, "config": {"user.a": "b"}}, wait=True
    )
    found.start(wait=True)
    yield found
    found.stop(force=True, wait=True)
    found.delete(wait=True)


def test_the_server(client: Any) -> None:
    assert client.trusted
    assert client.host_info["environment"]["server_version"] == "5.0.2"
    for extension in ("network", "storage", "resources", "file_delete"):
        client.assert_has_api_extension(extension)
    assert client.resources["cpu"]["total"] > 0
    assert [project.name for project in client.projects.all()] == ["default"]
    assert client.certificates.all() == []


def test_life(client: Any, image: str) -> None:
    name = unique("p")
    instance = client.instances.create({"name": name, "source": {"type": "image", "alias": image}}, wait=True)
    assert (instance.status, client.instances.exists(name)) == ("Stopped", True)
    for act, status in [("start", "Running"), ("freeze", "Frozen"), ("unfreeze", "Running"), ("restart", "Running")]:
        getattr(instance, act)(wait=True)
        assert instance.status == status
    state = instance.state()
    assert state.pid > 1
    assert state.network["lo"]["addresses"][0]["address"] == "127.0.0.1"
    instance.sync()
    instance.config["user.x"] = "y"
    instance.devices["e"] = {"type": "none"}
    instance.save(wait=True)
    found = client.containers.get(name)  # the older half of the API
    assert (found.config["user.x"], found.devices["e"]) == ("y", {"type": "none"})
    instance.stop(wait=True)
    new = unique("p")
    instance.rename(new, wait=True)
    assert client.instances.get(new).status == "Stopped"
    client.instances.get(new).delete(wait=True)
    assert not client.instances.exists(new)


def test_failures_are_its_exceptions(client: Any, guest: Any) -> None:
    from pylxd import exceptions

    with pytest.raises(exceptions.NotFound, match="Instance not found"):
        client.instances.get("none")
    with pytest.raises(exceptions.LXDAPIException, match="running"):
        guest.delete(wait=True)
    with pytest.raises(exceptions.LXDAPIException):
        client.instances.create({"name": "no_name", "source": {"type": "none"}}, wait=True)
    with pytest.raises(exceptions.LXDAPIException, match="Command not found"):
        guest.execute(["nonexistent"])


def test_exec(guest: Any) -> None:
    result = guest.execute(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin_payload="hello\n")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "hello\n", "oops\n")
    assert guest.execute(["sh", "-c", "echo $A"], environment={"A": "b"}).stdout == "b\n"
    assert guest.execute(["id", "-u"], user=7, group=8).stdout == "7\n"
    assert guest.execute(["pwd"], cwd="/tmp").stdout == "/tmp\n"
    lines: list[str] = []
    result = guest.execute(["printf", "a\\nb\\n"], stdout_handler=lines.append)
    assert "".join(lines) == "a\nb\n"
    big = guest.execute(["sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"])
    assert big.stdout.splitlines() == [f"line {number}" for number in range(2000)]


def test_files(guest: Any, tmp_path: Path) -> None:
    guest.files.put("/tmp/a", b"data\0\xff", mode=0o640, uid=1, gid=2)
    assert guest.files.get("/tmp/a") == b"data\0\xff"
    assert guest.execute(["stat", "-c", "%a %u %g", "/tmp/a"]).stdout == "640 1 2\n"
    guest.files.delete("/tmp/a")
    assert guest.execute(["ls", "/tmp/a"]).exit_code != 0
    tree = tmp_path / "up"
    (tree / "d" / "e").mkdir(parents=True)
    for number in range(20):
        (tree / "d" / f"f{number}").write_bytes(bytes([number]) * 1000)
    guest.files.recursive_put(str(tree), "/tmp/tree")
    guest.files.recursive_get("/tmp/tree", str(tmp_path / "down"))
    assert [path.name for path in sorted((tmp_path / "down" / "d").glob("f*"))] == sorted(f"f{n}" for n in range(20))
    assert (tmp_path / "down" / "d" / "f7").read_bytes() == bytes([7]) * 1000


def test_snapshots(client: Any, guest: Any) -> None:
    guest.files.put("/root/state", b"before")
    snapshot = guest.snapshots.create("s0", wait=True)
    snapshot.rename("s1", wait=True)
    assert [each.name for each in guest.snapshots.all()] == ["s1"]
    guest.files.put("/root/state", b"after")
    guest.restore_snapshot("s1", wait=True)
    assert guest.files.get("/root/state") == b"before"
    image = guest.snapshots.get("s1").publish(wait=True)
    assert client.images.get(image.fingerprint).size > 0
    image.delete(wait=True)
    guest.snapshots.get("s1").delete(wait=True)
    assert guest.snapshots.all() == []


def test_images(client: Any, image: str, tmp_path: Path) -> None:
    name = unique("p")
    source = client.instances.create({"name": name, "source": {"type": "image", "alias": image}}, wait=True)
    published = source.publish(wait=True)
    source.delete(wait=True)
    alias = unique("a")
    published.add_alias(alias, "of pylxd")
    found = client.images.get_by_alias(alias)
    assert (found.fingerprint, found.aliases[0]["description"]) == (published.fingerprint, "of pylxd")
    found.properties["x"] = "y"
    found.save(wait=True)
    assert client.images.get(published.fingerprint).properties["x"] == "y"
    assert client.images.exists(alias, alias=True)
    content = found.export().read()
    found.delete_alias(alias)
    found.delete(wait=True)
    again = client.images.create(content, public=True, wait=True)
    assert (again.fingerprint, again.public) == (published.fingerprint, True)
    again.delete(wait=True)
    assert not client.images.exists(published.fingerprint)


def test_profiles(client: Any, image: str) -> None:
    name = unique("p")
    profile = client.profiles.create(name, config={"user.a": "b"}, devices={"n": {"type": "none"}})
    profile.description = "changed"
    profile.save()
    found = client.profiles.get(name)
    assert (found.description, found.config, found.devices) == ("changed", {"user.a": "b"}, {"n": {"type": "none"}})
    found.rename(f"{name}-2")
    source = {"type": "image", "alias": image}
    body = {"name": name, "source": source, "profiles": ["default", f"{name}-2"], "ephemeral": False}
    instance = client.instances.create(body, wait=True)
    assert instance.expanded_config["user.a"] == "b"
    assert client.profiles.get(f"{name}-2").used_by == [f"/1.0/instances/{name}"]
    instance.delete(wait=True)
    client.profiles.get(f"{name}-2").delete()
    assert not client.profiles.exists(f"{name}-2")


def test_networks(client: Any) -> None:
    name = f"x{unique('')[1:6]}"
    none = {"ipv4.address": "none", "ipv6.address": "none"}
    network = client.networks.create(name, description="d", type="bridge", config=none)
    network.config["user.a"] = "b"
    network.save()
    assert client.networks.get(name).config["user.a"] == "b"
    assert client.networks.get(name).managed is True
    assert network.state().hwaddr
    network.rename(f"{name}2")
    client.networks.get(f"{name}2").delete()
    assert not client.networks.exists(f"{name}2")


def test_storage(client: Any) -> None:
    name = unique("p")
    pool = client.storage_pools.create({"name": name, "driver": "dir", "config": {}})
    assert pool.resources.get().space["total"] > 0
    volume = pool.volumes.create({"name": "v", "type": "custom", "config": {}})
    volume.config["user.a"] = "b"
    volume.save()
    assert pool.volumes.get("custom", "v").config["user.a"] == "b"
    snapshot = volume.snapshots.create("s0")
    assert volume.snapshots.all() == ["s0"]
    volume.restore_from("s0")
    snapshot.delete()
    volume.rename({"name": "w", "pool": name})
    assert [each.name for each in pool.volumes.all()] == ["w"]
    pool.volumes.get("custom", "w").delete()
    pool.delete()
    assert not client.storage_pools.exists(name)


def test_events(client: Any, guest: Any) -> None:
    from ws4py.client import WebSocketBaseClient

    seen: list[dict[str, Any]] = []

    class Listener(WebSocketBaseClient):  # type: ignore[misc]
        def handshake_ok(self) -> None:
            pass

        def received_message(self, message: Any) -> None:
            seen.append(json.loads(message.data))

    listener = client.events(websocket_client=Listener, event_types={pytest.importorskip("pylxd").EventType.Lifecycle})
    listener.connect()
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    guest.config["user.now"] = str(time.monotonic())
    guest.save(wait=True)
    until(lambda: "instance-updated" in [event["metadata"]["action"] for event in list(seen)], "the event")
    listener.close()
    thread.join(10)

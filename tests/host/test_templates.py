"""Image templates: what they make in an instance's files, and what they cannot do."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.daemon import POOL_ONLY, ApiError, Daemon, UnixConnection, unique

Make = Callable[..., "Machine"]


class Machine:
    """A stopped instance whose templates and files tests change from outside."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon = daemon
        self.name = name

    @property
    def volume(self) -> Path:
        return Path(self.daemon.dir) / "storage-pools/default/containers" / self.name

    @property
    def rootfs(self) -> Path:
        return self.volume / "rootfs"

    def template(self, source: str, path: str = "/etc/made", **fields: Any) -> None:
        """Make `source` the only template."""
        self.daemon.command("config", "template", "edit", self.name, "t.tpl", input=source)
        item = {"when": ["start"], "template": "t.tpl", **fields}
        self.daemon.request("PUT", f"/1.0/instances/{self.name}/metadata", {"templates": {path: item}})

    def action(self, action: str) -> None:
        self.daemon.request("PUT", f"/1.0/instances/{self.name}/state", {"action": action, "force": True})

    def boot(self) -> None:
        """Start and stop: what templates make is there then."""
        self.action("start")
        self.action("stop")

    def refused(self, text: str) -> None:
        """Assert that it does not start, with `text` in the one line that says why."""
        with pytest.raises(ApiError) as caught:
            self.action("start")
        assert text in caught.value.text
        assert "\n" not in caught.value.text
        assert self.daemon.instances()[self.name] == "Stopped"

    def made(self, path: str = "etc/made") -> str:
        return (self.rootfs / path).read_text()

    def config(self) -> dict[str, str]:
        config: dict[str, str] = self.daemon.request("GET", f"/1.0/instances/{self.name}")["config"]
        return config


@pytest.fixture
def make(daemon: Daemon, busybox: str) -> Iterator[Make]:
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    made: list[Machine] = []

    def create(**body: Any) -> Machine:
        name = unique("t")
        daemon.request("POST", "/1.0/instances", {"name": name, "source": {"type": "image", "alias": busybox}, **body})
        made.append(Machine(daemon, name))
        return made[-1]

    yield create
    for machine in made:
        daemon.command("delete", "--force", machine.name)


def test_create_and_rename_are_deferred_to_the_next_start(daemon: Daemon, make: Make) -> None:
    machine = make()
    assert not (machine.rootfs / "etc/hostname").exists()
    assert machine.config()["volatile.apply_template"] == "create"
    machine.action("start")
    assert machine.made("etc/hostname") == f"{machine.name}\n"
    assert "volatile.apply_template" not in machine.config()
    assert daemon.command("exec", machine.name, "--", "hostname").stdout == f"{machine.name}\n"
    machine.action("stop")
    (machine.rootfs / "etc/hostname").write_text("changed by the guest\n")
    machine.boot()
    assert machine.made("etc/hostname") == "changed by the guest\n"

    machine.template("{{ trigger }} {{ instance.name }} {{ path }}\n", when=["rename", "start"])
    old_id = machine.config()["volatile.cloud-init.instance-id"]
    old, machine.name = machine.name, unique("t")
    daemon.request("POST", f"/1.0/instances/{old}", {"name": machine.name})
    assert machine.config()["volatile.apply_template"] == "rename"
    assert machine.config()["volatile.cloud-init.instance-id"] != old_id
    machine.template("{{ trigger }} {{ instance.name }} {{ path }}\n", when=["rename"])
    machine.boot()
    assert machine.made() == f"rename {machine.name} /etc/made\n"


def test_a_trigger_that_waits_is_not_replaced_by_a_rename(daemon: Daemon, make: Make) -> None:
    machine = make()
    old, machine.name = machine.name, unique("t")
    daemon.request("POST", f"/1.0/instances/{old}", {"name": machine.name})
    assert machine.config()["volatile.apply_template"] == "create"


def test_what_a_template_knows(make: Make) -> None:
    config = {"user.note": "a <b>\n", "security.privileged": "true", "cloud-init.user-data": "#cloud-config\n"}
    machine = make(config=config, ephemeral=False)
    machine.template(
        "{{ instance.name }} {{ container.type }} {{ instance.privileged }} {{ instance.ephemeral }}\n"
        '{{ config_get("user.note", "no") }} {{ config_get("user.none", properties.default) }}\n'
        '{% if devices.root.pool == "default" && config_get("cloud-init.user-data", "") %}both{% endif %}\n'
        '{{ properties.nothing|default:"x" }} {{ properties.release }}\n',
        properties={"default": "the default", "release": "22.10"},
    )
    machine.boot()
    assert machine.made() == f"{machine.name} container true false\na <b> the default\nboth\nx 22.10\n"


def test_owner_and_mode(make: Make) -> None:
    machine = make()
    machine.template("new", "/srv/deep/er/file")
    machine.boot()
    status = (machine.rootfs / "srv/deep/er/file").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 0, 0o644)
    status = (machine.rootfs / "srv/deep").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o755)

    target = machine.rootfs / "srv/deep/er/file"
    os.chown(target, 33, 34)
    target.chmod(0o4600)
    machine.template("newer", "srv/deep/er/file")
    machine.boot()
    status = target.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode) & 0o777) == (33, 34, 0o600)
    assert target.read_text() == "newer"
    assert os.listdir(target.parent) == ["file"]


def test_create_only(make: Make) -> None:
    machine = make()
    machine.template("{{ trigger }}", create_only=True, when=["start"])
    machine.boot()
    assert machine.made() == "start"
    # It is not even looked at any more.
    machine.template("{% broken", create_only=True)
    machine.boot()
    assert machine.made() == "start"


def test_links_stay_inside(make: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("the host's")
    (tmp_path / "dir").mkdir()
    machine = make()
    etc = machine.rootfs / "etc"
    (etc / "made").symlink_to(outside)
    machine.template("mine")
    machine.boot()
    assert outside.read_text() == "the host's"
    assert (machine.rootfs / str(outside).lstrip("/")).read_text() == "mine"
    assert (etc / "made").is_symlink()

    (etc / "up").symlink_to("../../../../../../../.." + str(tmp_path / "dir"))
    machine.template("mine", "/etc/up/x/../file")
    machine.boot()
    assert list((tmp_path / "dir").iterdir()) == []
    machine.template("mine", "../../../../../.." + str(tmp_path / "dir/file"))
    machine.boot()
    assert list((tmp_path / "dir").iterdir()) == []
    machine.template("mine", "/proc/self/root/etc/file")
    machine.boot()
    assert not os.path.exists("/etc/file")


def test_targets_that_are_no_files(make: Make) -> None:
    machine = make()
    (machine.rootfs / "etc/dir").mkdir()
    os.mkfifo(machine.rootfs / "etc/fifo")
    machine.template("x", "/etc/dir")
    machine.refused("no file")
    machine.template("x", "/etc/fifo")
    machine.refused("no file")
    machine.template("x", "/etc/hosts/below")
    machine.refused("something else")


def test_templates_that_are_no_files_of_their_own(make: Make, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    machine = make()
    machine.template("x")
    source = machine.volume / "templates/t.tpl"
    for target in (str(secret), "../../../../../../../../../.." + str(secret), "../metadata.yaml"):
        source.unlink()
        source.symlink_to(target)
        machine.refused("not found")
    source.unlink()
    machine.refused("Template 't.tpl' not found")
    os.mkfifo(source)
    machine.refused("is no file")
    source.unlink()
    (machine.volume / "templates/other").write_text("from another")
    source.symlink_to("/other")
    machine.boot()
    assert machine.made() == "from another"
    (machine.volume / "templates").rename(machine.volume / "moved")
    (machine.volume / "templates").symlink_to(tmp_path)
    machine.refused("no directory")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{% if %}", "t.tpl: line 1: "),
        ("{{ missing() }}", "t.tpl: it calls something other"),
        (
            '{% for a in "x"|ljust:99999 %}{% for b in "x"|ljust:99999 %}{% endfor %}{% endfor %}',
            "t.tpl: it takes too much time",
        ),
        ('{{ "x" * 10000000000 }}', "t.tpl: it takes too much memory"),
    ],
)
def test_a_template_that_fails_keeps_the_instance_from_starting(make: Make, source: str, text: str) -> None:
    machine = make()
    machine.template(source)
    machine.refused(f"Failed applying the instance's templates: Template {text}")
    assert not (machine.rootfs / "etc/made").exists()
    assert machine.config()["volatile.apply_template"] == "create"
    machine.template("well")
    machine.boot()
    assert machine.made() == "well"


def test_an_instance_without_metadata_starts(daemon: Daemon, make: Make) -> None:
    machine = make()
    (machine.volume / "metadata.yaml").unlink()
    assert daemon.request("GET", f"/1.0/instances/{machine.name}/metadata")["templates"] == {}
    machine.boot()
    (machine.volume / "metadata.yaml").write_text("templates: [a]\n")
    machine.refused("Invalid metadata.yaml: templates is no map")


def test_metadata_over_the_api(daemon: Daemon, make: Make) -> None:
    machine = make()
    url = f"/1.0/instances/{machine.name}/metadata"
    found = daemon.request("GET", url)
    assert found["templates"]["/etc/hostname"]["when"] == ["create", "copy"]
    assert found["properties"]["os"] == "Busybox"
    assert found["creation_date"] > time.time() - 10 * 365 * 86400
    daemon.request("PATCH", url, {"properties": {"colour": "red"}})
    found["properties"]["colour"] = "red"
    assert daemon.request("GET", url) == found
    with pytest.raises(ApiError, match="400"):
        daemon.request("PUT", url, {"templates": {"/a": {"when": "start"}}})
    assert daemon.request("GET", url) == found
    shown = yaml.safe_load(daemon.command("config", "metadata", "show", machine.name).stdout)
    assert shown == found
    shown["properties"] = {"release": "22.10"}
    daemon.command("config", "metadata", "edit", machine.name, input=yaml.safe_dump(shown))
    assert daemon.request("GET", url)["properties"] == {"release": "22.10"}
    with pytest.raises(ApiError, match="404"):
        daemon.request("GET", "/1.0/instances/none/metadata")
    connection = UnixConnection(f"{daemon.dir}/unix.socket", 10)
    with closing(connection):
        connection.request("PUT", url, "{}", {"If-Match": '"of another state"'})
        assert connection.getresponse().status == 412
    assert daemon.request("GET", url)["properties"] == {"release": "22.10"}


def test_templates_by_command(daemon: Daemon, make: Make) -> None:
    machine = make()
    daemon.command("config", "template", "create", machine.name, "a.tpl")
    daemon.command("config", "template", "edit", machine.name, "a.tpl", input="{{ path }}\n")
    assert daemon.command("config", "template", "show", machine.name, "a.tpl").stdout == "{{ path }}\n"
    listed = daemon.command("config", "template", "list", machine.name, "--format", "csv").stdout
    assert listed == "a.tpl\netc-hostname.tpl\n"
    daemon.command("config", "template", "delete", machine.name, "a.tpl")
    for arguments in (("show", "a.tpl"), ("delete", "a.tpl"), ("edit", "../escape"), ("create", "a/b")):
        verb, template = arguments
        done = daemon.command("config", "template", verb, machine.name, template, check=False, input="x")
        assert done.returncode == 1, arguments
        assert done.stderr.count("\n") == 1
    assert not (machine.volume / "escape").exists()


def test_what_renders_can_do_nothing_else(daemon: Daemon, make: Make) -> None:
    make().boot()
    assert daemon.process
    (pid,) = _children(daemon.process.pid, "pylxc-renderer")
    facts = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert facts["Uid"].split() == ["65534"] * 4
    assert (facts["NoNewPrivs"], facts["Seccomp"], int(facts["CapEff"], 16)) == ("1", "2", 0)
    assert os.listdir(f"/proc/{pid}/root") == []
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink(f"/proc/{daemon.process.pid}/ns/net")
    assert all("socket:" in os.readlink(f.path) or f.name in "012" for f in os.scandir(f"/proc/{pid}/fd"))


def _children(pid: int, name: str) -> list[int]:
    children = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return [child for child in children if Path(f"/proc/{child}/comm").read_text() == f"{name}\n"]

"""Debian's own cloud-init in a guest, told what to do by the guest API and by templates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon import POOL_ONLY, Daemon, unique
from tests.support.images import image_files

USER_DATA = """#cloud-config
hostname: from-cloud
users:
  - name: ada
    shell: /bin/bash
write_files:
  - path: /srv/made
    content: "by cloud-init"
    permissions: '0640'
runcmd:
  - [sh, -c, "echo WORD >> /srv/ran"]
"""

_ASK = """
import http.client, socket
class Guest(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/dev/lxd/sock")
guest = Guest("lxd")
guest.request("GET", "/1.0/config/user.note")
response = guest.getresponse()
print(response.status, response.read().decode())
"""


class Guests:
    """Two guests that boot at the same time: one asks the guest API, the other finds seed files."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.asking, self.seeded = unique("asking"), unique("seeded")

    def run(self, name: str, *command: str) -> str:
        return self.daemon.command("exec", name, "--", *command).stdout

    def wait(self, name: str) -> dict[str, Any]:
        """Wait until cloud-init is done; return its result."""
        assert "status: done" in self.run(name, "cloud-init", "status", "--wait")
        result: dict[str, Any] = json.loads(self.run(name, "cat", "/run/cloud-init/result.json"))["v1"]
        return result


@pytest.fixture(scope="module")
def guests(module_daemon: Daemon) -> Iterator[Guests]:
    daemon = module_daemon
    daemon.request("POST", "/1.0/pylxc/init", {"preseed": POOL_ONLY})
    image = daemon.import_image("cloud", image_files("debian/12/cloud"))
    made = Guests(daemon)
    first = {"cloud-init.user-data": USER_DATA.replace("WORD", "once"), "user.note": "for root"}
    second = {"user.user-data": USER_DATA.replace("WORD", "seeded"), "security.devlxd": "false"}
    for name, config in ((made.asking, first), (made.seeded, second)):
        source = {"type": "image", "alias": image}
        daemon.request("POST", "/1.0/instances", {"name": name, "source": source, "config": config, "start": True})
    yield made
    daemon.command("delete", "--force", made.asking, made.seeded)


def _check(guests: Guests, name: str) -> None:
    facts = "cat /srv/made /srv/ran; stat -c %a /srv/made; hostname; id -un ada"
    assert guests.run(name, "sh", "-c", facts).split("\n")[1:] == ["640", "from-cloud", "ada", ""]


def test_by_the_guest_api(guests: Guests) -> None:
    name = guests.asking
    assert guests.wait(name) == {"datasource": "DataSourceLXD", "errors": []}
    _check(guests, name)
    assert guests.run(name, "cat", "/srv/ran") == "once\n"
    assert guests.run(name, "python3", "-c", _ASK) == "200 for root\n"
    refused = "401 Access denied for non-root user\n\n"
    assert guests.run(name, "setpriv", "--reuid=ada", "--clear-groups", "python3", "-c", _ASK) == refused
    # What it is told has changed: at the next boot it is a new instance, and all is done again.
    data = USER_DATA.replace("WORD", "again")
    guests.daemon.request("PATCH", f"/1.0/instances/{name}", {"config": {"cloud-init.user-data": data}})
    guests.daemon.command("restart", "--force", name)
    guests.wait(name)
    assert guests.run(name, "cat", "/srv/ran") == "once\nagain\n"


def test_by_seed_files_from_templates(guests: Guests) -> None:
    name = guests.seeded
    result = guests.wait(name)
    assert (result["datasource"].split()[0], result["errors"]) == ("DataSourceNoCloud", [])
    _check(guests, name)
    assert guests.run(name, "cat", "/srv/ran") == "seeded\n"
    assert f"instance-id: {name}\n" in guests.run(name, "cat", "/var/lib/cloud/seed/nocloud-net/meta-data")

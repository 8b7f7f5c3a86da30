"""What Debian's plain `lxc` takes on both servers: the dialect alone, without what pylxc's own command makes faster."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from bench.server import Samples, Server

GUEST = "wired"
BUDGET = 1.5
_PUSHED_BYTES = 8 << 20

# Row: the words of `lxc`, in the order in which they are run. FILE and TREE lie in the server's directory DIR; RUN is
# another each time.
COMMANDS = {
    "launch": f"launch busybox {GUEST}",
    "list": "list",
    "info": f"info {GUEST}",
    "info of the server": "info",
    "query": "query /1.0",
    "exec": f"exec {GUEST} -- true",
    "file push": f"file push FILE {GUEST}/root/pushed",
    "file pull": f"file pull {GUEST}/root/pushed FILE.back",
    "file push -r": f"file push -r TREE {GUEST}/root",
    "file pull -r": f"file pull -r {GUEST}/root/tree TREE.back",
    "config set": f"config set {GUEST} user.run=RUN",
    "config show": f"config show {GUEST}",
    "config device add": f"config device add {GUEST} data disk source=DIR path=/mnt",
    "config device remove": f"config device remove {GUEST} data",
    "snapshot": f"snapshot {GUEST} s0",
    "restore": f"restore {GUEST} s0",
    "copy": f"copy {GUEST} {GUEST}2",
    "rename": f"rename {GUEST}2 {GUEST}3",
    "start": f"start {GUEST}3",
    "pause": f"pause {GUEST}3",
    "resume": f"start {GUEST}3",
    "restart": f"restart --force {GUEST}3",
    "stop": f"stop --force {GUEST}3",
    "delete": f"delete {GUEST}3",
    "publish": f"publish {GUEST}/s0 --alias wired run=RUN",
    "image list": "image list",
    "image info": "image info wired",
    "image delete": "image delete wired",
    "export": f"export {GUEST} FILE.backup",
    "import": f"import FILE.backup {GUEST}4",
    "delete --force": f"delete --force {GUEST}4 {GUEST}",
    "profile create": "profile create wired",
    "profile set": "profile set wired user.run=RUN",
    "profile device add": "profile device add wired root disk path=/ pool=default",
    "profile list": "profile list",
    "profile delete": "profile delete wired",
    "network create": "network create wired0 ipv4.address=10.97.0.1/24 ipv6.address=none",
    "network list": "network list",
    "network delete": "network delete wired0",
    "storage list": "storage list",
    "storage volume create": "storage volume create default wired",
    "storage volume list": "storage volume list default",
    "storage volume delete": "storage volume delete default wired",
    "project list": "project list",
    "operation list": "operation list",
}
BUDGETS = {f"lxc {row}": BUDGET for row in COMMANDS}


def commands(server: Server, run: int) -> Samples:
    """Each command once."""
    samples = {}
    values = {"FILE": f"{server.dir}/file", "TREE": f"{server.dir}/tree", "DIR": server.dir, "RUN": str(run)}
    os.mkdir(f"{server.dir}/tree.back")
    for row, words in COMMANDS.items():
        arguments = [re.sub("FILE|TREE|DIR|RUN", lambda found: values[found[0]], word) for word in words.split()]
        samples[f"lxc {row}"] = server.time(*arguments, cli="/usr/bin/lxc")
    for name in ("file.back", "file.backup"):
        os.unlink(f"{server.dir}/{name}")
    shutil.rmtree(f"{server.dir}/tree.back")
    return samples


def sources(server: Server) -> None:
    """Write what is pushed."""
    Path(server.dir, "file").write_bytes(os.urandom(_PUSHED_BYTES))
    for number in range(20):
        path = Path(server.dir, f"tree/{number % 4}/{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")

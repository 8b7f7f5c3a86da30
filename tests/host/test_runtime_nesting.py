"""A runtime inside a container of the runtime; inside there is nothing but cgroup v2, so that layout runs here, too."""

from __future__ import annotations

import sys
from pathlib import Path

from pylxc.runtime.spec import IdMap, Mount
from tests.support.runtime import Host, busybox_tree

TOP = Path(__file__).parents[2]

INNER = """
import subprocess, sys, traceback
from pathlib import Path
sys.path[:0] = sys.argv[1:]
try:
    from pylxc.runtime.spec import IdMap
    from tests.support import runtime

    tree = runtime.busybox_tree(Path("/root/tree"), "cat /proc/self/uid_map; cat /proc/self/cgroup")
    # A mount that has shifted ids already cannot be shifted again: on disk, then.
    subprocess.run(["chown", "-hR", "100000:100000", str(tree)], check=True)
    host = runtime.Host(Path("/root/state"))
    print(host.run(tree, idmap=IdMap.single(100000, 65536), shift_rootfs=False))
    host.runtime.freeze("c1")
    host.runtime.unfreeze("c1")
    assert host.runtime.stats("c1").cpu_ns
    host.close()
    print("ended as", host.end().reason)
except BaseException:
    traceback.print_exc()
print("inner done")
"""


def test_a_container_in_a_container(tmp_path: Path) -> None:
    paths = dict.fromkeys(("/usr", str(TOP), sys.prefix))
    mounts = tuple(Mount(source=path, target=path, create="dir", options=("ro", "rbind")) for path in paths)
    tree = busybox_tree(tmp_path / "tree", f"{sys.executable} /inner.py {TOP} {TOP / 'manager'}")
    (tree / "inner.py").write_text(INNER)
    for name in ("lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    host = Host(tmp_path / "state")
    try:
        host.start(tree, mounts=mounts, nesting=True, idmap=IdMap.single(1000000, 1 << 20))
        shown = host.console("c1", "inner done")
    finally:
        host.close()
    assert "100000      65536" in shown
    assert "ready" in shown
    assert "ended as killed" in shown, shown

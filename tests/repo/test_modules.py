"""Every module stands alone and is of a size that a person can read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANAGER = ROOT / "manager"
MODULES = sorted(
    ".".join(path.relative_to(MANAGER).with_suffix("").parts).removesuffix(".__init__")
    for path in (MANAGER / "pylxc").rglob("*.py")
)

# A fork of one bare interpreter per module: nothing is imported but what the module itself asks for.
_IMPORT_EACH = """
import os, sys, traceback, warnings
failed = False
for name in sys.argv[1:]:
    pid = os.fork()
    if not pid:
        warnings.simplefilter("error")
        try:
            __import__(name)
        except BaseException:
            print(f"--- {name}", file=sys.stderr)
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
        os._exit(0)
    failed |= os.waitpid(pid, 0)[1] != 0
sys.exit(failed)
"""


def test_each_module_imports_alone() -> None:
    command = [sys.executable, "-c", _IMPORT_EACH, *MODULES]
    result = subprocess.run(
        command, env={"PYTHONPATH": str(MANAGER), "PATH": "/usr/bin"}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_no_module_outgrows_500_lines() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (MANAGER / "pylxc").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > 500} == {}

"""Every module stands alone and is of a size that a person can read."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MANAGER = ROOT / "manager"
MODULES = sorted(
    ".".join(path.relative_to(MANAGER).with_suffix("").parts).removesuffix(".__init__")
    for path in (MANAGER / "pylxc").rglob("*.py")
)

_IMPORT_ALL = """
import sys, warnings
warnings.simplefilter("error")
for name in sys.argv[1:]:
    __import__(name)
"""


def test_each_module_imports_alone() -> None:
    """None needs that another one was imported before: no imports go in a circle, and each finds what it asks for."""
    order = list(TopologicalSorter({name: _imported(name) for name in MODULES}).static_order())
    result = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, *order],
        env={"PYTHONPATH": str(MANAGER), "PATH": "/usr/bin"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def _imported(module: str) -> set[str]:
    """Return the modules of ours that are imported when this one is, but for the packages that it is in."""
    path = MANAGER / module.replace(".", "/")
    source = (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    names = {name for statement in _at_import(ast.parse(source).body) for name in _named(statement)}
    return {name for name in names if name in MODULES and not module.startswith(f"{name}.")}


def _at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
            continue
        yield statement
        for field in ("body", "handlers", "orelse", "finalbody"):
            yield from _at_import(getattr(statement, field, []))


def _named(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    if isinstance(statement, ast.ImportFrom):
        return [statement.module or "", *(f"{statement.module}.{alias.name}" for alias in statement.names)]
    return []


def test_no_module_outgrows_500_lines() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in (MANAGER / "pylxc").rglob("*.py")}
    assert {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > 500} == {}

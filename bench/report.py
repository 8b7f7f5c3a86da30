"""The table."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median

from bench.operations import ABSOLUTE, BUDGETS


def table(samples: dict[str, dict[str, list[float]]]) -> list[tuple[str, ...]]:
    """Return rows of operation, pylxc's median, LXD's, their ratio, the budget (a ratio, or in units) and a verdict."""
    rows: list[tuple[str, ...]] = []
    for operation, by_server in samples.items():
        ours = median(by_server["pylxc"])
        theirs = median(by_server["lxd"]) if "lxd" in by_server else None  # some is asked of pylxc only
        ratio = ours / theirs if theirs else 0.0
        unit = next((unit for word, unit in _UNITS.items() if operation.startswith(word)), _milliseconds)
        if operation in ABSOLUTE:
            met, budget = ours <= ABSOLUTE[operation], unit(ABSOLUTE[operation])
        else:
            met, budget = ratio <= BUDGETS[operation], f"{BUDGETS[operation]:.2f}"
        compared = (unit(theirs), f"{ratio:.2f}") if theirs else ("", "")
        rows.append((operation, unit(ours), *compared, budget, "met" if met else "MISSED"))
    return rows


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _mib(value: float) -> str:
    return f"{value:.1f} MiB"


def _multiple(value: float) -> str:
    return f"{value:.2f}"


_UNITS = {"memory": _mib, "traffic": _multiple, "growth": _multiple}
"""By the first word of an operation; others take time."""

HEADINGS = ("operation", "pylxc", "LXD 5.0.2", "ratio", "budget", "")


def plain(rows: list[tuple[str, ...]]) -> str:
    """Return the table for a terminal."""
    widths = [max(len(row[i]) for row in [HEADINGS, *rows]) for i in range(len(HEADINGS))]
    lines = []
    for row in [HEADINGS, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(rows: list[tuple[str, ...]]) -> str:
    """Return the table for docs/benchmarks.md."""
    lines = [HEADINGS, ("---", "---:", "---:", "---:", "---:", "---"), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine() -> str:
    """Return one line on where the figures come from."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(": ", 1)[1]
            break
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    layout = "unified" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "hybrid"
    root = next(line.split()[2] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == "/")
    return (
        f"{os.cpu_count()} x {model}, {kib / (1 << 20):.0f} GiB, Linux {platform.release()}, cgroups {layout}, "
        f"{root}, Python {platform.python_version()}"
    )

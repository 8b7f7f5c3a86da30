"""What a request to the renderer may take; apart from the process, whose modules the daemon does not load."""

from __future__ import annotations

CPU_SECONDS = 2
WALL_SECONDS = 10
MEMORY = 256 << 20
"""Bytes of address space, on top of what the process has."""

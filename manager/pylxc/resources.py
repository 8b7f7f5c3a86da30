"""Data that ships with the package: profiles/, images/, migrations/."""

from __future__ import annotations

from pathlib import Path


def resource_dir(name: str) -> Path:
    """Return the folder of shipped data `name`: in the wheel below `_data`, in a checkout at its top level."""
    packaged = Path(__file__).parent / "_data" / name
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / name

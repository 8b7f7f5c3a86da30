"""REST client and public Python API: `pylxc.client.Client`."""

from __future__ import annotations

from pylxc.client.client import Client

__all__ = ["Client"]

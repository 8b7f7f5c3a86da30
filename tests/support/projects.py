"""Projects for tests: made with a root disk in their default profile, and removed with all that is in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.daemon import ApiError, Daemon, unique


class Project:
    """A project of a daemon."""

    def __init__(self, daemon: Daemon, name: str) -> None:
        self.daemon = daemon
        self.name = name
        self.url = f"/1.0/projects/{name}"

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request within the project, of `path` below /1.0; see `Daemon.request`."""
        mark = "&" if "?" in path else "?"
        return self.daemon.request(method, f"/1.0/{path}{mark}project={self.name}", body)

    def set(self, **config: str) -> None:
        """Set keys, `__` for a dot and `_` for a hyphen; an empty value unsets."""
        self.configure({key.replace("__", ".").replace("_", "-"): value for key, value in config.items()})

    def configure(self, config: dict[str, str]) -> None:
        """Set keys; an empty value unsets."""
        self.daemon.request("PATCH", self.url, {"config": config})

    def make(self, name: str = "", **fields: Any) -> str:
        """Make an instance without an image and return its name."""
        name = name or unique("c")
        self.request("POST", "instances", {"name": name, "source": {"type": "none"}, **fields})
        return name

    def usage(self) -> dict[str, tuple[int, int]]:
        """Return limit and usage per resource."""
        found = self.daemon.request("GET", f"{self.url}/state")["resources"]
        return {name: (each["Limit"], each["Usage"]) for name, each in found.items()}

    def names(self, kind: str) -> list[str]:
        """Return the names of what is in the project of one kind."""
        return [one["name"] for one in self.request("GET", f"{kind}?recursion=1")]

    def empty(self) -> None:
        """Remove all that is in the project."""
        for name in self.names("instances"):
            if self.request("GET", f"instances/{name}")["status"] != "Stopped":
                self.request("PUT", f"instances/{name}/state", {"action": "stop", "force": True})
            self.request("DELETE", f"instances/{name}")
        for used in self.daemon.request("GET", self.url)["used_by"]:
            if not used.startswith("/1.0/profiles/default"):
                self.daemon.request("DELETE", used)


@contextmanager
def project(daemon: Daemon, pool: str = "default", **config: str) -> Iterator[Project]:
    """Make a project, `__` in names of keys for a dot and `_` for a hyphen; it goes with all that is in it."""
    made = Project(daemon, unique("p"))
    given = {key.replace("__", ".").replace("_", "-"): value for key, value in config.items()}
    daemon.request("POST", "/1.0/projects", {"name": made.name, "config": given})
    if given.get("features.profiles", "true") == "true":
        root = {"type": "disk", "path": "/", "pool": pool}
        made.request("PUT", "profiles/default", {"devices": {"root": root}})
    try:
        yield made
    finally:
        made.empty()
        daemon.request("DELETE", made.url)


@contextmanager
def refused(text: str, status: int = 403) -> Iterator[None]:
    """Expect that the block is refused with an error of `status` that has `text`; an operation fails with 400."""
    with pytest.raises(ApiError) as caught:
        yield
    assert caught.value.status in (400, status), caught.value
    assert text in caught.value.text, caught.value

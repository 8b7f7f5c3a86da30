"""Configuration of images: a project's own where it has some, else the server's."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from pylxc.db import projects

_MOST = 100 * 366 * 24
"""Hours, or days, that a setting can count: more than that is as good as never, and would be no time any more."""


class ImageSettings:
    """Settings by project; `server` returns the value of a server configuration key."""

    def __init__(self, server: Callable[[str], str]) -> None:
        self._server = server

    def value(self, session: Session, project: str, key: str) -> str:
        """Return the value of a key (`images.*`) for a project."""
        return projects.get(session, project).config.get(key) or self._server(key)

    def number(self, session: Session, project: str, key: str) -> int:
        """Return the value of a key that counts hours or days; 0 is off."""
        return min(int(self.value(session, project, key)), _MOST)

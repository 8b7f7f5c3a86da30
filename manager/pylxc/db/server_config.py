"""The server's configuration: only what differs from the defaults is stored."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pylxc.db.models import ServerConfig


def read(session: Session) -> dict[str, str]:
    """Return the stored keys and values."""
    return {row.key: row.value for row in session.scalars(select(ServerConfig))}


def write(session: Session, config: dict[str, str]) -> None:
    """Make `config` the whole of the stored configuration."""
    session.execute(delete(ServerConfig))
    session.add_all(ServerConfig(key=key, value=value) for key, value in config.items())

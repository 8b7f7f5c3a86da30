"""The server's configuration: only what differs from the defaults is stored."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.orm import Session

from pylxc.db.models import ServerConfig


def read(session: Session) -> dict[str, str]:
    """Return the stored keys and values."""
    return {row.key: row.value for row in session.execute(select(ServerConfig.key, ServerConfig.value))}


def write(session: Session, config: dict[str, str]) -> None:
    """Make `config` the whole of the stored configuration."""
    stored = read(session)
    old = [{"old": key} for key in stored if config.get(key) != stored[key]]
    new = [{"key": key, "value": value} for key, value in config.items() if stored.get(key) != value]
    connection = session.connection()  # the session's own way is for objects, and takes three times as long
    if old:
        connection.execute(delete(ServerConfig).where(ServerConfig.key == bindparam("old")), old)
    if new:
        connection.execute(insert(ServerConfig), new)

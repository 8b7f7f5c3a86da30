"""Alembic's environment: the daemon hands its connection in, the `alembic` command uses $PYLXC_DIR's database."""

from __future__ import annotations

import os
from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine

from pylxc.db.models import Base, UtcDateTime
from pylxc.paths import Paths


def render_item(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    """Keep revisions free of pylxc's own types: they have to run on whatever the models become later."""
    return "sa.DateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    """Run the migrations that are asked for inside the connection's own transaction."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


handed_in = context.config.attributes.get("connection")
if handed_in is not None:
    run(handed_in)
else:
    url = context.config.get_alembic_option("sqlalchemy.url")
    if not url:
        path = Paths().database
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        url = f"sqlite:///{path}"
    engine = create_engine(url)
    with engine.begin() as own:
        run(own)

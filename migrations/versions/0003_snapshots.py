"""Snapshots that are renamed and made, instances that go back to one

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("instances") as table:
        table.add_column(sa.Column("restoring", sa.String(), nullable=False, server_default=""))
    with op.batch_alter_table("instances_snapshots") as table:
        table.add_column(sa.Column("new_name", sa.String(), nullable=False, server_default=""))
        table.add_column(sa.Column("freezes", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    with op.batch_alter_table("instances_snapshots") as table:
        table.drop_column("freezes")
        table.drop_column("new_name")
    with op.batch_alter_table("instances") as table:
        table.drop_column("restoring")

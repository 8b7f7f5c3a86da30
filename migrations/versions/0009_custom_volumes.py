"""Custom volumes: renames and restores under way, and snapshots

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("storage_volumes") as table:
        table.add_column(sa.Column("new_name", sa.String(), server_default="", nullable=False))
        table.add_column(sa.Column("restoring", sa.String(), server_default="", nullable=False))
    op.create_table(
        "storage_volumes_snapshots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("storage_volume_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("new_name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["storage_volume_id"],
            ["storage_volumes.id"],
            name="fk_storage_volumes_snapshots_storage_volume_id_storage_volumes",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_storage_volumes_snapshots"),
        sa.UniqueConstraint("storage_volume_id", "name", name="uq_storage_volumes_snapshots_storage_volume_id_name"),
    )


def downgrade() -> None:
    op.drop_table("storage_volumes_snapshots")
    with op.batch_alter_table("storage_volumes") as table:
        table.drop_column("restoring")
        table.drop_column("new_name")

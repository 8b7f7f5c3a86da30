"""Backups: of custom volumes too, and in the form of a storage driver

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "backups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=True),
        sa.Column("storage_volume_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("alone", sa.Boolean(), nullable=False),
        sa.Column("optimized", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"], ["instances.id"], name="fk_backups_instance_id_instances", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["storage_volume_id"],
            ["storage_volumes.id"],
            name="fk_backups_storage_volume_id_storage_volumes",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_backups"),
        sa.UniqueConstraint("instance_id", "name", name="uq_backups_instance_id_name"),
        sa.UniqueConstraint("storage_volume_id", "name", name="uq_backups_storage_volume_id_name"),
    )
    op.execute(
        "INSERT INTO backups (id, instance_id, name, state, alone, optimized, created_at, expires_at) "
        "SELECT id, instance_id, name, state, instance_only, 0, created_at, expires_at FROM instances_backups"
    )
    op.drop_table("instances_backups")


def downgrade() -> None:
    op.create_table(
        "instances_backups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("instance_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("instance_only", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_id"],
            ["instances.id"],
            name="fk_instances_backups_instance_id_instances",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_instances_backups"),
        sa.UniqueConstraint("instance_id", "name", name="uq_instances_backups_instance_id_name"),
    )
    op.execute(
        "INSERT INTO instances_backups (id, instance_id, name, state, instance_only, created_at, expires_at) "
        "SELECT id, instance_id, name, state, alone, created_at, expires_at FROM backups WHERE instance_id IS NOT NULL"
    )
    op.drop_table("backups")

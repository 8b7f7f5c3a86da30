"""Who keeps an instance still is written down beside it, not with a snapshot

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_column("instances_snapshots", "freezes")


def downgrade() -> None:
    op.add_column("instances_snapshots", sa.Column("freezes", sa.Boolean(), nullable=False, server_default=sa.false()))

"""What projects reserve of their quotas."""

from __future__ import annotations

from alembic import op

from xloud_image.db import collations, tables

revision = "x0009"
down_revision = "x0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    collations.create(op.get_bind(), [tables.quotas, tables.reservations])

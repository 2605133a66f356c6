"""Long work beside requests, and who does it."""

from __future__ import annotations

from alembic import op

from xloud_image.db import collations, tables

revision = "x0004"
down_revision = "x0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    collations.create(op.get_bind(), [tables.jobs, tables.workers])

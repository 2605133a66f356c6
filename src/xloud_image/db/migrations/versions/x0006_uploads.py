"""Data of images that comes in several requests, and its parts."""

from __future__ import annotations

from alembic import op

from xloud_image.db import collations, tables

revision = "x0006"
down_revision = "x0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    collations.create(op.get_bind(), [tables.uploads, tables.upload_parts])

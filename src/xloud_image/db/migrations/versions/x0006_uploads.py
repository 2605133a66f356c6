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


def downgrade() -> None:
    """What has come so far is lost, and lies in its store; the images stay in the status that they have."""
    tables.own.drop_all(op.get_bind(), tables=[tables.uploads, tables.upload_parts])

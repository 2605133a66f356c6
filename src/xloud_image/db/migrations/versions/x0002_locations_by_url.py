"""Locations can be found by their URL: bytes that two images name go with the last one."""

from __future__ import annotations

from alembic import op

from xloud_image.db import indexes

revision = "x0002"
down_revision = "x0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Beside the writers of a running service where the engine can."""
    indexes.create(op.get_bind(), indexes.SECOND)

"""Glance's tables where there are none, our claims, and our indexes on Glance's tables."""

from __future__ import annotations

from alembic import op

from xloud_image.db import collations, indexes, tables

revision = "x0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """On a database that a Glance made, its tables stay as they are."""
    bind = op.get_bind()
    if tables.glance_version(bind) is None:
        tables.create_as_glance(bind)
    collations.create(bind, [tables.claims])
    indexes.create(bind, indexes.FIRST)

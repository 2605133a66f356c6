"""What is told of changes, until it is sent."""

from __future__ import annotations

from alembic import op

from xloud_image.db import collations, tables

revision = "x0005"
down_revision = "x0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    collations.create(op.get_bind(), [tables.events, tables.turns])
    tables.make_turns(op.get_bind(), "events")

"""What is told of calls, until it is sent."""

from __future__ import annotations

from alembic import op

from xloud_image.db import collations, tables

revision = "x0010"
down_revision = "x0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    bind = op.get_bind()
    collations.create(bind, [tables.audit])
    tables.make_turns(bind, "audit")

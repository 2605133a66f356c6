"""What is told of changes, until it is sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from xloud_image.db import collations, tables

revision = "x0005"
down_revision = "x0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    collations.create(op.get_bind(), [tables.events, tables.turns])
    bind = op.get_bind()
    if not bind.execute(sa.select(tables.turns.c.id)).all():
        bind.execute(tables.turns.insert(), {"id": "events"})


def downgrade() -> None:
    """What was not sent yet is lost."""
    tables.own.drop_all(op.get_bind(), tables=[tables.events, tables.turns])

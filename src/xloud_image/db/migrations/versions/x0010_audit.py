"""What is told of calls, until it is sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from xloud_image.db import collations, tables

revision = "x0010"
down_revision = "x0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    bind = op.get_bind()
    collations.create(bind, [tables.audit])
    if not bind.execute(sa.select(tables.turns.c.id).where(tables.turns.c.id == "audit")).all():
        bind.execute(tables.turns.insert(), {"id": "audit"})


def downgrade() -> None:
    """What was not sent yet is lost."""
    tables.own.drop_all(op.get_bind(), tables=[tables.audit])
    op.get_bind().execute(tables.turns.delete().where(tables.turns.c.id == "audit"))

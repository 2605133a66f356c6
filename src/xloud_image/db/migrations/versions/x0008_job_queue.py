"""Jobs have turns, and deaths of those who worked on them; the next one is the first of an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from xloud_image.db import indexes, tables

revision = "x0008"
down_revision = "x0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Where the table was made by now, it has its columns already."""
    bind = op.get_bind()
    there = {column["name"] for column in sa.inspect(bind).get_columns(tables.jobs.name)}
    for name in ("turn", "deaths"):
        if name not in there:
            op.add_column(tables.jobs.name, sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    indexes.create(bind, indexes.JOBS)

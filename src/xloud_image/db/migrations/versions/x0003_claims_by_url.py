"""Claims can be found by their URL and by their kind: however many wait, each look at them is short."""

from __future__ import annotations

from alembic import op

from xloud_image.db import indexes

revision = "x0003"
down_revision = "x0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Beside the writers of a running service where the engine can."""
    indexes.create(op.get_bind(), indexes.THIRD)

"""What Alembic runs: the steps on the connection that `db.schema` gives, each statement committed by itself.

Every step can be run again after it stopped half-way: not every engine can take DDL back. There are none back: the way
back is `db.schema.downgrade`, which leaves nothing of ours.
"""

from __future__ import annotations

from alembic import context

from xloud_image.db.tables import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], version_table=VERSION_TABLE, transactional_ddl=False
)
context.run_migrations()

"""Keystone for gunicorn; runs in its own environment, never in that of the tests."""

import sys

# Keystone would read the arguments of gunicorn
sys.argv = ["keystone"]

import sqlalchemy  # noqa: E402
from oslo_db.sqlalchemy import enginefacade  # noqa: E402

# A login reads and then writes in one transaction. Begun as a reader, it fails at once
# when another one writes ("database is locked"); begun as a writer, it waits.
_original = enginefacade._TransactionFactory._create_session


def _create_session(self, mode, bind=None):
    session = _original(self, mode, bind)
    if mode is enginefacade._WRITER and bind is None:
        session.bind = session.bind.execution_options(writes=True)
    return session


enginefacade._TransactionFactory._create_session = _create_session


@sqlalchemy.event.listens_for(sqlalchemy.engine.Engine, "begin")
def _begin(connection):
    if connection.get_execution_options().get("writes") and "in_transaction" not in connection.info:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.info["in_transaction"] = True


from keystone.wsgi.api import application  # noqa: E402,F401

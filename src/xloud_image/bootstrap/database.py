"""The empty database and its user, made by an administrator of the server. Tables are for `db.schema`.

May be repeated: what is there stays, data above all. The password of the user becomes the one of the configuration.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import sqlalchemy as sa

from xloud_image.db import arguments, connect, connection_errors
from xloud_image.db.dialect_errors import translate
from xloud_image.errors import ConfigError, DatabaseUnavailable

if TYPE_CHECKING:
    from xloud_image.config.settings import DatabaseSettings


async def usable(settings: DatabaseSettings) -> bool:
    """Whether the service's own account can work in its database now."""
    engine = connect.engine(settings, poolclass=sa.NullPool)
    try:
        async with asyncio.timeout(connect.patience(settings)), engine.connect() as conn:
            await conn.exec_driver_sql("SELECT 1")
    except Exception:  # noqa: BLE001 - whatever keeps it out, the administrator is asked, who tells a better reason
        return False
    finally:
        await engine.dispose()
    return True


async def create(settings: DatabaseSettings, administrator: str, password: str) -> list[str]:
    """Make database and user; what was done, a sentence each (empty: all was there).

    ConfigError: the URL names no database, user or password, or the administrator is refused. DatabaseUnavailable.
    """
    written = arguments.parse(settings.connection)
    given = arguments.read(settings).url  # user, password and database may stand in an option file
    backend = given.get_backend_name()
    if backend == "sqlite" or await usable(settings):
        return []
    if not (given.database and given.username and given.password):
        raise ConfigError("[database] connection must name a database, a user and a password to make them")
    if backend not in ("mysql", "mariadb"):
        raise ConfigError(
            f"a database of {backend} is made by its administrator: "
            f'CREATE ROLE "{given.username}" LOGIN PASSWORD …; CREATE DATABASE "{given.database}" OWNER …'
        )
    as_administrator = sa.URL.create(
        written.drivername, administrator, password, given.host, given.port, database=None, query=written.query
    )
    own = dataclasses.replace(settings, connection=as_administrator.render_as_string(hide_password=False))
    engine = connect.engine(own, poolclass=sa.NullPool)
    try:
        async with asyncio.timeout(connect.patience(settings) + 60), engine.connect() as conn:
            return await conn.run_sync(_make, given)
    except (ConfigError, DatabaseUnavailable):
        raise
    except Exception as error:
        if "Access denied" in str(error):
            raise ConfigError(
                f"the database server refuses its administrator '{administrator}'; set database_user and "
                "database_password"
            ) from None
        raise (connection_errors.explain(error, arguments.read(own)) or translate(error)) from error
    finally:
        await engine.dispose()


def _make(conn: sa.Connection, given: sa.URL) -> list[str]:
    database, user = str(given.database), str(given.username)
    done = []
    there = conn.exec_driver_sql(
        "SELECT count(*) FROM information_schema.schemata WHERE schema_name = %s", (database,)
    ).scalar()
    name = "`" + database.replace("`", "``") + "`"
    if not there:
        conn.exec_driver_sql(f"CREATE DATABASE IF NOT EXISTS {name.replace('%', '%%')} CHARACTER SET utf8mb4")
        done.append(f"made the database {database}")
    account = f"{_quoted(user)}@'%%'"
    secret = _quoted(str(given.password))
    conn.exec_driver_sql(f"CREATE USER IF NOT EXISTS {account} IDENTIFIED BY {secret}")
    conn.exec_driver_sql(f"ALTER USER {account} IDENTIFIED BY {secret}")
    conn.exec_driver_sql(f"GRANT ALL PRIVILEGES ON {name.replace('%', '%%')}.* TO {account}")
    done.append(f"gave {user} its password and rights")
    return done


def _quoted(text: str) -> str:
    """A literal of MySQL. Backslashes are doubled: NO_BACKSLASH_ESCAPES is not in our sql_mode."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''").replace("%", "%%") + "'"

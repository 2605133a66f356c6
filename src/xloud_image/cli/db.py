"""`xloud-image db …`: the state of the database."""

import asyncio
import json
import os
from typing import TYPE_CHECKING, Annotated

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, Wait, load

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xloud_image.config.settings import DatabaseSettings
    from xloud_image.db.purge import Purged

app = typer.Typer(
    no_args_is_help=True, help="The database: bring it to this release, ask its version, check it, purge it."
)


def database_settings(files: ConfigFiles, dirs: ConfigDirs, *, make: bool = False) -> "DatabaseSettings":
    """The settings; other sections of the file may be wrong here. `make`: the directories of the embedded default."""
    from xloud_image.cli import ready
    from xloud_image.errors import ConfigError

    loaded = load(files, dirs)
    wrong = [str(finding) for finding in loaded.refusals if finding.about.startswith("[database]")]
    if wrong:
        raise ConfigError("; ".join(wrong))
    if make and loaded.embedded:
        ready.make_embedded_state(loaded.settings)
    ready.sqlite_place(loaded.settings)
    return loaded.settings.database


@app.command()
def create(
    administrator: Annotated[str, typer.Option(help="Who may make databases and users on the server.")] = "root",
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Make the empty database and its user on MySQL or MariaDB, when they are not there; may be repeated.

    The administrator's password is read from XLOUD_IMAGE_ADMIN_PASSWORD; it is not needed when the service's own
    account works already. Each line that begins with "changed:" tells what was done.

        xloud-image db create --config-dir /etc/glance
    """
    from xloud_image.bootstrap import database

    settings = database_settings(config_file, config_dir)
    password = os.environ.get("XLOUD_IMAGE_ADMIN_PASSWORD", "")
    done = asyncio.run(database.create(settings, administrator, password))
    for line in done:
        typer.echo(f"changed: {line}")
    if not done:
        typer.echo("Everything was there.")


@app.command()
def upgrade(
    metadefs: Annotated[
        bool, typer.Option("--metadefs", help="Have the metadata definitions that come with the service in it, too.")
    ] = False,
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Bring the database to the state that this release needs; an empty one is filled.

    The tables of a running Glance stay as they are: tables and indexes of our own are added beside them. It may be
    run again, and on several nodes at once.

        xloud-image db upgrade --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.db import schema

    settings = database_settings(config_file, config_dir, make=True)
    before = asyncio.run(schema.version(settings))
    after = asyncio.run(schema.upgrade(settings))
    if before == after:
        typer.echo(f"The database is at {after.ours} already.")
    else:
        typer.echo(f"The database went from {before.ours or 'nothing'} to {after.ours}.")
    if metadefs:
        from xloud_image.bootstrap import metadefs as definitions
        from xloud_image.metadefs import files

        done = asyncio.run(definitions.load(settings, files.read(files.STANDARD)))
        typer.echo(
            f"{list(done.values()).count('added')} of {len(done)} namespaces of metadata definitions were added."
        )


@app.command()
def downgrade(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, wait: Wait = 60.0) -> None:
    """Take our tables and indexes out of the database, so that nothing of us stays: the same as `takeover undo`.

    This service must be stopped on every node. Glance's tables and all their rows stay as they are. It may be cut off
    at any point and run again.

        xloud-image db downgrade --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.cli import takeover

    takeover.undo(config_file, config_dir, wait)


@app.command()
def version(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print the version that the database has, of our tables and of Glance's, and the one that is wanted.

    Exit code 1 when this release cannot serve with it.
    """
    from xloud_image.db import schema

    found = asyncio.run(schema.version(database_settings(config_file, config_dir)))
    if as_json:
        facts = {"version": found.ours, "wanted": found.wanted, "glance": found.glance, "current": found.current}
        typer.echo(json.dumps(facts, indent=2))
    else:
        typer.echo(f"version {found.ours or 'none'}, wanted {found.wanted}; Glance's tables: {found.glance or 'none'}")
    raise typer.Exit(0 if found.current else 1)


@app.command()
def check(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Compare the tables, columns and indexes of the database with what this release needs; nothing is changed.

    Exit code 1 when something is missing or different.
    """
    from xloud_image.db import schema

    settings = database_settings(config_file, config_dir)
    found = asyncio.run(schema.check(settings))
    if as_json:
        typer.echo(json.dumps({"ok": not found, "found": found}, indent=2))
    else:
        typer.echo("\n".join(found) if found else "The database is as this release needs it.")
    raise typer.Exit(1 if found else 0)


Days = Annotated[int, typer.Option("--age-in-days", min=0, max=36500, help="Deleted longer ago than this.")]
Rows = Annotated[int, typer.Option("--max-rows", min=-1, help="So many rows at most; -1: all.")]


@app.command()
def purge(days: Days = 30, rows: Rows = 100, config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Remove for good what was deleted long ago: properties, tags, locations and members of images, and tasks.

    The rows of the images themselves stay, so that no id is used a second time; `db purge-images-table` removes them,
    too. What still waits for a store, or for a scrubber, stays.

        xloud-image db purge --age-in-days 90 --max-rows -1 --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.db import purge as rows_of

    _purge(rows_of.details, days, rows, config_file, config_dir)


@app.command("purge-images-table")
def purge_images_table(
    days: Days = 180, rows: Rows = 100, config_file: ConfigFiles = None, config_dir: ConfigDirs = None
) -> None:
    """Remove the rows of images that were deleted long ago and of which `db purge` has removed everything else.

    Somebody may then make another image with the id of one of them, for which servers and volumes may still ask.

        xloud-image db purge-images-table --age-in-days 365 --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.db import purge as rows_of

    _purge(rows_of.images, days, rows, config_file, config_dir)


def _purge(
    of: "Callable[..., Awaitable[list[Purged]]]", days: int, rows: int, files: ConfigFiles, dirs: ConfigDirs
) -> None:
    from xloud_image.db.engine import Database

    settings = database_settings(files, dirs)

    async def work() -> "list[Purged]":
        database = Database(settings)
        await database.start()
        try:
            return await of(database, days=days, most=None if rows < 0 else rows)
        finally:
            await database.aclose()

    for one in asyncio.run(work()):
        typer.echo(f"{one.table}: {one.rows} rows removed")

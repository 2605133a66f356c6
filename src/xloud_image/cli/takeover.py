"""`xloud-image takeover …`: from Glance to this service on the same database, and back."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, Wait, load, refuse

if TYPE_CHECKING:
    from xloud_image.config.loader import Loaded
    from xloud_image.services.runtime import Runtime
    from xloud_image.services.takeover import Report

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="The way from Glance to this service, on the same database, and back.")


def _ask(loaded: "Loaded", work: "Callable[[Runtime], Awaitable[T]]") -> T:
    from xloud_image.services.runtime import Runtime

    settings = loaded.settings
    hasty = dataclasses.replace(settings, database=dataclasses.replace(settings.database, max_retries=0))

    async def run() -> T:
        async with Runtime.open(hasty, "db") as runtime:
            return await work(runtime)

    return asyncio.run(run())


def _check(loaded: "Loaded") -> "Report":
    """Of the database and the stores, and of whatever would keep `serve` from starting."""
    from xloud_image.cli import ready
    from xloud_image.services import takeover

    report = _ask(loaded, takeover.check)
    told = [takeover.Finding(one.severity, str(one)) for one in ready.complete(loaded).findings]
    report.findings[:0] = told
    return report


@app.command()
def check(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Read Glance's configuration and database, ask the stores, and tell what this service would make of them.

    Nothing is changed, and Glance may run. Exit code 1 when something is in the way.

        xloud-image takeover check --config-dir /etc/glance
    """
    loaded = load(config_file, config_dir)
    if loaded.embedded:
        from xloud_image.errors import ConfigError

        raise ConfigError("name the configuration of Glance, as in --config-dir /etc/glance")
    if not loaded.settings.default_store:
        refuse(loaded)
    report = _check(loaded)
    if as_json:
        facts = dataclasses.asdict(report) | {"possible": report.possible}
        typer.echo(json.dumps(facts, indent=2))
    else:
        for one in report.findings:
            typer.echo(f"{one.severity}: {one.sentence}{f'. Do: {one.cure}' if one.cure else ''}")
        images = ", ".join(f"{number} {status}" for status, number in report.statuses.items()) or "none"
        typer.echo(f"images: {images}")
        typer.echo("locations: " + (", ".join(f"{n} in {store}" for store, n in report.stores.items()) or "none"))
        typer.echo("Nothing is in the way." if report.possible else "This service cannot take over as it is.")
    raise typer.Exit(0 if report.possible else 1)


@app.command()
def run(
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    glance_is_stopped: Annotated[
        bool,
        typer.Option(
            "--glance-is-stopped",
            help="No Glance runs on this database, on no node: settle what waits for one of its processes.",
        ),
    ] = False,
) -> None:
    """Prepare the database: tables and indexes of our own beside Glance's, which stay as they are. Then start `serve`.

    It may be run again. While a Glance runs on the database, leave --glance-is-stopped out: both may serve it.

        xloud-image takeover run --glance-is-stopped --config-dir /etc/glance
    """
    from xloud_image.cli import ready
    from xloud_image.services import takeover

    loaded = ready.complete(load(config_file, config_dir))
    refuse(loaded)
    done = _ask(loaded, lambda runtime: takeover.begin(runtime, glance_is_stopped=glance_is_stopped))
    for line in done or ["Everything was ready."]:
        typer.echo(line)


@app.command()
def undo(
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    wait: Wait = 60.0,
) -> None:
    """Take our tables and indexes out of the database, so that nothing of us stays; then start Glance.

    This service must be stopped on every node. What is pending is finished first; what cannot be keeps the tables
    there, and is named. Images, members, tasks and definitions stay as they are.

        xloud-image takeover undo --config-dir /etc/glance
    """
    from xloud_image.cli import ready
    from xloud_image.services import takeover

    loaded = load(config_file, config_dir)
    refuse(loaded)
    ready.can_listen(loaded.settings.server)  # else it runs here still
    done = _ask(loaded, lambda runtime: takeover.end(runtime, patience=wait))
    for line in done or ["Nothing of us was there."]:
        typer.echo(line)

"""`xloud-image jobs …`: the long work of a service, for its operator."""

import asyncio
import json
from typing import TYPE_CHECKING

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, load

if TYPE_CHECKING:
    from xloud_image.services.work import Work

app = typer.Typer(no_args_is_help=True, help="Long work, such as imports: what waits, what is under way, who does it.")


def _look(files: ConfigFiles, dirs: ConfigDirs) -> "Work":
    from xloud_image.services import work
    from xloud_image.services.runtime import Runtime

    async def look() -> "Work":
        async with Runtime.open(load(files, dirs).settings, "db") as runtime:
            return await work.look(runtime)

    return asyncio.run(look())


@app.command("list")
def list_(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print the unfinished jobs, the oldest first: kind, image, state, attempts, progress, the last error.

    What has ended is told by `GET /v2/tasks`.

        xloud-image jobs list --config-file /etc/glance/glance-api.conf
    """
    found = _look(config_file, config_dir).jobs
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not found:
        typer.echo("No job waits, and none is under way.")
    for one in found if not as_json else ():
        typer.echo(
            f"{one['id']}  {one['kind']}  image {one['image_id']}  {one['state']}  attempt {one['attempts']}  "
            f"{one['seconds']} s old{'  ' + one['progress'] if one['progress'] else ''}"
            f"{'  last error: ' + one['error'] if one['error'] else ''}"
        )


@app.command()
def status(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print how many jobs of each kind wait or are under way, the age of the oldest, and the processes that do them.

    Exit code 1 when jobs wait and no process does any.

        xloud-image jobs status --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.services.holder import place

    found = _look(config_file, config_dir)
    facts = {"kinds": found.kinds, "workers": found.workers}
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        for one in found.kinds:
            typer.echo(f"{one['kind']}: {one['count']} {one['state']}, the oldest {one['oldest_seconds']} s old")
        for each in found.workers:
            typer.echo(f"worker on {place(each['id'])}: {'at work' if each['alive'] else 'not heard of any more'}")
        if not found.kinds:
            typer.echo("No job waits, and none is under way.")
        if not found.workers:
            typer.echo("No process does long work: see [xloud] job_workers, or start `xloud-image worker`.")
    idle = found.kinds and not any(each["alive"] for each in found.workers)
    raise typer.Exit(1 if idle else 0)

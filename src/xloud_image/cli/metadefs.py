"""`xloud-image metadefs …`: metadata definitions from files, and into files."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from xloud_image.cli.db import database_settings
from xloud_image.cli.options import ConfigDirs, ConfigFiles

app = typer.Typer(
    no_args_is_help=True,
    help="Metadata definitions: which properties images, flavors and aggregates may have, for dashboards.",
)

Place = Annotated[
    Path | None,
    typer.Argument(
        metavar="[FILE|DIRECTORY]",
        help="A file of one namespace, or a directory of *.json, such as /etc/glance/metadefs. "
        "Without it: the namespaces that come with the service.",
    ),
]


@app.command()
def load(
    place: Place = None,
    merge: Annotated[bool, typer.Option("--merge", help="Add to namespaces that are there what they lack.")] = False,
    prefer_new: Annotated[
        bool, typer.Option("--prefer-new", help="That, and change what the files say otherwise.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make namespaces that are there anew.")] = False,
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Have the namespaces of files in the database; those that are there stay as they are unless an option says else.

    It may be run again, and on several nodes at once. The files are those of Glance.

        xloud-image metadefs load --config-file /etc/glance/glance-api.conf
    """
    if prefer_new and overwrite:
        raise typer.BadParameter("--prefer-new and --overwrite contradict each other")
    from xloud_image.bootstrap import metadefs
    from xloud_image.metadefs import files

    settings = database_settings(config_file, config_dir, make=True)
    how: metadefs.How = "overwrite" if overwrite else "prefer" if prefer_new else "merge" if merge else "leave"
    done = asyncio.run(metadefs.load(settings, files.read(place or files.STANDARD), how))
    for name, what in done.items():
        if what != "left":
            typer.echo(f"changed: {name} {what}")
    counts = Counter(done.values())
    typer.echo(f"{counts['added']} namespaces added, {counts['changed']} changed, {counts['left']} left as they were.")


@app.command()
def unload(
    place: Place = None,
    everything: Annotated[bool, typer.Option("--all", help="Every namespace, whoever made it.")] = False,
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Remove the namespaces that files name from the database, with all that they hold, protected ones too.

    xloud-image metadefs unload --config-file /etc/glance/glance-api.conf
    """
    if everything and place is not None:
        raise typer.BadParameter("--all takes no file")
    from xloud_image.bootstrap import metadefs
    from xloud_image.metadefs import files

    settings = database_settings(config_file, config_dir)
    names = None if everything else [one.name for one in files.read(place or files.STANDARD)]
    removed = asyncio.run(metadefs.unload(settings, names))
    for name in removed:
        typer.echo(f"changed: {name} removed")
    if not removed:
        typer.echo("None of them was there.")


@app.command()
def export(
    directory: Annotated[Path, typer.Argument(help="Where the files go; it is made when it is missing.")],
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
) -> None:
    """Write every namespace into a file of its own, in the form that `load` and Glance read.

    xloud-image metadefs export ./metadefs --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.bootstrap import metadefs
    from xloud_image.metadefs import files

    found = asyncio.run(metadefs.export(database_settings(config_file, config_dir)))
    written = files.write(directory, found)
    typer.echo(f"{len(written)} namespaces are in {directory}.")

"""`xloud-image config …`: what a configuration means."""

import json

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, load

app = typer.Typer(no_args_is_help=True, help="What the configuration means.")

_TITLES = {
    "refuse": "The service would not do what the configuration says:",
    "warning": "To be looked at:",
    "info": "Not used here:",
}


@app.command()
def check(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print the configuration in force, with secrets masked, and what became of every option.

    Lines that begin with # have their default. Each option of a file is honoured, known but not yet built (a warning),
    unsafe to ignore (the service refuses to start), without meaning here, or unknown (with the nearest known name).
    Every guess is a line of its own.

    Exit code 1 when the service would not do what the files say, else 0.

        xloud-image config check --config-file /etc/glance/glance-api.conf

        xloud-image config check --json | jq '.notes[] | select(.level == "refuse")'
    """
    from xloud_image.cli.ready import complete
    from xloud_image.config import check as report

    loaded = complete(load(config_file, config_dir))
    if as_json:
        typer.echo(json.dumps(report.as_json(loaded.resolved, loaded.notes, loaded.files), indent=2))
    else:
        read = ", ".join(map(str, loaded.files)) or "no file: the embedded default"
        typer.echo(f"# read: {read}\n\n{report.as_ini(loaded.resolved)}")
        for level, title in _TITLES.items():
            notes = [note for note in loaded.notes if note.level == level]
            if notes:
                typer.echo(f"# {title}")
            for note in notes:
                typer.echo(f"#   {note.kind}: {note}")
    raise typer.Exit(1 if loaded.refusals else 0)

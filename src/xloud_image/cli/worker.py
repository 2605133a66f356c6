"""`xloud-image worker`: does the long work of a service that runs elsewhere."""

import typer

from xloud_image.cli.options import ConfigDirs, ConfigFiles, load


def worker(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Do long work, such as imports, until SIGTERM or Ctrl-C; any number of these may run, on any node.

    All take their work from the database. `serve` keeps [xloud] job_workers of them itself; where these are others'
    work, set it to 0 there. What is under way at a stop goes on in another one at once.

        xloud-image worker --config-file /etc/glance/glance-api.conf
    """
    from xloud_image.cli.serve import prepare

    loaded = prepare(load(config_file, config_dir), listens=False)
    from xloud_image import worker as process

    raise typer.Exit(process.run(loaded))

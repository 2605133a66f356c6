"""The command line: words and their help, exit codes, sentences on standard error. What the words do is for the rooms
below, which are imported when a word is used, so that `--help` answers at once.

Exit codes: 0 done; 1 it cannot be done, or the check found something (one sentence says what); 2 wrong usage.
"""

import os
import sys
from typing import Annotated

import typer

from xloud_image import __version__, deaths
from xloud_image.cli import (
    cache,
    config,
    db,
    images,
    jobs,
    keystone,
    login,
    metadefs,
    restoring,
    stores,
    takeover,
    tasks,
)
from xloud_image.cli.serve import clear, serve
from xloud_image.cli.worker import worker
from xloud_image.errors import ImageServiceError

app = typer.Typer(
    name="xloud-image",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(serve)
app.command()(worker)
app.add_typer(images.app, name="images")
images.app.command()(restoring.restore)
app.add_typer(tasks.app, name="tasks")
app.add_typer(config.app, name="config")
app.add_typer(db.app, name="db")
app.add_typer(metadefs.app, name="metadefs")
app.add_typer(stores.app, name="stores")
app.add_typer(jobs.app, name="jobs")
app.add_typer(cache.app, name="cache")
app.add_typer(takeover.app, name="takeover")
app.add_typer(keystone.app, name="keystone")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"xloud-image {__version__}")
        raise typer.Exit


@app.callback()
def _all(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """An image service that speaks the OpenStack Image API v2.

    Without any configuration it serves on 127.0.0.1:9292, without login, and keeps everything in ./state:

        xloud-image serve

    With the files that operators have (/etc/glance is read by itself when it is there):

        xloud-image config check --config-file /etc/glance/glance-api.conf

        xloud-image db upgrade   --config-file /etc/glance/glance-api.conf

        xloud-image stores check --config-file /etc/glance/glance-api.conf

        xloud-image serve        --config-file /etc/glance/glance-api.conf

    And for whoever uses images, of any cloud:

        xloud-image images create noble-server.qcow2
    """


@app.command("batch", hidden=True)
def _batch(commands: Annotated[str, typer.Argument(metavar="JSON", help="A list of objects with `words`.")]) -> None:
    """Run several commands for a deployment: a container is started once for them, and the libraries are loaded once.

    Prints a JSON list with the exit code and the output of each. `must` in an object: when it fails no other is run.
    """
    from xloud_image.cli import batch

    typer.echo(batch.run(commands, lambda: _run(app, "xloud-image")))


def main() -> None:
    """Run the command line of this process; never returns."""
    run(app, "xloud-image")


def run(words: typer.Typer, name: str) -> None:
    """Run a command line under its name; never returns."""
    # A library (stevedore) keeps a list of what is installed in the home folder. A service writes nothing there; a
    # place that can hold no file is the library's only switch.
    os.environ.setdefault("XDG_CACHE_HOME", os.devnull)
    try:
        _run(words, name)
    except SystemExit as end:
        if "rados" in sys.modules:  # its threads may be at work for a store that does not answer
            clear()  # that way ends without what is registered for the end
            deaths.leave(end.code)
        raise


def _run(words: typer.Typer, name: str) -> None:
    """The command line, with a sentence for every error. Ends by `SystemExit`."""
    try:
        words(login.take(sys.argv[1:]), prog_name=name)
    except ImageServiceError as error:
        _stop(error.message)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # the reader went away; a second complaint when the interpreter flushes is avoided
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("XLOUD_IMAGE_TRACEBACK"):
            raise
        _stop(
            f"this is a mistake in the program, not yours: {type(error).__name__}: {error} "
            "(set XLOUD_IMAGE_TRACEBACK=1 to see where)"
        )


def _stop(sentence: str) -> None:
    from xloud_image.config.masking import mask

    sys.stderr.write(f"xloud-image: {mask(sentence)}\n")
    sys.exit(1)


__all__ = ["app", "main", "run"]

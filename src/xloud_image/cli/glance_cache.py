"""The commands that operators of Glance have for its cache, as words for those of `xloud-image cache`. They work on the
directory of this node and need no login; what was only for calls over the network is taken and not used.
"""

import itertools
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from xloud_image import cli
from xloud_image.cli import cache
from xloud_image.cli.options import ConfigDirs, ConfigFiles, load

# options of Glance's command that have a value, those of its login, and those that say nothing here
_VALUED = frozenset({"--config-file", "--config-dir", "--host", "-H", "--port", "-p"})
_LOGIN = frozenset({"-A", "--auth_token", "-I", "-K", "-R", "-T", "-N", "-S"})
_UNUSED = frozenset({"-k", "--insecure"})
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - not listened on

Image = Annotated[str, typer.Argument(metavar="IMAGE", help="Id of an image.")]
Force = Annotated[bool, typer.Option("--force", "-f", hidden=True)]
Debug = Annotated[bool, typer.Option("--debug", "-d", "--verbose", "-v", hidden=True)]


def _app(name: str, text: str) -> typer.Typer:
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=name == "glance-cache-manage",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


_manage = _app("glance-cache-manage", "The image cache of this node, without a login.")
_prefetcher = _app("glance-cache-prefetcher", "Fetch what is queued.")
_cleaner = _app("glance-cache-cleaner", "Remove what is nobody's.")
_pruner = _app("glance-cache-pruner", "Bring the cache down to its limit.")


@_manage.callback()
def _all(
    ctx: typer.Context,
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    force: Force = False,
    debug: Debug = False,
    host: Annotated[str, typer.Option("--host", "-H", hidden=True)] = "localhost",
    port: Annotated[str, typer.Option("--port", "-p", hidden=True)] = "",
) -> None:
    if host not in (*_HERE, socket.gethostname(), socket.getfqdn()):
        typer.echo(f"This command works on its own node; run it on {host}.", err=True)
        raise typer.Exit(2)
    ctx.obj = load(config_file, config_dir)


@_manage.command("list-cached")
def _list_cached(ctx: typer.Context) -> None:
    """Print the cached images."""
    found = cache.look(ctx.obj)
    typer.echo(f"Found {len(found.cached)} cached images")
    typer.echo(cache.table(found))


@_manage.command("list-queued")
def _list_queued(ctx: typer.Context) -> None:
    """Print the images that are to be fetched."""
    found = cache.look(ctx.obj)
    typer.echo(f"Found {len(found.queued)} queued images")
    for image in found.queued:
        typer.echo(image)


@_manage.command("queue-image")
def _queue_image(ctx: typer.Context, image: Image) -> None:
    """Have this node fetch an image."""
    cache.put_into_queue(ctx.obj, [image])
    typer.echo(f"Queued image {image} for caching")


@_manage.command("delete-cached-image")
def _delete_cached(ctx: typer.Context, image: Image) -> None:
    """Remove an image from the cache."""
    _deleted(cache.take_out(ctx.obj, [image], queued=False), "cached")


@_manage.command("delete-queued-image")
def _delete_queued(ctx: typer.Context, image: Image) -> None:
    """Fetch an image no more."""
    _deleted(cache.take_out(ctx.obj, [image], cached=False), "queued")


def _deleted(missing: list[str], where: str) -> None:
    for image in missing:
        typer.echo(f"Image {image} is not {where}", err=True)
    raise typer.Exit(1 if missing else 0)


@_manage.command("delete-all-cached-images")
def _delete_all_cached(ctx: typer.Context) -> None:
    """Empty the cache."""
    typer.echo(f"Deleted {cache.empty(ctx.obj, queued=False)} cached images")


@_manage.command("delete-all-queued-images")
def _delete_all_queued(ctx: typer.Context) -> None:
    """Empty the queue."""
    typer.echo(f"Deleted {cache.empty(ctx.obj, cached=False)} queued images")


@_prefetcher.command()
def _prefetch(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, debug: Debug = False) -> None:
    """Fetch what is queued for the cache of this node."""
    raise typer.Exit(cache.fetch(load(config_file, config_dir)))


@_cleaner.command()
def _clean(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, debug: Debug = False) -> None:
    """Remove unfinished files of processes that died, and images that were deleted."""
    cache.tidy(load(config_file, config_dir))


@_pruner.command()
def _prune(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, debug: Debug = False) -> None:
    """Bring the cache of this node down to image_cache_max_size."""
    cache.shrink(load(config_file, config_dir))


_APPS = {app.info.name: app for app in (_manage, _prefetcher, _cleaner, _pruner)}


def arranged(words: Sequence[str]) -> list[str]:
    """The words of a call of glance-cache-manage, which takes its options before and behind the command, those of a
    login among them: the login is left out, the others stand before the command."""
    ours: list[str] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        name, _, value = word.partition("=")
        if name in _LOGIN or name.startswith(("--os-", "--os_")):
            if not value:
                next(rest, None)
        elif word in _UNUSED:
            continue
        elif name in _VALUED:
            ours += [word] if value else [word, *itertools.islice(rest, 1)]
        elif word.startswith("-"):
            ours.append(word)
        else:
            others.append(word)
    return [*ours, *others] if others else list(words)


def main() -> None:
    """Run the command of this process, by the name that it was called by; never returns."""
    name = Path(sys.argv[0]).name
    if _APPS.get(name, _manage) is _manage:
        sys.argv[1:] = arranged(sys.argv[1:])
    cli.run(_APPS.get(name, _manage), name)

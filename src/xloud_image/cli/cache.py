"""`xloud-image cache …`: the image cache of this node, without a login."""

import asyncio
import dataclasses
import datetime as dt
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, load

if TYPE_CHECKING:
    from xloud_image.config.loader import Loaded
    from xloud_image.services.cache_keeping import Listing
    from xloud_image.services.runtime import Part, Runtime

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="The image cache of this node; works on its directory, without a login.")

Images = Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Ids of images.")]
OnlyCached = Annotated[bool, typer.Option("--cached", help="The cached images only.")]
OnlyQueued = Annotated[bool, typer.Option("--queued", help="The queue only.")]


def do(loaded: "Loaded", work: "Callable[[Runtime], Awaitable[T]]", *parts: "Part") -> T:
    """What is found with these parts of the service open."""
    from xloud_image.services.runtime import Runtime

    async def run() -> T:
        async with Runtime.open(loaded.settings, *parts) as runtime:
            return await work(runtime)

    return asyncio.run(run())


def look(loaded: "Loaded") -> "Listing":
    """What is cached and queued here."""
    from xloud_image.services import cache_keeping

    return do(loaded, cache_keeping.listing)


def table(found: "Listing") -> str:
    """The cached images for people."""
    lines = [("ID", "Last Accessed (UTC)", "Last Modified (UTC)", "Size", "Hits")]
    lines += [
        (entry.image_id, _time(entry.last_accessed), _time(entry.last_modified), str(entry.size), str(entry.hits))
        for entry in found.cached
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number > 2 else text.ljust(width)
            for number, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _time(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S")


def put_into_queue(loaded: "Loaded", images: list[str]) -> None:
    """Have this node fetch them."""
    from xloud_image.identity.context import Context
    from xloud_image.services import cache_keeping

    async def work(runtime: "Runtime") -> None:
        for image in images:
            await cache_keeping.queue(runtime, Context(is_admin=True), image.lower())

    do(loaded, work, "db")


def take_out(loaded: "Loaded", images: list[str], *, cached: bool = True, queued: bool = True) -> list[str]:
    """Out of cache and queue; those that were in neither."""
    from xloud_image.services import cache_keeping

    async def work(runtime: "Runtime") -> list[str]:
        return [
            image
            for image in images
            if not await cache_keeping.delete(runtime, image.lower(), cached=cached, queued=queued)
        ]

    return do(loaded, work)


def empty(loaded: "Loaded", *, cached: bool = True, queued: bool = True) -> int:
    """All of it; how many images went."""
    from xloud_image.services import cache_keeping

    return do(loaded, lambda runtime: cache_keeping.clear(runtime, cached=cached, queued=queued))


def fetch(loaded: "Loaded") -> int:
    """Fetch what is queued; the exit code."""
    from xloud_image.services import cache_keeping

    done, failed = do(loaded, cache_keeping.fetch_all, "db", "stores")
    typer.echo(f"{done} of {done + len(failed)} images were fetched.")
    for image, reason in failed.items():
        typer.echo(f"{image} stays queued: {reason}", err=True)
    return 1 if failed else 0


def tidy(loaded: "Loaded") -> None:
    """Away with what is nobody's."""
    from xloud_image.services import cache_keeping

    do(loaded, cache_keeping.clean, "db")


def shrink(loaded: "Loaded") -> None:
    """Down to the limit."""
    from xloud_image.services import cache_keeping

    files, size = do(loaded, cache_keeping.prune)
    typer.echo(f"{files} images with {size} bytes were removed.")


@app.command("list")
def list_(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print the images that this node has cached, and those that it is to fetch.

    xloud-image cache list --config-file /etc/glance/glance-api.conf
    """
    found = look(load(config_file, config_dir))
    if as_json:
        cached = [dataclasses.asdict(entry) for entry in found.cached]
        typer.echo(json.dumps({"cached_images": cached, "queued_images": found.queued}, indent=2))
        return
    typer.echo(table(found) if found.cached else "No image is cached.")
    for image in found.queued:
        typer.echo(f"{image}  queued")


@app.command()
def queue(images: Images, config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Have this node fetch images into its cache: the service does it soon, `cache prefetch` at once.

    xloud-image cache queue 3f0c…
    """
    put_into_queue(load(config_file, config_dir), images)


@app.command()
def prefetch(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Fetch what is queued, now and in this process. Exit code 1 when an image could not be fetched.

    xloud-image cache prefetch
    """
    raise typer.Exit(fetch(load(config_file, config_dir)))


@app.command()
def delete(images: Images, config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Remove images from cache and queue. Exit code 1 when one was in neither.

    xloud-image cache delete 3f0c…
    """
    missing = take_out(load(config_file, config_dir), images)
    for image in missing:
        typer.echo(f"{image} is neither cached nor queued.", err=True)
    raise typer.Exit(1 if missing else 0)


@app.command()
def clear(
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    cached: OnlyCached = False,
    queued: OnlyQueued = False,
) -> None:
    """Empty the cache and the queue, or one of them.

    xloud-image cache clear --queued
    """
    loaded = load(config_file, config_dir)
    count = empty(loaded, cached=cached or not queued, queued=queued or not cached)
    typer.echo(f"{count} images were removed.")


@app.command()
def clean(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Remove what is nobody's: unfinished files of processes that died, images that were deleted.

    The service does it every minute.

        xloud-image cache clean
    """
    tidy(load(config_file, config_dir))


@app.command()
def prune(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Bring the cache down to image_cache_max_size, after it was lowered.

    xloud-image cache prune
    """
    shrink(load(config_file, config_dir))

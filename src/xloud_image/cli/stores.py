"""`xloud-image stores …`: which stores there are, and whether they can be used from here."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from xloud_image.cli.options import AsJson, ConfigDirs, ConfigFiles, load, refuse
from xloud_image.cli.table import table

if TYPE_CHECKING:
    import datetime as dt

    from xloud_image.config.loader import Loaded
    from xloud_image.config.settings import Settings, StoreSettings
    from xloud_image.model import Claim
    from xloud_image.services.runtime import Part, Runtime
    from xloud_image.services.store_check import Result
    from xloud_image.services.usage import Content

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, help="The stores: list them, and try each one.")


def _loaded(files: ConfigFiles, dirs: ConfigDirs) -> "Loaded":
    """A configuration whose stores are understood; other sections may be refused by `serve`."""
    from xloud_image.errors import ConfigError

    loaded = load(files, dirs)
    if not loaded.settings.default_store:
        refuse(loaded)
        raise ConfigError("no store is configured")
    return loaded


def _ask(settings: "Settings", work: "Callable[[Runtime], Awaitable[T]]", *parts: "Part") -> T:
    """What is found with these parts of the service open. A database that gives no answer is not asked again."""
    from xloud_image.services.runtime import Runtime

    hasty = dataclasses.replace(settings, database=dataclasses.replace(settings.database, max_retries=0))

    async def run() -> T:
        async with Runtime.open(hasty, *parts) as runtime:
            return await work(runtime)

    return asyncio.run(run())


@app.command("list")
def list_(
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    as_json: AsJson = False,
    images: Annotated[
        bool, typer.Option("--images", help="Also count, in the database, the images and unfinished work of each.")
    ] = False,
) -> None:
    """Print the stores of the configuration as they were understood; none is opened.

    A store that is "read-only" takes no new images. With --images: where images lie, and (with "not configured") how
    many cannot be read because no store here holds their data; exit code 1 then.

        xloud-image stores list --images --config-file /etc/glance/glance-api.conf
    """
    loaded = _loaded(config_file, config_dir)
    settings = loaded.settings
    contents = _contents(settings) if images else {}
    if as_json:
        found = [
            {
                "store": store.id,
                "type": store.type,
                "default": store.id == settings.default_store,
                "reserved": store.reserved,
                "read_only": not store.takes_images,
                "weight": store.weight,
                "description": store.description,
                **({"configured": True, **_counts(contents.pop((store.id, True), None))} if images else {}),
            }
            for store in settings.stores
        ]
        found += [{"store": name, "configured": False, **_counts(content)} for (name, _), content in contents.items()]
        typer.echo(json.dumps(found, indent=2))
        raise typer.Exit(1 if contents else 0)
    rows = [
        (
            store.id,
            store.type,
            _role(store, settings.default_store),
            str(store.weight),
            store.description,
            *(str(number) for number in _counts(contents.pop((store.id, True), None)).values() if images),
        )
        for store in settings.stores
    ]
    rows += [
        (name, "", "NOT CONFIGURED", "", "", *map(str, _counts(content).values()))
        for (name, _), content in contents.items()
    ]
    table(("store", "type", "", "weight", "description", *(("images", "pending") if images else ())), rows)
    raise typer.Exit(1 if contents else 0)


def _role(store: "StoreSettings", default: str) -> str:
    if store.id == default:
        return "default"
    return "reserved" if store.reserved else "" if store.takes_images else "read-only"


def _contents(settings: "Settings") -> dict[tuple[str, bool], "Content"]:
    """By name and whether it is configured: rows may name a store whose data lies elsewhere now."""
    from xloud_image.cli import ready
    from xloud_image.services import usage

    ready.sqlite_place(settings)
    return {(content.store, content.configured): content for content in _ask(settings, usage.of_all, "db")}


def _counts(content: "Content | None") -> dict[str, int | None]:
    return {"images": content.images if content else None, "pending": content.pending if content else None}


@app.command()
def check(
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    as_json: AsJson = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also write an object, read it whole and by ranges, delete it.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds for each store: 30 without it, 120 with --deep.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="STORE", help="Do not try this one; may be repeated.")
    ] = None,
) -> None:
    """Try every store at once: reachable, authorised, writable, free space.

    This is the test of a new backend, instead of uploading something to see where it ends up. Exit code 1 when a store
    cannot be used. --json prints a list of objects with store, type, ok, detail, reachable, authorised, writable (null:
    not found out), reserved, free (bytes), facts (pool, bucket, …), lacks and timings (seconds; check is the latency).
    A store that never takes data is fine and not writable. The service's own stores stand apart.

    What the backend behind a store lacks costs a promise and is named below the table; images are stored and read all
    the same. Without --deep nothing is written, and only what can be seen by reading is found. With --deep the object
    goes the way of a large image, in an S3 store as two parts: of the size that the configuration says.

        xloud-image stores check --deep

        xloud-image stores check --json --timeout 5 | jq '.[] | select(.ok | not)'
    """
    from xloud_image.services import store_check

    loaded = _loaded(config_file, config_dir)
    without = frozenset(exclude or ())
    seconds = timeout or (120.0 if deep else 30.0)  # a volume of Cinder is made, attached, filled and removed by then
    results = _ask(
        loaded.settings,
        lambda runtime: store_check.check_all(runtime, deep=deep, timeout=seconds, exclude=without),
    )
    if as_json:
        typer.echo(json.dumps([result.as_dict() for result in results], indent=2))
    else:
        titles = ("store", "type", "usable", "reachable", "authorised", "writable", "free", "seconds", "detail")
        table(titles, [_row(result) for result in results if not result.reserved])
        reserved = [_row(result) for result in results if result.reserved]
        if reserved:
            typer.echo("\nThe service's own:")
            table(titles, reserved)
        lacks = [f"{result.store}: {sentence}" for result in results for sentence in result.lacks]
        if lacks:
            typer.echo("\nWhat their servers lack:\n" + "\n".join(lacks))
    raise typer.Exit(0 if all(result.ok for result in results) else 1)


@app.command()
def ls(
    store: Annotated[str, typer.Argument(help="The id of a store.")],
    config_file: ConfigFiles = None,
    config_dir: ConfigDirs = None,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 50,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds.")] = 30.0,
) -> None:
    """Print what lies in a store: the keys of its data, mostly ids of images. The database is not asked.

    This is `rbd ls images`, a listing of the bucket, of the container, of the directory.

        xloud-image stores ls rbd --limit 10
    """
    from xloud_image.services import store_check

    loaded = _loaded(config_file, config_dir)
    found = _ask(loaded.settings, lambda runtime: store_check.keys(runtime, store, limit=limit, timeout=timeout))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(found), nl=as_json or bool(found))


@app.command()
def pending(config_file: ConfigFiles = None, config_dir: ConfigDirs = None, as_json: AsJson = False) -> None:
    """Print the data that the service still has to remove from stores, or to examine, on behalf of requests.

    A deleted image is gone for clients at once; the bytes that a sick store would not give up stand here until the
    service has removed them, which it tries again and again. So do uploads that run now. --json prints a list of
    objects with kind (write: an unfinished upload; delete; hash), image, store, since, attempts, error, next_attempt
    and working (the process at work on it; null: it waits for next_attempt).

        xloud-image stores pending --json | jq '.[] | select(.kind == "delete" and .error)'
    """
    from xloud_image.cli import ready
    from xloud_image.db import claims as rows

    loaded = _loaded(config_file, config_dir)
    ready.sqlite_place(loaded.settings)
    claims = _ask(loaded.settings, lambda runtime: runtime.db.read(rows.list_all), "db")
    if as_json:
        typer.echo(json.dumps([_pending(claim) for claim in claims], indent=2))
    elif not claims:
        typer.echo("Nothing is pending.")
    else:
        titles = ("kind", "image", "store", "since", "attempts", "next_attempt", "error")
        table(titles, [tuple(str(_pending(claim)[name] or "") for name in titles) for claim in claims])


@app.command()
def scrub(config_file: ConfigFiles = None, config_dir: ConfigDirs = None) -> None:
    """Scrub what was deleted long enough ago, and try every deletion that waits, now and once, instead of at its next
    attempt; say what still waits.

    The service does so by itself; this is for whoever has mended a store and does not want to wait. Exit code 1 when
    something still waits (`stores pending` says why).

        xloud-image stores scrub --config-file /etc/glance/glance-api.conf
    """
    from xloud_image import logs
    from xloud_image.cli import ready
    from xloud_image.services import reaper, scrubbing

    loaded = _loaded(config_file, config_dir)
    logs.setup(dataclasses.replace(loaded.settings, log_file=None))
    ready.sqlite_place(loaded.settings)

    async def now(runtime: "Runtime") -> tuple[int, int]:
        if runtime.settings.deletion.delayed_delete:
            await scrubbing.once(runtime)
        return await reaper.now(runtime)

    tried, left = _ask(loaded.settings, now, "policy", "db", "stores")
    typer.echo(f"{tried} deletions waited; {left} still do." if tried else "No deletion waits.")
    raise typer.Exit(1 if left else 0)


def _pending(claim: "Claim") -> dict[str, Any]:
    def moment(value: "dt.datetime | None") -> str | None:
        return f"{value.isoformat(timespec='seconds')}Z" if value is not None else None

    waits = claim.holder is None
    return {
        "kind": claim.kind,
        "image": claim.image_id,
        "store": claim.store,
        "since": moment(claim.begun_at),
        "attempts": claim.attempts,
        "error": claim.error,
        "next_attempt": moment(claim.lease_until) if waits else None,
        "working": claim.holder,
    }


def _row(result: "Result") -> tuple[str, ...]:
    free = "" if result.free is None else f"{result.free / 2**30:.1f} GiB"
    seconds = ", ".join(f"{name} {value:.3f}" for name, value in result.timings.items())
    words = {True: "yes", False: "NO", None: "?"}
    writable = "read-only" if result.ok and not result.writable else words[result.writable]
    states = (words[result.ok], words[result.reachable], words[result.authorised], writable)
    facts = ", ".join(f"{name} {value}" for name, value in result.facts.items() if value not in (None, "", [], {}))
    detail = f"{result.detail} ({facts})" if result.ok and facts else result.detail
    return (result.store, result.type, *states, free, seconds, detail)

"""`xloud-image images …`: images of any cloud, for people at a terminal."""

import json
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xloud_image.cli import login
from xloud_image.cli.making import New, begun, import_one, source_of, without_login
from xloud_image.cli.options import AsJson
from xloud_image.cli.progress import Bars
from xloud_image.cli.table import amount, table

if TYPE_CHECKING:
    from xloud_image.client.cloud import Image

app = typer.Typer(
    no_args_is_help=True,
    help="Images: make, import, copy, download, export them. Logs in as every OpenStack client: OS_CLOUD or other OS_* "
    "variables, clouds.yaml, --os-… options.",
)

Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit code 1 with the reason when it fails.")]
AtOnce = Annotated[int, typer.Option("--at-once", min=1, max=16, help="So many side by side.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Stores = Annotated[list[str] | None, typer.Option("--store", metavar="STORE", help="Into this store; may be repeated.")]
AllStores = Annotated[bool, typer.Option("--all-stores", help="Into every store.")]
Some = Annotated[bool, typer.Option("--some-may-fail", help="A store that fails does not undo what others have taken.")]
Name = Annotated[str | None, typer.Option(help="Name of the image; without it that of the file.")]
DiskFormat = Annotated[
    str | None, typer.Option("--disk-format", metavar="FORMAT", help="Without it: what the content says.")
]
ContainerFormat = Annotated[str, typer.Option("--container-format", metavar="FORMAT")]
MinDisk = Annotated[int | None, typer.Option(min=0, help="GB of disk that a server needs.")]
MinRam = Annotated[int | None, typer.Option(min=0, help="MB of memory that a server needs.")]
Visibility = Annotated[
    str | None,
    typer.Option(metavar="private|shared|community|public", help="Who sees it; public is for administrators."),
]
Properties = Annotated[list[str] | None, typer.Option("--property", metavar="KEY=VALUE", help="May be repeated.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")]
Protected = Annotated[bool, typer.Option("--protected", help="It cannot be deleted until this is taken away.")]


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Option(help="Only those of this name.")] = None,
    status: Annotated[str | None, typer.Option(help="Only those of this status, such as active.")] = None,
    visibility: Annotated[str | None, typer.Option(help="private, shared, community, public or all.")] = None,
    property_: Properties = None,
    tag: Tags = None,
    template_only: Annotated[
        bool, typer.Option("--template-only", help="Only templates: images with the property xloud_template=true.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="So many at most.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print images: id, name, formats, size, status, visibility.

    xloud-image images list --status active --tag golden
    """
    query: dict[str, Any] = {"limit": min(limit or 1000, 1000)}
    query |= {key: value for key, value in (("name", name), ("status", status), ("visibility", visibility)) if value}
    query |= _pairs(property_)
    if tag:
        query["tag"] = tag
    if template_only:
        query["xloud_template"] = "true"
    found = list(login.cloud().images(query, limit=limit))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    titles = ("id", "name", "disk_format", "size", "status", "visibility")
    more = ("xloud_template_version",) if template_only else ()
    table((*titles, *more), [[_shown(image.get(title), title) for title in (*titles, *more)] for image in found])


@app.command()
def show(image: str, as_json: AsJson = False) -> None:
    """Print one image, by id or name.

    xloud-image images show ubuntu-24.04
    """
    found = login.cloud().find(image)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table(("field", "value"), [[name, _shown(value, name)] for name, value in sorted(found.items())])


@app.command()
def create(  # noqa: PLR0917 - options
    files: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE]…", help="One image each; - is standard input.")
    ] = None,
    name: Name = None,
    disk_format: DiskFormat = None,
    container_format: ContainerFormat = "bare",
    min_disk: MinDisk = None,
    min_ram: MinRam = None,
    visibility: Visibility = None,
    protected: Protected = False,
    property_: Properties = None,
    tag: Tags = None,
    store: Annotated[str | None, typer.Option(metavar="STORE", help="Into this store.")] = None,
    from_export: Annotated[
        list[Path] | None,
        typer.Option("--from-export", metavar="DIRECTORY|FILE", help="What `images export` wrote; may be repeated."),
    ] = None,
    at_once: AtOnce = 2,
) -> None:
    """Make an image of each file, and upload it. Formats are found out by the content, and said.

    A connection that breaks is taken up again. After Ctrl-C, or when it does not go on, the image stays queued and the
    command that goes on with it is printed. What the service refuses leaves no image.

    With --from-export an image is made again as it was exported, with its properties, tags and visibility; it becomes
    active only when its data has the digests that the manifest says.

        xloud-image images create noble-server.qcow2 --min-disk 10 --tag golden

        xloud-image images create --from-export /backup/ubuntu
    """
    exports = from_export or []
    if not files and not exports:
        raise typer.BadParameter("name a FILE, or --from-export")
    if name and len([*(files or ()), *exports]) > 1:
        raise typer.BadParameter("--name is for one image")
    given = _fields(name, container_format, min_disk, min_ram, visibility, property_, tag)
    cloud = login.cloud()
    work = [*(New.of_file(cloud, one, disk_format, given, protected) for one in files or ()),
            *(New.of_export(cloud, one, name, protected) for one in exports)]  # fmt: skip
    with Bars() as bars:
        failed = bars.each(lambda one: one.upload(bars, store), work, at_once=at_once, name=lambda one: one.told)
    raise typer.Exit(1 if failed else 0)


@app.command()
def upload(
    image: str,
    file: Annotated[str, typer.Argument(help='The data; "-" is standard input.')],
    store: Annotated[str | None, typer.Option(metavar="STORE", help="Into this store.")] = None,
) -> None:
    """Give an image that is queued its data; also goes on with what broke off.

    xloud-image images upload 5f6b0b8a-1d2c-4e3f-9a7b-6c5d4e3f2a1b noble-server.qcow2
    """
    cloud = login.cloud()
    found = cloud.find(image)
    one = New(cloud, file, source_of(file), {}, made=found)
    with Bars() as bars:
        failed = bars.each(lambda new: new.upload(bars, store), [one], at_once=1, name=lambda new: new.told)
    raise typer.Exit(1 if failed else 0)


@app.command("import")
def import_(  # noqa: PLR0917 - options
    sources: Annotated[
        list[str], typer.Argument(metavar="URL|FILE…", help="What the service is to fetch, or is given.")
    ],
    into: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="An image that is queued; else a new one is made.")
    ] = None,
    name: Name = None,
    disk_format: DiskFormat = None,
    container_format: ContainerFormat = "bare",
    min_disk: MinDisk = None,
    min_ram: MinRam = None,
    visibility: Visibility = None,
    property_: Properties = None,
    tag: Tags = None,
    store: Stores = None,
    all_stores: AllStores = False,
    some_may_fail: Some = False,
    wait: Wait = False,
    at_once: AtOnce = 2,
) -> None:
    """Have the service fetch URLs (web-download), or give it files to import (glance-direct), which may convert, unpack
    and check them on the way. The work goes on without you; `xloud-image tasks` tells how far it is.

        xloud-image images import https://cloud-images.ubuntu.com/noble/current/noble-server-cloudimg-amd64.img --wait
    """
    if (into or name) and len(sources) > 1:
        raise typer.BadParameter("--into and --name are for one image")
    given = _fields(name, container_format, min_disk, min_ram, visibility, property_, tag)
    cloud = login.cloud()
    target = _stores(store, all_stores, some_may_fail)

    def work(source: str) -> None:
        import_one(bars, cloud, source, into, {**given, "disk_format": disk_format}, target, wait=wait)

    with Bars() as bars:
        failed = bars.each(work, sources, at_once=at_once, name=without_login)
    raise typer.Exit(1 if failed else 0)


@app.command("copy")
def copy_(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…")],
    store: Stores = None,
    all_stores: AllStores = False,
    some_may_fail: Some = False,
    wait: Wait = False,
    at_once: AtOnce = 2,
) -> None:
    """Copy images to more stores of their cloud. For administrators, unless a rule says otherwise.

    xloud-image images copy ubuntu-24.04 --store fast --wait
    """
    if not store and not all_stores:
        raise typer.BadParameter("name a --store, or say --all-stores")
    cloud = login.cloud()
    target = _stores(store, all_stores, some_may_fail)

    def work(image: str) -> None:
        from xloud_image.client import waiting

        found = cloud.find(image)
        task = cloud.begin_import(found["id"], {"method": {"name": "copy-image"}, **target})
        begun(bars, cloud, found["id"], task, wait=wait, follow=waiting.follow)

    with Bars() as bars:
        failed = bars.each(work, images, at_once=at_once, name=str)
    raise typer.Exit(1 if failed else 0)


@app.command()
def move(
    images: Annotated[list[str] | None, typer.Argument(metavar="[IMAGE]…")] = None,
    source: Annotated[str, typer.Option("--from", metavar="STORE", help="Where they are.")] = "",
    target: Annotated[str, typer.Option("--to", metavar="STORE", help="Where they shall be instead.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Every active image that lies there.")] = False,
    at_once: AtOnce = 2,
) -> None:
    """Move images from one store of their cloud to another, and wait for it. For administrators, unless a rule says
    otherwise. What was moved stays readable all the time. A call of this service, that Glance has not.

    xloud-image images move --from old --to new --all
    """
    if not source or not target:
        raise typer.BadParameter("say --from STORE and --to STORE")
    if everything == bool(images):
        raise typer.BadParameter("name images, or say --all")
    cloud = login.cloud()
    known = cloud.store_names()
    for name in (source, target):
        if name not in known:
            raise typer.BadParameter(f"there is no store '{name}' here; the stores are {', '.join(known)}")
    chosen = [image["id"] for image in cloud.images_in(source)] if everything else list(images or ())

    def work(name: str) -> None:
        from xloud_image.client import waiting

        image_id = name if everything else cloud.find(name)["id"]
        begun(bars, cloud, image_id, cloud.begin_move(image_id, source, target), wait=True, follow=waiting.follow)

    with Bars() as bars:
        failed = bars.each(work, chosen, at_once=at_once, name=str)
    if everything:
        moved = f"{len(chosen) - failed} of {len(chosen)} images are in {target} now"
        typer.echo(moved if chosen else f"no image is in {source}")
    raise typer.Exit(1 if failed else 0)


@app.command()
def download(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE|DIRECTORY", help="Without it: NAME.FORMAT, here.")
    ] = None,
    overwrite: Overwrite = False,
    at_once: AtOnce = 2,
) -> None:
    """Download the data of images. After Ctrl-C or a broken connection the same command goes on with FILE.part.

    A file gets its name when its digest is the one that the service tells. `-o -` writes to standard output.

        xloud-image images download ubuntu-24.04 -o noble.qcow2
    """
    from xloud_image.client import data
    from xloud_image.errors import ConfigError

    cloud = login.cloud()
    if str(output) == "-":
        if len(images) > 1:
            raise typer.BadParameter("standard output takes one image")
        found = cloud.find(images[0])
        source = data.Verified(data.Stored(cloud, found), data.digests_of(found), lambda _done: None, threading.Event())
        for chunk in source.chunks():
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        return
    if output is not None and len(images) > 1 and not output.is_dir():
        raise typer.BadParameter("for several images --output is a directory that exists")

    def work(image: str) -> None:
        found = cloud.find(image)
        if found.get("size") is None:
            raise ConfigError(f"it has no data: its status is {found.get('status')}")
        target = output if output is not None and not output.is_dir() else (output or Path()) / _file_name(found)
        data.download(cloud, found, target, bars.bar(target.name, found["size"]), bars.stop, overwrite=overwrite)
        said = ", ".join(data.digests_of(found)) or "nothing: the service tells no digest"
        bars.say(f"{target}  {amount(found['size'])}, compared: {said}")

    with Bars() as bars:
        failed = bars.each(work, images, at_once=at_once, name=str)
    raise typer.Exit(1 if failed else 0)


@app.command()
def export(
    image: str,
    target: Annotated[str | None, typer.Argument(metavar="[DIRECTORY|FILE|URL]")] = None,
    to_cloud: Annotated[str | None, typer.Option(metavar="NAME", help="Another entry of clouds.yaml.")] = None,
    to_region: Annotated[
        str | None, typer.Option(metavar="REGION", help="Another region, of this cloud or of that.")
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For a URL: where the manifest goes; without it: standard output."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Take an image out of its cloud with all that belongs to it: properties, tags, visibility, digests.

    Into a directory (or a file, with the manifest beside it), from which `images create --from-export` makes it again;
    to an http(s) URL that takes a PUT, as pre-signed ones of S3 do; or into another cloud, straight through this
    process. The target counts as done when its digest is right.

        xloud-image images export ubuntu-24.04 /backup/ubuntu

        xloud-image images export ubuntu-24.04 --to-cloud second-site
    """
    elsewhere = to_cloud or to_region
    if (target is None) == (elsewhere is None):
        raise typer.BadParameter("name a target, or --to-cloud or --to-region")
    from xloud_image.client import data, exports, sending
    from xloud_image.errors import ConfigError

    cloud = login.cloud()
    found = cloud.find(image)
    size = found.get("size")
    if not isinstance(size, int):
        raise ConfigError(f"the image has no data: its status is {found.get('status')}")
    name = str(found.get("name") or found["id"])

    def work(where: str) -> None:
        if elsewhere is not None:
            fields = {
                **exports.properties_of(found),
                **{key: found.get(key) for key in exports.FIELDS},
                "tags": found.get("tags"),
            }
            there = login.cloud(to_cloud, region=to_region)
            New(there, where, data.Stored(cloud, found), fields, expected=data.digests_of(found)).upload(bars, None)
        elif where.startswith(("http://", "https://")):
            source = data.Verified(data.Stored(cloud, found), data.digests_of(found), bars.bar(name, size), bars.stop)
            sending.put_to_url(where, source)
            told = exports.manifest(found, None, size, source.digests.require())
            if manifest is not None:
                exports.write(manifest.parent, manifest.name, told)
            else:
                typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
        else:
            done = exports.to_files(cloud, found, _place(where), bars.bar(name, size), bars.stop, overwrite=overwrite)
            bars.say(str(done))

    with Bars() as bars:
        failed = bars.each(work, [elsewhere or target or ""], at_once=1, name=without_login)
    raise typer.Exit(1 if failed else 0)


def _place(where: str) -> Path:
    place = Path(where)
    if where.endswith("/"):
        place.mkdir(parents=True, exist_ok=True)
    return place


def _fields(
    name: str | None, container_format: str, min_disk: int | None, min_ram: int | None, visibility: str | None,
    properties: list[str] | None, tags: list[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """Of a new image, as they were given."""
    fields = {"name": name, "container_format": container_format, "min_disk": min_disk, "min_ram": min_ram,
              "visibility": visibility, "tags": tags}  # fmt: skip
    return {**_pairs(properties), **{key: value for key, value in fields.items() if value is not None}}


def _pairs(given: Iterable[str] | None) -> dict[str, str]:
    found = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"--property is KEY=VALUE, not {pair!r}")
        found[key] = value
    return found


def _stores(stores: list[str] | None, every: bool, some_may_fail: bool) -> dict[str, Any]:
    """The part of an import's body that says where to."""
    body: dict[str, Any] = {"all_stores": True} if every else {"stores": stores} if stores else {}
    if some_may_fail:
        body["all_stores_must_succeed"] = False
    return body


def _file_name(image: "Image") -> str:
    """A name for the data of an image, whatever its own name holds."""
    name = "".join(char if char.isalnum() or char in "._- +" else "_" for char in str(image.get("name") or image["id"]))
    stem = name.strip(". ")[:100] or str(image["id"])
    ending = f".{image.get('disk_format') or 'raw'}"
    return stem if stem.endswith(ending) else stem + ending


def _shown(value: Any, name: str) -> str:
    if value is None:
        return ""
    if name in ("size", "virtual_size") and isinstance(value, int):
        return amount(value)
    if isinstance(value, list):
        return ", ".join(str(one) for one in value)
    return str(value)

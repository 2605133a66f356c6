"""Images outside of any service: the data in a file, and beside it a manifest that says all else (docs/using.md has its
format). Written by one cloud and read by another, through hands that may have changed either: what is read here is
believed in nothing but its shape, and data counts when it has the manifest's digests.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from xloud_image.client import data
from xloud_image.client.cloud import Cloud, Image
from xloud_image.errors import BadRequest, ConfigError
from xloud_image.schemas import MAX_INT, PROPERTY, Shape

FORMAT: Final = "xloud-image-export"
VERSION: Final = 1
NAME: Final = "manifest.json"
_LONGEST: Final = 4 << 20  # bytes of a manifest
_MOST: Final = 1000  # properties, tags
FIELDS: Final = (
    "name",
    "disk_format",
    "container_format",
    "min_disk",
    "min_ram",
    "visibility",
    "protected",
    "os_hidden",
)
# what an image shows and is no property of it
_SHOWN: Final = frozenset(
    (*FIELDS, *"id tags owner status size virtual_size checksum os_hash_algo os_hash_value created_at updated_at self"
    " file schema locations direct_url stores location deleted deleted_at".split())
)  # fmt: skip
_DIGESTS: Final = {"md5": 32, "sha1": 40, "sha224": 56, "sha256": 64, "sha384": 96, "sha512": 128}


def _shape() -> dict[str, Any]:
    """The JSON schema of a manifest that can be read."""
    text = {"type": ["string", "null"], "maxLength": 255}
    number = {"type": ["integer", "null"], "minimum": 0, "maximum": MAX_INT}
    flag = {"type": ["boolean", "null"]}
    image = {
        **dict.fromkeys(("name", "disk_format", "container_format", "visibility"), text),
        **dict.fromkeys(("min_disk", "min_ram"), number),
        **dict.fromkeys(("protected", "os_hidden"), flag),
        "tags": {"type": "array", "maxItems": _MOST, "items": {"type": "string", "maxLength": 255}},
        "properties": {
            "type": "object",
            "maxProperties": _MOST,
            "propertyNames": {
                "minLength": 1,
                "maxLength": 255,
                "pattern": rf"^(?!os_glance)(?!({'|'.join(sorted(_SHOWN))})$)[^\0]*$",
            },
            "additionalProperties": PROPERTY,
        },
    }
    data_ = {
        "file": {"type": "string", "maxLength": 255, "pattern": r"^(?!\.{1,2}$)[^/\\\0]+$"},
        "size": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
        "digests": {
            "type": "object",
            "properties": {name: {"type": "string", "pattern": f"^[0-9a-f]{{{n}}}$"} for name, n in _DIGESTS.items()},
            "additionalProperties": False,
            "anyOf": [{"required": [name]} for name in ("sha256", "sha384", "sha512")],
        },
    }
    return {
        "type": "object",
        "properties": {
            "format": {"enum": [FORMAT]},
            "version": {"type": "integer", "enum": [VERSION]},
            "image": {"type": "object", "properties": image},
            "data": {"type": "object", "properties": data_, "required": list(data_)},
        },
        "required": ["format", "version", "image", "data"],
    }


_SHAPE: Final = Shape(_shape())


def manifest(image: Image, file: str | None, size: int, digests: Mapping[str, str]) -> dict[str, Any]:
    """What is to be told of an exported image."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "exported_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "image": {
            "id": image.get("id"),
            **{name: image.get(name) for name in FIELDS},
            "tags": sorted(image.get("tags") or ()),
            "properties": properties_of(image),
        },
        "data": {"file": file, "size": size, "digests": dict(digests)},
    }


def properties_of(image: Image) -> dict[str, str]:
    """The additional properties of an image, without those that belong to its service."""
    return {
        name: value
        for name, value in image.items()
        if name not in _SHOWN and not name.startswith("os_glance") and isinstance(value, str)
    }


def write(folder: Path, name: str, content: Mapping[str, Any]) -> Path:
    """A manifest as a file, whole or not at all, durable."""
    target = folder / name
    part = folder / f"{name}.part"
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise ConfigError(f"{part} cannot be written: {error.strerror}") from None
    return target


def to_files(
    cloud: Cloud, image: Image, target: Path, moved: data.Moved, stop: threading.Event, *, overwrite: bool = False
) -> Path:
    """An image as files: in a directory (`target` is one, or has no ending), or as the file `target` with its manifest
    beside it. The manifest's path: it is written last, so where one is, the data is whole."""
    as_directory = target.is_dir() or not target.suffix
    if as_directory:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{target} cannot be made: {error.strerror}") from None
        folder, name = target, f"{image['id']}.{image.get('disk_format') or 'raw'}"
        beside = NAME
    else:
        folder, name = target.parent, target.name
        beside = f"{name}.{NAME}"
    if (folder / beside).exists() and not overwrite:
        raise ConfigError(f"{folder / beside} exists already; name another place, or say --overwrite")
    place = folder / name
    digests = data.download(cloud, image, place, moved, stop, overwrite=True)
    return write(folder, beside, manifest(image, name, place.stat().st_size, digests))


def read(place: Path) -> tuple[dict[str, Any], Path, dict[str, str]]:
    """An export: the fields of a new image, where its data lies, and its digests. `place`: a directory with a manifest,
    a manifest, or the data beside one.

    `ConfigError`: it is none, or holds what no export has.
    """
    path = place / NAME
    if not place.is_dir():
        path = place if place.name.endswith(NAME) else place.with_name(f"{place.name}.{NAME}")
    told = _told(path)
    image, about = told["image"], told["data"]
    found = path.parent / about["file"]
    try:
        facts = found.lstat()
    except OSError as error:
        raise ConfigError(f"{found} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(facts.st_mode):
        raise ConfigError(f"{found} is no file of its own; the data of an export is")
    if facts.st_size != about["size"]:
        raise ConfigError(f"{found} has {facts.st_size} bytes; its manifest says {about['size']}")
    fields = {name: image[name] for name in FIELDS if image.get(name) is not None}
    return {**image.get("properties", {}), **fields, "tags": image.get("tags", [])}, found, about["digests"]


def _told(path: Path) -> dict[str, Any]:
    """A manifest of which only the shape is believed."""
    try:
        with path.open("rb") as file:
            text = file.read(_LONGEST + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"it is longer than {_LONGEST} bytes")
        told = json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=_never)
        _SHAPE.require(told)
    except (ValueError, RecursionError, BadRequest) as error:
        raise ConfigError(f"{path} is no manifest of an export: {str(error)[:300]}") from None
    found: dict[str, Any] = told
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in it")
    return found


def _never(text: str) -> Any:
    raise ValueError(f"{text} is no number")


__all__ = ["FIELDS", "NAME", "manifest", "properties_of", "read", "to_files", "write"]

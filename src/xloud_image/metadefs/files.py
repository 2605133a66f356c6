"""Files of metadata definitions, in the form that Glance's have: one namespace a file, as the API takes it."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from xloud_image.errors import BadRequest, ConfigError, TooLarge
from xloud_image.metadefs import documents, schemas
from xloud_image.model import Namespace

STANDARD: Final = Path(__file__).parent / "standard"  # those that come with the service
OWNER: Final = "admin"  # of a namespace whose file names none, as with Glance
_LARGEST: Final = 8 << 20  # bytes of a file
_CHECK: Final = schemas.Shape(schemas.NAMESPACE)


def read(place: Path) -> list[Namespace]:
    """The namespaces of a file, or of all *.json of a directory, by name of file. `ConfigError` names the first file
    that cannot be read and says why."""
    files = sorted(place.glob("*.json")) if place.is_dir() else [place]
    if not files:
        raise ConfigError(f"{place} holds no *.json")
    found = [_read(file) for file in files]
    names = [one.name for one in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{place} holds the namespace '{twice}' twice")
    return found


def _read(file: Path) -> Namespace:
    try:
        if file.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST} bytes")
        body = _said(json.loads(file.read_text("utf-8")))
        _CHECK.require(body)
        return documents.namespace(body, OWNER)
    except (BadRequest, TooLarge) as error:
        raise ConfigError(f"{file}: {error.message.removeprefix('The body does not fit: ')}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} cannot be read as metadata definitions: {error}") from None


def _said(body: Any) -> Any:
    """A file's content without nulls that say nothing, and without what only the service writes."""
    if not isinstance(body, dict):
        return body
    plain = {name: value for name, value in body.items() if value is not None and name not in schemas.READ_ONLY}
    for name in ("resource_type_associations", "objects", "tags"):
        if isinstance(plain.get(name), list):
            plain[name] = [_said(one) for one in plain[name]]
    return plain


def write(folder: Path, namespaces: Iterable[Namespace]) -> Sequence[Path]:
    """A file for each namespace, instead of one of the same name; their paths. Tags stand by name, so that exporting
    what was loaded from an export gives the same file. `ConfigError`."""
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in namespaces:
            name = re.sub(r"[^A-Za-z0-9]+", "-", one.name).strip("-") or "namespace"
            file = folder / f"{name}.json"
            if file in written:
                file = folder / f"{name}-{one.id}.json"
            sorted_tags = dataclasses.replace(one, tags=tuple(sorted(one.tags, key=lambda tag: tag.name)))
            text = json.dumps(documents.of_namespace(sorted_tags), indent=2, ensure_ascii=False)
            beside = file.with_suffix(".new")
            beside.write_text(f"{text}\n", "utf-8")
            os.replace(beside, file)
            written.append(file)
    except OSError as error:
        raise ConfigError(f"The definitions cannot be written: {error}") from None
    return written

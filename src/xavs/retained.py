"""Stores that earlier deployments had and the globals do not mean any more: kept for reading, until they are empty.

Globals say what is wanted now; where images lie already they do not say. So each rendering looks at the files of the
one before (of every node: a new node has none of its own). A store whose place is in use no more becomes one that is
`read_only`, with the options that it had. It goes when the database knows nothing in it, which only the service can
find out, or when `glance_forget_stores` names it.
"""

from __future__ import annotations

import dataclasses
import json
import os.path
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from oslo_config import cfg

from xavs.plan import Store
from xavs.template import CERTIFICATES, ETC, as_text
from xloud_image.config import loader
from xloud_image.config.files import Line
from xloud_image.config.findings import Origin
from xloud_image.errors import ConfigError
from xloud_image.stores import TYPES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from xavs.site_globals import Globals
    from xloud_image.config.settings import StoreSettings

FORGET: Final = "glance_forget_stores"
VOLUME: Final = "volume"  # among the facts: what was mounted at /var/lib/glance
_WHY: Final = "kept: it was deployed before, and images may lie in it"


@dataclasses.dataclass(frozen=True, slots=True)
class Previous:
    """A store as an earlier rendering had it, and the directory of that rendering."""

    settings: StoreSettings
    rendered: Path
    volume: str

    @property
    def place(self) -> tuple[object, ...]:
        """Equal for two stores in one place."""
        return place(self.settings)


@dataclasses.dataclass(slots=True)
class Kept:
    """What is added to a rendering: stores, their lines of glance-api.conf, files beside it."""

    stores: list[Store] = dataclasses.field(default_factory=list)
    lines: list[Line] = dataclasses.field(default_factory=list)
    files: dict[str, tuple[bytes, int]] = dataclasses.field(default_factory=dict)


def place(store: StoreSettings) -> tuple[object, ...]:
    """Equal for two stores in one place."""
    return store.type, *(_comparable(store.options[name]) for name in TYPES[store.type].place)


def _comparable(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(map(_comparable, value))
    return value.rstrip("/") if isinstance(value, str) else value or None


def known(directories: Iterable[Path], facts_name: str) -> list[Previous]:
    """The stores of earlier renderings, each place once, those of the first directory first. A directory without a
    rendering that can be read has none."""
    found: dict[tuple[object, ...], Previous] = {}
    for directory in directories:
        try:
            facts = json.loads((directory / facts_name).read_text())
            settings = loader.load([], [directory], env={}).settings
        except (OSError, ValueError, ConfigError):
            continue
        volume = str(facts.get(VOLUME) or "") if isinstance(facts, dict) else ""
        for store in settings.stores:
            if not store.reserved:
                found.setdefault(place(store), Previous(store, directory, volume))
    return list(found.values())


def keep(g: Globals, earlier: Sequence[Previous], current: Sequence[StoreSettings], emptied: Collection[str]) -> Kept:
    """Those that are needed besides the `current` ones. `emptied` names those in which nothing lies; one that took new
    images until now is kept all the same: an upload may be under way."""
    kept = Kept()
    forget = {str(name) for name in g.get(FORGET) or ()}
    in_use = {place(store) for store in current if not store.reserved}
    used = {path for store in current if not store.reserved for path in _directories(store)}
    names = {store.id.lower() for store in current}
    # those that are kept already first: their names stay
    for previous in sorted(earlier, key=lambda one: not one.settings.read_only):
        id_ = previous.settings.id
        if id_ not in forget:
            _look_at_volume(g, previous)
        left = _without(previous, used)
        if left is None or previous.place in in_use:
            continue
        previous = left  # noqa: PLW2901
        name = _free(id_, names)
        if {name, id_} & forget or (previous.settings.read_only and id_ in emptied):
            continue
        names.add(name.lower())
        ceph = _ceph(previous) if previous.settings.type == "rbd" else {}
        kept.stores.append(Store(name, previous.settings.type, Origin(why=_WHY), ceph, kept=True))
        kept.lines += _lines(name, previous, kept)
        g.findings.note(
            f"the store '{name}' of an earlier deployment is kept for the images that lie in it and takes no new ones; "
            f"it goes when it is empty, or with {FORGET}: [{name}]"
        )
    return kept


def _look_at_volume(g: Globals, previous: Previous) -> None:
    """Images in a volume that is not mounted any more cannot be kept by any configuration."""
    now, name = str(g.get("glance_file_datadir_volume")), previous.settings.id
    inside = any(f"{path}/".startswith("/var/lib/glance/") for path in _directories(previous.settings))
    if inside and previous.volume not in ("", now):
        g.findings.error(
            f"was '{previous.volume}', in which images of the store '{name}' may lie, and is '{now}' now: copy what is "
            f"in it first, then say {FORGET}: [{name}] for one run",
            "glance_file_datadir_volume",
            g.origin("glance_file_datadir_volume"),
        )


def _directories(store: StoreSettings) -> list[str]:
    return [os.path.normpath(path) for _, path in TYPES[store.type].directories(store.options)]


def _without(previous: Previous, used: Collection[str]) -> Previous | None:
    """The same without directories that a store of today reads as well: two stores in one are refused. None: it has
    no other."""
    mine = _directories(previous.settings)
    rest = [path for path in mine if path not in used]
    if rest == mine:
        return previous
    options = {**previous.settings.options, **TYPES[previous.settings.type].with_directories(rest)}
    return (
        dataclasses.replace(previous, settings=dataclasses.replace(previous.settings, options=options))
        if rest
        else None
    )


def _free(name: str, names: Collection[str]) -> str:
    """The name, or one made of it when another store has it now."""
    number, found = 1, name
    while found.lower() in names:
        found = f"{name}_previous{number if number > 1 else ''}"
        number += 1
    return found


def _ceph(previous: Previous) -> Mapping[str, str]:
    options = previous.settings.options
    return {
        "cluster": Path(options["rbd_store_ceph_conf"] or "ceph.conf").stem,
        "user": options["rbd_store_user"] or "",
        "pool": options["rbd_store_pool"],
    }


def _lines(name: str, previous: Previous, kept: Kept) -> list[Line]:
    """Its section: what differs from the defaults; and the files that it names, carried on from that rendering."""
    settings = previous.settings
    options = dict(settings.options)
    if settings.type == "swift" and options["swift_store_config_file"]:
        file = previous.rendered / Path(options["swift_store_config_file"]).name
        if file.is_file():
            # the file of this name belongs to the account in use now
            own = f"glance-swift-{name}.conf"
            kept.files[own] = (file.read_bytes(), 0o600)
            options["swift_store_config_file"] = f"{ETC}/{own}"
    if settings.type == "rbd":
        for file in sorted((previous.rendered / "ceph").glob("*")):
            kept.files[f"ceph/{file.name}"] = (file.read_bytes(), 0o600 if file.suffix == ".keyring" else 0o640)
    for value in options.values():
        path = str(value or "").removeprefix(f"{ETC}/")
        if path.startswith(f"{CERTIFICATES}/") and (previous.rendered / path).is_file():
            kept.files[path] = ((previous.rendered / path).read_bytes(), 0o640)
    common = {"read_only": True, "store_description": settings.description, "weight": settings.weight or ""}
    lines = [Line(name, option, as_text(value), Origin(why=_WHY)) for option, value in common.items() if value != ""]
    for opt in TYPES[settings.type].options:
        value = options[opt.dest]
        if value == opt.default or value in (None, "", [], {}):
            continue
        if isinstance(opt, cfg.DictOpt):
            value = ",".join(f"{key}:{item}" for key, item in value.items())
        elif isinstance(opt, cfg.ListOpt):
            value = ",".join(value)
        texts = value if isinstance(opt, cfg.MultiStrOpt) else [value]
        lines += [Line(name, opt.dest, as_text(text), Origin(why=_WHY), secret=opt.secret) for text in texts]
    return lines

"""Which stores the globals mean, and which is the default. The lines of each store are rendered in `template`."""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import TYPE_CHECKING, Any, Final

from xavs.site_globals import read_as
from xavs.variables import SWITCHES, Type
from xloud_image.config.findings import Origin
from xloud_image.stores import TYPES, type_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xavs.site_globals import Globals

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CEPH_NAMES: Final = frozenset({"name", "type", "cluster", "pool", "user", "enabled"})
_OTHER_NAMES: Final = frozenset({"name", "type", "enabled"})


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """One store. `ceph`: cluster, pool and user of a store of type rbd.

    `kept`: of an earlier deployment; the images in it are read, new ones go elsewhere.
    """

    name: str
    type: str
    origin: Origin
    ceph: Mapping[str, str] = dataclasses.field(default_factory=dict)
    kept: bool = False


def switch(g: Globals, type_: str) -> bool:
    """Whether a type is switched on. File is, unless something larger is."""
    return bool(g.get(SWITCHES[type_]))


def switch_origin(g: Globals, type_: str) -> Origin:
    """Why it is on or off."""
    name = SWITCHES[type_]
    if g.is_set(name):
        return g.origin(name)
    if type_ == "file" and switch(g, type_):
        return Origin(why=f"default of {name}: no larger store is on")
    return Origin(why=f"default of {name}")


def stores(g: Globals) -> list[Store]:
    """The stores in the order of `enabled_backends`: Ceph first, then the others."""
    known = [*_ceph(g), *_others(g)]
    if g.is_set("glance_store_backends"):
        known = _exactly(g, known)
    seen: dict[str, Store] = {}
    for store in known:
        if not _ID.fullmatch(store.name) or store.name.startswith("os_glance_"):
            g.findings.error(f"'{store.name}' cannot be the name of a store (letters, digits, '-', '_', '.')",
                             origin=store.origin)  # fmt: skip
        elif store.name.lower() in seen:
            g.findings.error(f"the store '{store.name}' stands twice; also in {seen[store.name.lower()].origin}",
                             origin=store.origin)  # fmt: skip
        else:
            seen[store.name.lower()] = store
    if not seen and not g.findings.of("error"):
        g.findings.error('no store is on; set glance_backend_file: "yes", or another one', "glance_backend_file",
                         g.origin("glance_backend_file"))  # fmt: skip
    return list(seen.values())


def _ceph(g: Globals) -> list[Store]:
    on = switch(g, "rbd")
    one = {"cluster": g.get("ceph_cluster"), "pool": g.get("ceph_glance_pool_name"), "user": g.get("ceph_glance_user")}
    if not g.is_set("glance_ceph_backends"):
        return [Store("rbd", "rbd", switch_origin(g, "rbd"), one)] if on else []
    origin = g.origin("glance_ceph_backends")
    found = []
    for entry in _entries(g, "glance_ceph_backends", _CEPH_NAMES):
        enabled = _enabled(g, "glance_ceph_backends", entry, default=on)
        if entry.get("type", "rbd") != "rbd":
            g.findings.error(f"'{entry['name']}' is of type {entry['type']}; these are of type rbd",
                             "glance_ceph_backends", origin)  # fmt: skip
            continue
        if enabled and g.is_set("glance_backend_ceph") and not on:
            g.findings.error(f"'{entry['name']}' is enabled, but glance_backend_ceph is off "
                             f"({g.origin('glance_backend_ceph')})", "glance_ceph_backends", origin)  # fmt: skip
        if enabled:
            found.append(Store(entry["name"], "rbd", origin, {k: str(entry.get(k) or one[k]) for k in one}))
    if on and not found:
        g.findings.error("glance_backend_ceph is on, but no entry of glance_ceph_backends is enabled",
                         "glance_ceph_backends", origin)  # fmt: skip
    return found


def _others(g: Globals) -> list[Store]:
    if not g.is_set("glance_backends"):
        return [
            Store(type_, type_, switch_origin(g, type_)) for type_ in SWITCHES if type_ != "rbd" and switch(g, type_)
        ]
    origin = g.origin("glance_backends")
    found = []
    for entry in _entries(g, "glance_backends", _OTHER_NAMES):
        type_ = entry.get("type", entry["name"])
        if (
            type_ == "rbd"
            and entry["name"] == "rbd"
            and switch(g, "rbd") == _enabled(g, "glance_backends", entry, default=False)
        ):
            continue  # in older lists; glance_backend_ceph and glance_ceph_backends say the same
        if type_ not in SWITCHES or type_ == "rbd":
            hint = "; Ceph stores stand in glance_ceph_backends" if type_ == "rbd" else _types()
            g.findings.error(f"'{type_}' is no type of store here{hint}", "glance_backends", origin)
            continue
        enabled = _enabled(g, "glance_backends", entry, default=switch(g, type_))
        key = SWITCHES[type_]
        if g.is_set(key) and bool(g.get(key)) != enabled:
            g.findings.error(f"says that '{entry['name']}' is {'on' if enabled else 'off'}, {key} "
                             f"({g.origin(key)}) says the opposite; keep one", "glance_backends", origin)  # fmt: skip
        if enabled:
            found.append(Store(entry["name"], type_, origin))
    listed = {entry.get("type", entry["name"]) for entry in _entries(g, "glance_backends", _OTHER_NAMES)}
    for type_, key in SWITCHES.items():
        if type_ not in listed and type_ != "rbd" and g.is_set(key) and g.get(key):
            g.findings.error(f"is on, but glance_backends ({origin}) has no store of type {type_}", key, g.origin(key))
    return found


def _exactly(g: Globals, known: list[Store]) -> list[Store]:
    origin = g.origin("glance_store_backends")
    by_name = {store.name: store for store in known}
    found = []
    for entry in _entries(g, "glance_store_backends", _CEPH_NAMES):
        name, type_ = entry["name"], entry.get("type", entry["name"])
        if name in by_name and by_name[name].type == type_:
            found.append(by_name[name])
        elif type_ == "rbd" or type_ not in SWITCHES:
            g.findings.error(
                f"'{name}' of type {type_} is not described; Ceph stores are, in glance_ceph_backends"
                if type_ == "rbd"
                else f"'{type_}' is no type of store here{_types()}",
                "glance_store_backends",
                origin,
            )
        else:
            found.append(Store(name, type_, origin))
    return found


def _types() -> str:
    return f"; types are {', '.join(SWITCHES)}"


def _entries(g: Globals, key: str, names: frozenset[str]) -> list[dict[str, Any]]:
    good = []
    for number, entry in enumerate(g.get(key) or (), 1):
        unknown = sorted(set(entry) - names)
        for name in unknown:
            near = difflib.get_close_matches(name, sorted(names), 1)
            hint = f"is '{near[0]}' meant?" if near else f"known are {', '.join(sorted(names))}"
            g.findings.error(f"entry {number} has an unknown '{name}'; {hint}", key, g.origin(key))
        if not entry.get("name"):
            g.findings.error(f"entry {number} has no name", key, g.origin(key))
        elif not unknown:
            good.append(entry)
    return good


def _enabled(g: Globals, key: str, entry: Mapping[str, Any], *, default: bool) -> bool:
    if entry.get("enabled") in (None, ""):
        return default
    try:
        return bool(read_as(Type.FLAG, entry["enabled"]))
    except ValueError:
        g.findings.error(f"enabled of '{entry['name']}' is '{entry['enabled']}', not yes or no", key, g.origin(key))
        return False


def default(g: Globals, found: list[Store]) -> tuple[str, Origin]:
    """The store for new images and why. "": an error has been told."""
    if g.is_set("glance_default_backend"):
        name, origin = str(g.get("glance_default_backend")), g.origin("glance_default_backend")
        store = named(name, found)
        if store is None:
            g.findings.error(not_enabled(name, found), "glance_default_backend", origin)
            return "", origin
        if store.name != name:
            g.findings.warning(f"'{name}' is taken as the store '{store.name}'", "glance_default_backend", origin)
    elif not found:
        return "", Origin()
    else:
        store = min(found, key=lambda one: list(SWITCHES).index(one.type))
        why = "the only store" if len(found) == 1 else f"the first of {', '.join(one.name for one in found)}"
        origin = Origin(why=f"default of glance_default_backend: {why}")
        if len(found) > 1:
            g.findings.note(f"new images go to '{store.name}'; set glance_default_backend to choose")
    if not TYPES[store.type].takes_data:
        g.findings.warning(
            f"the default store '{store.name}' never takes data: every upload that names no other store gets 410; "
            'add glance_backend_file: "yes" or another store',
            "glance_default_backend",
            origin,
        )
    return store.name, origin


def named(name: str, found: list[Store]) -> Store | None:
    """The store of this name, or the only one of the type or scheme of this name."""
    for store in found:
        if store.name == name:
            return store
    of_type = [store for store in found if store.type == type_of(name)]
    return of_type[0] if len(of_type) == 1 else None


def not_enabled(name: str, found: list[Store]) -> str:
    """What to say of a name that is no store: with the key to set, when it is a type or a scheme."""
    there = ", ".join(store.name for store in found) or "none"
    type_ = type_of(name)
    of_type = [store.name for store in found if store.type == type_]
    if of_type:
        return f"'{name}' is the type of several stores; name one of {', '.join(of_type)}"
    if type_ is not None and type_ in SWITCHES:
        meant = f" (type {type_})" if type_ != name else ""
        return (
            f"'{name}'{meant} is not enabled (the stores are: {there}); set {SWITCHES[type_]}: \"yes\" in the globals"
        )
    near = difflib.get_close_matches(name, [store.name for store in found], 1)
    hint = f"is '{near[0]}' meant?" if near else f"the stores are: {there}"
    return f"'{name}' is no store ({hint})"

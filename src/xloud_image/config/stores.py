"""Which stores a file means, in the style of several stores or of one, and with which options. No store is opened here.

Each guess is told. Operators' files come from two generations of the service and from guides that mix them, so:
- `enabled_backends` decides the style; an option of `[<id>]` counts, then one of `[glance_store]` if only one store
  has that type, then `[backend_defaults]`, then the default. A line in `[glance_store]` also wins over an `[<id>]`
  line that only repeats the default: that one a deployment tool rendered, this one a person added.
- A store that is `read_only` gets nothing of [glance_store]: what people add there is for the one in use.
- Without it, `default_backend`, `default_store` and `stores` name types or URI schemes; each type is one store.
"""

from __future__ import annotations

import difflib
import os.path
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from oslo_config import cfg

from xloud_image.config.fetching import url_filters
from xloud_image.config.findings import Kind
from xloud_image.config.options.table import table
from xloud_image.config.settings import StoreSettings
from xloud_image.stores import TYPES, type_of
from xloud_image.stores.file.options import FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xloud_image.config.values import Values

GLOBAL: Final = "glance_store"
FALLBACK: Final = "backend_defaults"
# Sections of stores that the service keeps for itself, of type file; the API never shows them.
STAGING, TASKS = "os_glance_staging_store", "os_glance_tasks_store"
RESERVED: Final = (STAGING, TASKS)
AS_IS: Final = "as_is"
# options of every store
COMMON: Final = (
    cfg.StrOpt("store_description", default="", help="Shown to clients in the list of stores."),
    cfg.IntOpt("weight", default=0, help="Higher is tried first when an image lies in several stores."),
    cfg.BoolOpt(
        "read_only",
        default=False,
        help="The store takes no new images; those that lie in it are read, and removed when they are deleted.",
    ),
    cfg.StrOpt(
        "import_format",
        default="",
        choices=["", AS_IS, "raw", "qcow2", "vmdk"],
        help="Disk format of what imports bring into it; as_is: as it comes; unset: what image_conversion makes.",
    ),
)
_PLACEHOLDER: Final = re.compile(r"<[A-Za-z][A-Za-z _-]*>")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Stores:
    """The stores of one reading. `settings`, `default` ("": none) and `multi` are ready after the constructor."""

    def __init__(self, values: Values) -> None:
        """Registers the options of stores with `values` and tells it every guess."""
        self.values = values
        for store_type in TYPES.values():
            values.register(GLOBAL, store_type.options)
            values.register(FALLBACK, store_type.options)
        values.register(FALLBACK, COMMON)
        self.url_filters = url_filters(values)
        self.multi = bool((values.get("DEFAULT", "enabled_backends") or "").strip())
        chosen = self._several() if self.multi else self._single()
        self._kept = {id_ for id_, type_ in chosen.items() if self._is_kept(id_, type_)}
        self._types = Counter(type_ for id_, type_ in chosen.items() if id_ not in self._kept)
        self.settings = (*(self._store(id_, type_) for id_, type_ in chosen.items()), *self._reserved())
        self.default = self._default_of_several() if self.multi else self._default_of_single()
        self._warn_about_default()
        self._require_staging()
        self._directories()
        self._left_over()

    def _several(self) -> dict[str, str]:
        chosen: dict[str, str] = {}
        text = self.values.get("DEFAULT", "enabled_backends") or ""
        for item in filter(None, (part.strip() for part in re.split(r"[,\n]", text))):
            id_, colon, name = (part.strip().strip("\"'") for part in item.partition(":"))
            if not colon or not name:
                self.refuse(f"'{item}' is no id:type pair", "DEFAULT", "enabled_backends")
                continue
            if not self._good_id(id_, chosen):
                continue
            type_ = self._type(name, "DEFAULT", "enabled_backends")
            if type_:
                chosen[id_] = type_
        if not chosen and not self.values.found.of("error"):
            self.refuse("names no store", "DEFAULT", "enabled_backends")
        return chosen

    def _good_id(self, id_: str, chosen: dict[str, str]) -> bool:
        if id_.startswith("os_glance_"):
            problem = "begins with os_glance_, which is kept for the service's own stores"
        elif not _ID.fullmatch(id_):
            problem = "is not made of letters, digits, '-', '_' and '.' alone (64 at most, a letter or digit first)"
        elif id_.lower() in {other.lower() for other in chosen}:
            problem = "stands there twice; the case of letters does not matter in section names"
        elif id_.lower() in {name.lower() for name in (*table(), *table()["DEFAULT"], FALLBACK)}:
            problem = "has another meaning in this file"
        else:
            return True
        self.refuse(f"the store id '{id_}' {problem}", "DEFAULT", "enabled_backends")
        return False

    def _type(self, name: str, group: str, option: str) -> str | None:
        """The type that a name means, told of when it is another word for it; None and a refusal otherwise."""
        type_ = type_of(name)
        if type_ is None:
            known = [word for one in TYPES.values() for word in (one.name, *one.schemes)]
            near = difflib.get_close_matches(name.lower(), known, 1)
            hint = f"; is '{type_of(near[0])}' meant?" if near else f"; types are {', '.join(sorted(TYPES))}"
            self.refuse(f"'{name}' is no type of store{hint}", group, option)
            return None
        if type_ != name:
            self.guess(f"'{name}' is taken as the type {type_}", group, option)
        return type_

    def _single(self) -> dict[str, str]:
        chosen: dict[str, str] = {}
        named = [(name, "stores") for name in self.values.get(GLOBAL, "stores")]
        defaults = [name for name in ("default_backend", "default_store") if self.values.is_set(GLOBAL, name)]
        named += [(str(self.values.get(GLOBAL, option)).strip(), option) for option in defaults]
        for name, option in named:
            type_ = self._type(name, GLOBAL, option)
            if type_:
                chosen.setdefault(type_, type_)
        if not named:
            chosen["file"] = "file"
            if self.values.files:
                self.guess("no store is named: those of Glance's defaults are used, file and (for reading) http")
        elif chosen and self.values.is_set(GLOBAL, "default_backend"):
            self.guess(
                f"stands without enabled_backends: taken as one store a type, with the type as its id "
                f"({', '.join(chosen)})",
                GLOBAL,
                "default_backend",
            )
        if self.values.files and not self.values.is_set(GLOBAL, "stores") and [*chosen] == ["file"]:
            # Glance then has its default of `stores`, file and http: what is registered with it stays readable
            chosen["http"] = "http"
        return chosen

    def _default_of_several(self) -> str:
        ids = [store.id for store in self.settings if not store.reserved]
        writable = [s.id for s in self.settings if not s.reserved and s.takes_images]
        if self.values.is_set(GLOBAL, "default_store"):
            text = "is not read when enabled_backends is set"
            self.values.tell("warning", Kind.IGNORED, text, GLOBAL, "default_store")
        if self.values.is_set(GLOBAL, "stores"):
            text = "is not read when enabled_backends is set, which names the stores"
            self.values.tell("warning", Kind.IGNORED, text, GLOBAL, "stores")
        name = (self.values.get(GLOBAL, "default_backend") or "").strip()
        if not name:
            if len(writable) == 1:
                self.guess(f"no default_backend: '{writable[0]}' is the only store that takes data", GLOBAL)
                return writable[0]
            if writable:
                self.refuse(f"default_backend is missing; name one of {', '.join(ids)}", GLOBAL)
            return ""
        if name in ids:
            return name
        type_ = type_of(name)
        of_type = [store.id for store in self.settings if not store.reserved and store.type == type_]
        if len(of_type) == 1:
            self.guess(f"'{name}' is no store id; taken as the store '{of_type[0]}'", GLOBAL, "default_backend")
            return of_type[0]
        if ids:
            near = difflib.get_close_matches(name, ids, 1)
            hint = f"is '{near[0]}' meant?" if near else f"the stores are {', '.join(ids)}"
            if type_ and not of_type:
                pairs = ", ".join(f"{store.id}:{store.type}" for store in self.settings if not store.reserved)
                hint = f"to have one of this type write [DEFAULT] enabled_backends = {pairs}, {type_}:{type_}"
            self.refuse(f"'{name}' is no store of enabled_backends; {hint}", GLOBAL, "default_backend")
        return ""

    def _default_of_single(self) -> str:
        ids = [store.id for store in self.settings if not store.reserved]
        writable = [store.id for store in self.settings if not store.reserved and store.takes_images]
        named = [
            type_of(self.values.get(GLOBAL, option)) or ""
            for option in ("default_backend", "default_store")
            if self.values.is_set(GLOBAL, option)
        ]
        if named and named[0] in ids and named[0] not in writable:
            # it can be read from all the same; data goes where else it can
            others = [name for name in named if name in writable] or writable
            if len(others) == 1:
                text = f"'{named[0]}' takes no data: the default is '{others[0]}', '{named[0]}' is for reading"
                option = "default_backend" if self.values.is_set(GLOBAL, "default_backend") else "default_store"
                self.guess(text, GLOBAL, option)
                return others[0]
        if named:
            return named[0] if named[0] in ids else ""
        if "file" in writable:
            return "file"
        if len(writable) > 1:
            self.refuse(f"default_store is missing; name one of {', '.join(writable)}", GLOBAL, "stores")
            return ""
        return next(iter(writable or ids), "")

    def _warn_about_default(self) -> None:
        default = next((store for store in self.settings if store.id == self.default), None)
        if default and not default.takes_images:
            text = f"the default store '{default.id}' never takes data: every upload that names no store gets 410; "
            if default.read_only:
                text += "remove read_only from its section, or name another store"
            else:
                text += "images come into it by registering a URL (POST /v2/images/ID/locations)"
            single = self.values.is_set(GLOBAL, "default_store") and not self.multi
            self.values.guess(text, GLOBAL, "default_store" if single else "default_backend")

    def _require_staging(self) -> None:
        name = self.values.get("xloud", "staging_store")
        takes = [store.id for store in self.settings if not store.reserved and store.takes_images]
        if name and name not in takes:
            text = f"'{name}' is no store that takes data; those that do are {', '.join(takes) or 'none'}"
            self.refuse(text, "xloud", "staging_store")

    def _store(self, id_: str, type_: str) -> StoreSettings:
        opts = TYPES[type_].options
        options = {opt.dest: self._option(id_, type_, opt) for opt in opts}
        for opt in opts:
            if opt.required and not options[opt.dest]:
                self.refuse("is missing; this type of store cannot do without it", self.place(id_, opt.dest), opt.dest)
            if any(_PLACEHOLDER.fullmatch(text) for text in _texts(options[opt.dest])):
                text = "is a placeholder of a guide, in angle brackets; write the real value"
                self.values.guess(text, self.place(id_, opt.dest), opt.dest)
        options |= TYPES[type_].settle(_Section(self, id_, options))
        description, weight, read_only, form = (self._pick(id_, opt, (id_, FALLBACK)) for opt in COMMON)
        plugins = ",".join(self.values.get("image_import_opts", "image_import_plugins"))
        if form not in ("", AS_IS) and "image_conversion" not in plugins:
            text = "nothing is converted: image_conversion is not among [image_import_opts] image_import_plugins"
            self.values.guess(text, self.place(id_, "import_format"), "import_format")
        return StoreSettings(id_, type_, description, weight, False, options, read_only, form)

    def place(self, id_: str, name: str) -> str:
        """The section where the operator wrote this option of the store, or would write it; for what is told."""
        if self.values.is_set(id_, name):
            return id_
        return GLOBAL if not self.multi or self.values.is_set(GLOBAL, name) else id_

    def _is_kept(self, id_: str, type_: str) -> bool:
        """Whether a store only keeps what is in it. What stands in [glance_store] is never meant for such a one."""
        self.values.register(id_, (*COMMON, *TYPES[type_].options))
        return bool(self.values.get(id_, "read_only"))

    def _option(self, id_: str, type_: str, opt: cfg.Opt) -> Any:
        """The value of one option by the order at the top of this file."""
        name = opt.dest
        if not self.values.is_set(GLOBAL, name) or id_ in self._kept:
            return self._pick(id_, opt, (id_, FALLBACK))
        if self._types[type_] > 1:
            text = f"is not read: {self._types[type_]} stores are of type {type_}; write it in the section of one"
            self.values.tell("warning", Kind.IGNORED, text, GLOBAL, name)
            return self._pick(id_, opt, (id_, FALLBACK))
        own = self.values.get(id_, name) if self.values.is_set(id_, name) else None
        if own is not None and _plain(own) != _plain(opt.default):
            if _plain(own) != _plain(self.values.get(GLOBAL, name)):
                self.values.guess(f"is not read: [{id_}] has another value for it", GLOBAL, name)
            return own
        if self.multi:
            self.guess(f"taken for the store '{id_}', the only one of type {type_}", GLOBAL, name)
        return self._pick(id_, opt, (GLOBAL,))

    def _pick(self, id_: str, opt: cfg.Opt, groups: tuple[str, ...]) -> Any:
        for group in groups:
            if self.values.is_set(group, opt.dest):
                return self.values.get(group, opt.dest)
        return self.values.get(id_, opt.dest)

    def _reserved(self) -> list[StoreSettings]:
        """The service's own stores, as far as the file has sections for them."""
        found = []
        for id_ in RESERVED:
            self.values.register(id_, (*COMMON, *FILE.options))
            named = any(line.group == id_ for line in self.values.lines)
            if not named and (id_ != STAGING or not self.values.get("DEFAULT", "node_staging_uri")):
                continue
            options = {opt.dest: self.values.get(id_, opt.dest) for opt in FILE.options}
            if not self.values.is_set(id_, "filesystem_store_datadir"):
                options["filesystem_store_datadir"] = f"/var/lib/glance/{id_}" if named else self._staging()
            options |= FILE.settle(_Section(self, id_, options))
            found.append(StoreSettings(id=id_, type=FILE.name, reserved=True, options=options))
        return found

    def _staging(self) -> str:
        """The directory for staged data of a file without a section for it."""
        uri = self.values.get("DEFAULT", "node_staging_uri").strip()
        scheme, _, path = uri.partition("://")
        if scheme != "file" or not path.startswith("/"):
            self.refuse(f"'{uri}' is no file:///directory URL", "DEFAULT", "node_staging_uri")
        return path.rstrip("/") or "/"

    def _directories(self) -> None:
        """Stores that share a directory would delete each other's images."""
        seen: dict[str, str] = {}
        for store in self.settings:
            for option, given in TYPES[store.type].directories(store.options):
                path = os.path.abspath(given)
                if path in seen:
                    self.refuse(
                        f"{path} belongs to the store '{seen[path]}' already; each store needs a directory of its own",
                        store.id,
                        option,
                    )
                elif given != "" and not os.path.isabs(given):
                    text = f"'{given}' is relative to where the service is started, which is {path} now: write that"
                    self.guess(text, self.place(store.id, option), option)
                seen[path] = store.id

    def _left_over(self) -> None:
        """Options for types that no store has, and sections of stores that are not enabled."""
        ids = {store.id.lower() for store in self.settings}
        by_name = {opt.dest: one.name for one in TYPES.values() for opt in one.options}
        unused = TYPES.keys() - self._types
        asked = (self.values.get("DEFAULT", "enabled_backends") or "").replace(" ", "")
        for group in (GLOBAL, FALLBACK):
            lost = sorted(
                {line.name for line in self.values.lines if line.group == group and by_name.get(line.name) in unused}
            )
            types = sorted({by_name[name] for name in lost})
            if lost:
                text = f"no store is of type {', '.join(types)}: not read: {', '.join(lost)}"
                self.values.tell("warning", Kind.IGNORED, text, group)
        for group in sorted({line.group for line in self.values.lines}):
            if group in TYPES and group not in ids and f"{group}:" not in asked:
                self.values.register(group, (*COMMON, *TYPES[group].options))
                self.values.tell("note", Kind.IGNORED, "this store is not enabled", group)

    def guess(self, text: str, group: str | None = None, name: str | None = None) -> None:
        self.values.guess(text, group, name)

    def refuse(self, text: str, group: str, name: str | None = None) -> None:
        self.values.refuse(text, group, name)


class _Section:
    """What a type of store asks while one of its stores is read."""

    def __init__(self, stores: Stores, id_: str, options: Mapping[str, Any]) -> None:
        self.options = options
        self.url_filters = stores.url_filters
        self._stores, self._id = stores, id_

    def is_set(self, name: str, *, own: bool = False) -> bool:
        groups = (self._id,) if own else (self._id, GLOBAL, FALLBACK)
        return any(self._stores.values.is_set(group, name) for group in groups)

    def elsewhere(self, group: str, name: str) -> Any:
        return self._stores.values.get(group, name)

    def guess(self, text: str, name: str) -> None:
        self._stores.guess(text, self._stores.place(self._id, name), name)

    def refuse(self, text: str, name: str) -> None:
        self._stores.refuse(text, self._stores.place(self._id, name), name)


def _plain(value: Any) -> Any:
    """For comparing: `/images/` and `/images` are one directory."""
    return value.rstrip("/") if isinstance(value, str) else value


def _texts(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]

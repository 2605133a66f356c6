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

from xloud_image.config.fetching import url_filters
from xloud_image.config.findings import Kind
from xloud_image.config.options import stores
from xloud_image.config.options.stores import COMMON, OPTIONS, RESERVED, type_of
from xloud_image.config.options.table import table
from xloud_image.config.settings import StoreSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from oslo_config import cfg

    from xloud_image.config.values import Values

GLOBAL: Final = "glance_store"
FALLBACK: Final = "backend_defaults"
# a service account of a cinder store: all of these or none; where Keystone is may be told alone, for the catalogue
_IDENTITY: Final = "cinder_store_auth_address"
_ACCOUNT: Final = (
    _IDENTITY,
    "cinder_store_user_name",
    "cinder_store_password",
    "cinder_store_project_name",
)
_PLACEHOLDER: Final = re.compile(r"<[A-Za-z][A-Za-z _-]*>")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Stores:
    """The stores of one reading. `settings`, `default` ("": none) and `multi` are ready after the constructor."""

    def __init__(self, values: Values) -> None:
        """Registers the options of stores with `values` and tells it every guess."""
        self._values = values
        for options in OPTIONS.values():
            values.register(GLOBAL, options)
            values.register(FALLBACK, options)
        values.register(FALLBACK, COMMON)
        self.url_filters = url_filters(values)
        self.multi = bool((values.get("DEFAULT", "enabled_backends") or "").strip())
        chosen = self._several() if self.multi else self._single()
        self._kept = {id_ for id_, type_ in chosen.items() if self._is_kept(id_, type_)}
        self._types = Counter(type_ for id_, type_ in chosen.items() if id_ not in self._kept)
        self.settings = (*(self._store(id_, type_) for id_, type_ in chosen.items()), *self._reserved())
        self.default = self._default_of_several() if self.multi else self._default_of_single()
        self._warn_about_default()
        self._directories()
        self._left_over()

    def _several(self) -> dict[str, str]:
        chosen: dict[str, str] = {}
        text = self._values.get("DEFAULT", "enabled_backends") or ""
        for item in filter(None, (part.strip() for part in re.split(r"[,\n]", text))):
            id_, colon, name = (part.strip().strip("\"'") for part in item.partition(":"))
            if not colon or not name:
                self._refuse(f"'{item}' is no id:type pair", "DEFAULT", "enabled_backends")
                continue
            if not self._good_id(id_, chosen):
                continue
            type_ = self._type(name, "DEFAULT", "enabled_backends")
            if type_:
                chosen[id_] = type_
        if not chosen and not self._values.found.of("error"):
            self._refuse("names no store", "DEFAULT", "enabled_backends")
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
        self._refuse(f"the store id '{id_}' {problem}", "DEFAULT", "enabled_backends")
        return False

    def _type(self, name: str, group: str, option: str) -> str | None:
        """The type that a name means, told of when it is another word for it; None and a refusal otherwise."""
        type_ = type_of(name)
        if type_ is None:
            near = difflib.get_close_matches(name.lower(), [*OPTIONS, *stores.ALIASES], 1)
            hint = f"; is '{type_of(near[0])}' meant?" if near else f"; types are {', '.join(sorted(OPTIONS))}"
            self._refuse(f"'{name}' is no type of store{hint}", group, option)
            return None
        if type_ != name:
            self._guess(f"'{name}' is taken as the type {type_}", group, option)
        if type_ == "memory":
            self._values.guess("a store of type memory loses everything on stop", group, option)
        return type_

    def _single(self) -> dict[str, str]:
        chosen: dict[str, str] = {}
        named = [(name, "stores") for name in self._values.get(GLOBAL, "stores")]
        defaults = [name for name in ("default_backend", "default_store") if self._values.is_set(GLOBAL, name)]
        named += [(str(self._values.get(GLOBAL, option)).strip(), option) for option in defaults]
        for name, option in named:
            type_ = self._type(name, GLOBAL, option)
            if type_:
                chosen.setdefault(type_, type_)
        if not named:
            chosen["file"] = "file"
            if self._values.files:
                self._guess("no store is named: one of type file is used")
        elif chosen and self._values.is_set(GLOBAL, "default_backend"):
            self._guess(
                f"stands without enabled_backends: taken as one store a type, with the type as its id "
                f"({', '.join(chosen)})",
                GLOBAL,
                "default_backend",
            )
        return chosen

    def _default_of_several(self) -> str:
        ids = [store.id for store in self.settings if not store.reserved]
        writable = [s.id for s in self.settings if not s.reserved and s.takes_images]
        if self._values.is_set(GLOBAL, "default_store"):
            text = "is not read when enabled_backends is set"
            self._values.tell("warning", Kind.IGNORED, text, GLOBAL, "default_store")
        if self._values.is_set(GLOBAL, "stores"):
            text = "is not read when enabled_backends is set, which names the stores"
            self._values.tell("warning", Kind.IGNORED, text, GLOBAL, "stores")
        name = (self._values.get(GLOBAL, "default_backend") or "").strip()
        if not name:
            if len(writable) == 1:
                self._guess(f"no default_backend: '{writable[0]}' is the only store that takes data", GLOBAL)
                return writable[0]
            if writable:
                self._refuse(f"default_backend is missing; name one of {', '.join(ids)}", GLOBAL)
            return ""
        if name in ids:
            return name
        type_ = type_of(name)
        of_type = [store.id for store in self.settings if not store.reserved and store.type == type_]
        if len(of_type) == 1:
            self._guess(f"'{name}' is no store id; taken as the store '{of_type[0]}'", GLOBAL, "default_backend")
            return of_type[0]
        if ids:
            near = difflib.get_close_matches(name, ids, 1)
            hint = f"is '{near[0]}' meant?" if near else f"the stores are {', '.join(ids)}"
            if type_ and not of_type:
                pairs = ", ".join(f"{store.id}:{store.type}" for store in self.settings if not store.reserved)
                hint = f"to have one of this type write [DEFAULT] enabled_backends = {pairs}, {type_}:{type_}"
            self._refuse(f"'{name}' is no store of enabled_backends; {hint}", GLOBAL, "default_backend")
        return ""

    def _default_of_single(self) -> str:
        ids = [store.id for store in self.settings if not store.reserved]
        writable = [store.id for store in self.settings if not store.reserved and store.takes_images]
        named = [
            type_of(self._values.get(GLOBAL, option)) or ""
            for option in ("default_backend", "default_store")
            if self._values.is_set(GLOBAL, option)
        ]
        if named and named[0] in ids and named[0] not in writable:
            # it can be read from all the same; data goes where else it can
            others = [name for name in named if name in writable] or writable
            if len(others) == 1:
                text = f"'{named[0]}' takes no data: the default is '{others[0]}', '{named[0]}' is for reading"
                option = "default_backend" if self._values.is_set(GLOBAL, "default_backend") else "default_store"
                self._guess(text, GLOBAL, option)
                return others[0]
        if named:
            return named[0] if named[0] in ids else ""
        if "file" in writable:
            return "file"
        if len(writable) > 1:
            self._refuse(f"default_store is missing; name one of {', '.join(writable)}", GLOBAL, "stores")
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
            single = self._values.is_set(GLOBAL, "default_store") and not self.multi
            self._values.guess(text, GLOBAL, "default_store" if single else "default_backend")

    def _store(self, id_: str, type_: str) -> StoreSettings:
        opts = OPTIONS[type_]
        options = {opt.dest: self._option(id_, type_, opt) for opt in opts}
        for opt in opts:
            if opt.required and not options[opt.dest]:
                self._refuse(
                    "is missing; this type of store cannot do without it", self._place(id_, opt.dest), opt.dest
                )
            if any(_PLACEHOLDER.fullmatch(text) for text in _texts(options[opt.dest])):
                text = "is a placeholder of a guide, in angle brackets; write the real value"
                self._values.guess(text, self._place(id_, opt.dest), opt.dest)
        if type_ == "http" and not any(
            self._values.is_set(group, "https_insecure") for group in (id_, GLOBAL, FALLBACK)
        ):
            text = "is not set: certificates are verified (Glance does not verify them unless told to)"
            self._guess(text, self._place(id_, "https_insecure"), "https_insecure")
        if type_ == "http":
            options["url_filters"] = self.url_filters
        if type_ == "cinder":
            options |= self._volume_account(id_, options)
        common = {opt.dest: self._pick(id_, opt, (id_, FALLBACK)) for opt in COMMON}
        return StoreSettings(
            id=id_,
            type=type_,
            description=common["store_description"],
            weight=common["weight"],
            read_only=common["read_only"],
            options=options,
        )

    def _place(self, id_: str, name: str) -> str:
        """The section where the operator wrote this option of the store, or would write it; for what is told."""
        if self._values.is_set(id_, name):
            return id_
        return GLOBAL if not self.multi or self._values.is_set(GLOBAL, name) else id_

    def _volume_account(self, id_: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """What of a cinder store's service account has to be filled in. The peer ignores an account that is not whole
        and takes each caller's own token; here that is never done without a word."""
        given = [name for name in _ACCOUNT if options[name] and name != _IDENTITY]
        missing = [name for name in _ACCOUNT if not options[name]]
        by_credential = options["cinder_store_application_credential_id"]
        if by_credential or not given or not missing:
            return {}
        own = {name: self._values.get("keystone_authtoken", name) for name in ("username", "project_name", "password")}
        same = (options["cinder_store_user_name"], options["cinder_store_project_name"])
        if missing == ["cinder_store_password"] and own["password"] and same == (own["username"], own["project_name"]):
            text = f"is not set: that of [keystone_authtoken] is used, which names the same user '{own['username']}'"
            self._guess(text, self._place(id_, missing[0]), missing[0])
            return {"cinder_store_password": own["password"]}
        for name in missing:
            self._refuse(
                f"is missing: with {', '.join(given)} this store works under an account of its own, which needs it; "
                f"set it, or remove {'this one' if len(given) == 1 else 'these'} to work under each caller's account",
                self._place(id_, name),
                name,
            )
        return {}

    def _is_kept(self, id_: str, type_: str) -> bool:
        """Whether a store only keeps what is in it. What stands in [glance_store] is never meant for such a one."""
        self._values.register(id_, (*COMMON, *OPTIONS[type_]))
        return bool(self._values.get(id_, "read_only"))

    def _option(self, id_: str, type_: str, opt: cfg.Opt) -> Any:
        """The value of one option by the order at the top of this file."""
        name = opt.dest
        if not self._values.is_set(GLOBAL, name) or id_ in self._kept:
            return self._pick(id_, opt, (id_, FALLBACK))
        if self._types[type_] > 1:
            text = f"is not read: {self._types[type_]} stores are of type {type_}; write it in the section of one"
            self._values.tell("warning", Kind.IGNORED, text, GLOBAL, name)
            return self._pick(id_, opt, (id_, FALLBACK))
        own = self._values.get(id_, name) if self._values.is_set(id_, name) else None
        if own is not None and _plain(own) != _plain(opt.default):
            if _plain(own) != _plain(self._values.get(GLOBAL, name)):
                self._values.guess(f"is not read: [{id_}] has another value for it", GLOBAL, name)
            return own
        if self.multi:
            self._guess(f"taken for the store '{id_}', the only one of type {type_}", GLOBAL, name)
        return self._pick(id_, opt, (GLOBAL,))

    def _pick(self, id_: str, opt: cfg.Opt, groups: tuple[str, ...]) -> Any:
        for group in groups:
            if self._values.is_set(group, opt.dest):
                return self._values.get(group, opt.dest)
        return self._values.get(id_, opt.dest)

    def _reserved(self) -> list[StoreSettings]:
        """The service's own stores, as far as the file has sections for them."""
        found = []
        for id_ in RESERVED:
            self._values.register(id_, (*COMMON, *OPTIONS["file"]))
            if not any(line.group == id_ for line in self._values.lines):
                continue
            options = {opt.dest: self._values.get(id_, opt.dest) for opt in OPTIONS["file"]}
            if not self._values.is_set(id_, "filesystem_store_datadir"):
                options["filesystem_store_datadir"] = f"/var/lib/glance/{id_}"
            found.append(StoreSettings(id=id_, type="file", reserved=True, options=options))
        return found

    def _directories(self) -> None:
        """File stores that share a directory would delete each other's images."""
        seen: dict[str, str] = {}
        for store in self.settings:
            if store.type != "file":
                continue
            several = store.options["filesystem_store_datadirs"]
            if several and self._values.is_set(store.id, "filesystem_store_datadir"):
                self._refuse(
                    "excludes filesystem_store_datadir; keep one of the two",
                    store.id,
                    "filesystem_store_datadirs",
                )
            option = "filesystem_store_datadirs" if several else "filesystem_store_datadir"
            for entry in several or [store.options["filesystem_store_datadir"]]:
                try:
                    given = stores.directory_of(entry, priority=bool(several))
                except ValueError as error:
                    self._refuse(str(error), self._place(store.id, option), option)
                    continue
                path = os.path.abspath(given)
                if path in seen:
                    self._refuse(
                        f"{path} belongs to the store '{seen[path]}' already; each store needs a directory of its own",
                        store.id,
                        option,
                    )
                elif given != "" and not os.path.isabs(given):
                    text = f"'{given}' is relative to where the service is started, which is {path} now: write that"
                    self._guess(text, self._place(store.id, option), option)
                seen[path] = store.id

    def _left_over(self) -> None:
        """Options for types that no store has, and sections of stores that are not enabled."""
        ids = {store.id.lower() for store in self.settings}
        by_name = {opt.dest: type_ for type_, opts in OPTIONS.items() for opt in opts}
        unused = {type_ for type_ in OPTIONS if type_ not in self._types}
        asked = (self._values.get("DEFAULT", "enabled_backends") or "").replace(" ", "")
        for group in (GLOBAL, FALLBACK):
            lost = sorted(
                {line.name for line in self._values.lines if line.group == group and by_name.get(line.name) in unused}
            )
            types = sorted({by_name[name] for name in lost})
            if lost:
                text = f"no store is of type {', '.join(types)}: not read: {', '.join(lost)}"
                self._values.tell("warning", Kind.IGNORED, text, group)
        for group in sorted({line.group for line in self._values.lines}):
            if group in OPTIONS and group not in ids and f"{group}:" not in asked:
                self._values.register(group, (*COMMON, *OPTIONS[group]))
                self._values.tell("note", Kind.IGNORED, "this store is not enabled", group)

    def _guess(self, text: str, group: str | None = None, name: str | None = None) -> None:
        self._values.guess(text, group, name)

    def _refuse(self, text: str, group: str, name: str | None = None) -> None:
        self._values.refuse(text, group, name)


def _plain(value: Any) -> Any:
    """For comparing: `/images/` and `/images` are one directory."""
    return value.rstrip("/") if isinstance(value, str) else value


def _texts(value: Any) -> list[str]:
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, str)]

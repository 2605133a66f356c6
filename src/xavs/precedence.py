"""What an operator's override lines do to the rendered ones beyond replacing the same option. No file is read here.

Guides put the options of a store into [glance_store]. Such a line, written by a person, wins over the line that we
rendered into the store's own section: ours is taken out, so that nobody has to know an order of precedence.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import TYPE_CHECKING, Final

from xavs import plan, template
from xavs.overrides import merge
from xavs.variables import SWITCHES
from xloud_image.config.files import Line
from xloud_image.stores import TYPES, type_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xavs.plan import Store
    from xloud_image.config.findings import Findings

GLOBAL: Final = "glance_store"
_TYPE_OF_OPTION: Final = {opt.dest: one.name for one in TYPES.values() for opt in one.options}
_NEW_NAME: Final = {
    old.name: opt.dest for one in TYPES.values() for opt in one.options for old in opt.deprecated_opts if old.name
}
_TYPE_OF_OPTION.update({old: _TYPE_OF_OPTION[new] for old, new in _NEW_NAME.items()})
# an operator's option → rendered options of the same store that would contradict it
_INSTEAD: Final = {
    "filesystem_store_datadirs": ("filesystem_store_datadir",),
    **dict.fromkeys(
        (*template.SWIFT_ACCOUNT[:2], *template.SWIFT_CREDENTIAL),
        ("swift_store_config_file", "default_swift_reference"),
    ),
}


def apply(rendered: list[Line], theirs: Sequence[Line], stores: list[Store], findings: Findings) -> list[Line]:
    """The merged lines."""
    in_use = [store for store in stores if not store.kept]
    renamed = [_renamed(line, theirs, findings) for line in theirs]
    theirs = [line for line in renamed if line and _is_possible(line, stores, findings)]
    lines = merge(rendered, theirs)
    count = Counter(store.type for store in in_use)
    for line in theirs:
        section, name = line.key
        type_ = _TYPE_OF_OPTION.get(name)
        if type_ is None:
            continue
        if section == GLOBAL:
            targets = [store for store in in_use if store.type == type_ and count[type_] == 1]
            if not targets and not count[type_]:
                findings.warning(
                    f'has no effect: no store of type {type_} is on; set {SWITCHES.get(type_, "")}: "yes"',
                    f"[{line.section}] {line.name}",
                    line.origin,
                )
        else:
            targets = [store for store in stores if store.name.lower() == section]
        for store in targets:
            gone = (
                {_NEW_NAME.get(name, name), *_INSTEAD.get(name, ())} if section == GLOBAL else {*_INSTEAD.get(name, ())}
            )
            lines = [old for old in lines if old.theirs or old.key not in {(store.name.lower(), one) for one in gone}]
    return _with_sections(lines, stores)


def _renamed(line: Line, theirs: Sequence[Line], findings: Findings) -> Line | None:
    """`default_store` as the name that counts beside `enabled_backends`. None: it is not handed on."""
    if line.key != (GLOBAL, "default_store"):
        return line
    where = f"[{line.section}] {line.name}"
    if any(other.key == (GLOBAL, "default_backend") for other in theirs):
        findings.warning("is not used: default_backend stands beside it", where, line.origin)
        return None
    findings.warning("is the name in files without enabled_backends: taken as default_backend", where, line.origin)
    return dataclasses.replace(line, name="default_backend")


def _is_possible(line: Line, stores: list[Store], findings: Findings) -> bool:
    """Complains about names of stores that are not on, with the key of the globals that switches them on."""
    where = f"[{line.section}] {line.name}"
    if line.key == (GLOBAL, "default_backend"):
        name = line.value.strip().strip("\"'")
        in_use = [store for store in stores if not store.kept]
        store = plan.named(name, in_use)
        if store is None:
            findings.error(plan.not_enabled(name, in_use), where, line.origin)
        elif not TYPES[store.type].takes_data:
            findings.warning(
                f"the store '{store.name}' never takes data: every upload that names no other store gets 410",
                where,
                line.origin,
            )
    elif line.key == (GLOBAL, "stores"):
        in_use = [store for store in stores if not store.kept]
        for name in filter(None, (part.strip().strip("\"'") for part in line.value.strip("[] ").split(","))):
            if not any(store.type == type_of(name) or store.name == name for store in in_use):
                findings.error(plan.not_enabled(name, in_use), where, line.origin)
        findings.warning("is not used: the globals say which stores there are", where, line.origin)
        return False
    elif line.key == ("DEFAULT", "enabled_backends"):
        findings.warning(
            "replaces what the globals say about stores; mounts and keys of the container still follow the globals",
            where,
            line.origin,
        )
    elif line.key[0] in TYPES and line.key[0] not in {store.name.lower() for store in stores}:
        type_ = line.key[0]
        if type_ in SWITCHES and not any(store.type == type_ for store in stores):
            findings.warning(
                f'has no effect: no such store is on; set {SWITCHES[type_]}: "yes" in the globals', where, line.origin
            )
    return True


def _with_sections(lines: list[Line], stores: list[Store]) -> list[Line]:
    """Lines of one section together, in the order in which sections first appear."""
    order = list(dict.fromkeys(line.key[0] for line in lines))
    return sorted(lines, key=lambda line: order.index(line.key[0]))

"""The part of `Settings` about the audit: the filter `audit` of a paste file switches it on, as it does with Glance,
and says where the operator's map is. A map that cannot be read refuses the start: somebody counts on what it brings.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xloud_image.config.findings import Kind
from xloud_image.config.messaging import BUS, is_installed
from xloud_image.config.settings import AuditMap, AuditSettings, NotificationSettings

if TYPE_CHECKING:
    from xloud_image.config.paste import Filter
    from xloud_image.config.values import Values

SECTION: Final = "audit_middleware_notifications"
_ABOUT: Final = ("paste_deploy", "flavor")  # what switches the filter on
_LARGEST: Final = 1 << 20  # bytes of a map
_DEFAULTS: Final = "DEFAULT"
_OFF: Final = ("", "noop", "test")
_TRUE: Final = ("1", "true", "yes", "on", "t", "y")
# where CADF's taxonomies begin; consumers know no others
_ACTIONS: Final = (
    "authenticate", "backup", "capture", "configure", "create", "delete", "deploy", "disable", "enable", "evaluate",
    "monitor", "notify", "read", "receive", "renew", "restore", "revoke", "start", "stop", "undeploy", "unknown",
    "update", "allow", "deny", "send",
)  # fmt: skip
_TYPES: Final = ("storage", "compute", "network", "service", "data", "unknown")


def audit(values: Values, pipeline: Sequence[Filter], notifications: NotificationSettings) -> AuditSettings:
    """What is told of calls; nothing without the filter."""
    found = next((one for one in pipeline if one.is_audit), None)
    if found is None:
        if any(line.group == SECTION for line in values.lines):
            values.guess("has no effect: no filter `audit` is in the pipeline of this flavor", SECTION)
        return AuditSettings()

    def said(name: str) -> str:
        """An option of the section; one of the paste file goes before it."""
        return found.options.get(name) or str(values.get(SECTION, name) or "")

    named = found.options.get("use_oslo_messaging")
    sends = named.lower() in _TRUE if named else values.get(SECTION, "use_oslo_messaging")
    own = (said("driver").lower(),) if said("driver") else notifications.drivers
    drivers = own if sends else ("log",)
    for name in drivers:
        if name not in (*BUS, "log", *_OFF):
            text = f"'{name}' does not send audit events here: {', '.join(BUS)} and log do, noop says that none are"
            values.refuse(text, SECTION, "driver")
    drivers = tuple(name for name in drivers if name in (*BUS, "log"))
    url = said("transport_url") or notifications.transport_url
    if any(name in BUS for name in drivers):
        if not (url or values.get("DEFAULT", "transport_url")):
            values.refuse("needs [DEFAULT] transport_url, or that of this section", SECTION, "driver")
        elif not is_installed():
            values.refuse("needs the library oslo.messaging, which is not installed here", SECTION, "driver")
    if not drivers:
        text = f"the filter {found.name} of {found.file} tells nobody: no driver is set ([{SECTION}] driver, or that of"
        values.guess(f"{text} [oslo_messaging_notifications])", *_ABOUT)
    written = found.options.get("topics")
    topics = [one.strip() for one in written.split(",")] if written else values.get(SECTION, "topics")
    words, kind = _map(values, found)
    return AuditSettings(
        drivers=drivers,
        topics=tuple(filter(None, topics)) or notifications.topics,
        transport_url=url or None,
        ignored_methods=frozenset(_list(found, "ignore_req_list", upper=True)),
        ignored_paths=frozenset(_list(found, "ignore_path_list")),
        service_type=kind or values.get("keystone_authtoken", "service_type"),
        map=words,
    )


def _list(found: Filter, name: str, *, upper: bool = False) -> list[str]:
    words = [one.strip() for one in found.options.get(name, "").split(",")]
    return [word.upper() if upper else word for word in words if word]


def _map(values: Values, found: Filter) -> tuple[AuditMap, str]:
    """The operator's map, and the type in the catalogue that it says we have, if it does."""
    name = found.options.get("audit_map_file", "")
    if not name:
        values.guess(f"the filter {found.name} of {found.file} has no audit_map_file: nothing has a type", *_ABOUT)
        return AuditMap(), ""
    try:
        sections = _read(found.file.parent / name)
    except (OSError, UnicodeError, configparser.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        values.refuse(f"the audit_map_file {name} of {found.file} cannot be read: {reason[:200]}", *_ABOUT)
        return AuditMap(), ""
    actions = _known(values, name, sections.get("custom_actions", {}), _ACTIONS, "action")
    services = _known(values, name, sections.get("service_endpoints", {}), _TYPES, "type of resources")
    kind = sections[_DEFAULTS].get("target_endpoint_type", "")
    return AuditMap(actions, sections.get("path_keywords", {}), services), "" if kind == "None" else kind


def _read(path: Path) -> dict[str, dict[str, str]]:
    """The sections of a map."""
    parser = configparser.RawConfigParser(strict=False)
    with path.open(encoding="utf-8") as lines:
        text = lines.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise OSError(0, "it is larger than 1 MiB")
    parser.read_string(text, source=str(path))
    found = {name: dict(parser.items(name)) for name in parser.sections()}
    defaults = dict(parser.defaults())
    return {
        _DEFAULTS: defaults,
        **{
            name: {key: value[:255] for key, value in said.items() if key not in defaults}
            for name, said in found.items()
        },
    }


def _known(values: Values, name: str, said: Mapping[str, str], begins: Sequence[str], what: str) -> dict[str, str]:
    """Without words that CADF does not know: consumers would take no event that has them."""
    odd = sorted(word for word in set(said.values()) if not word.startswith(tuple(begins)))
    if odd:
        text = f"{name}: CADF knows no {what} {', '.join(odd)[:200]}; unknown is told instead"
        values.tell("warning", Kind.GUESS, text, *_ABOUT)
    return {key: "unknown" if word in odd else word for key, word in said.items()}

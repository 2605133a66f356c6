"""Which URLs of web servers may be registered: [import_filtering_opts] and our own addition. No URL is judged here."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from xloud_image.config.findings import Kind
from xloud_image.stores.kit.filters import UrlFilters

if TYPE_CHECKING:
    from xloud_image.config.values import Values

GROUP: Final = "import_filtering_opts"
_KINDS: Final = ("schemes", "hosts", "ports")


def url_filters(values: Values) -> UrlFilters:
    """The filters; an empty list that stands in a file is one, and restricts nothing."""
    names = [f"{how}_{kind}" for how in ("allowed", "disallowed") for kind in _KINDS]
    lists = {name: [] if _is_empty(values, name) else values.get(GROUP, name) for name in names}
    for kind in _KINDS:
        if lists[f"disallowed_{kind}"] and lists[f"allowed_{kind}"]:
            text = f"is not read: allowed_{kind} ({', '.join(lists[f'allowed_{kind}'])}) decides"
            if not values.line(GROUP, f"allowed_{kind}"):
                text += f"; to have it read write an empty 'allowed_{kind} ='"
            values.tell("warning", Kind.IGNORED, text, GROUP, f"disallowed_{kind}")
    return UrlFilters(
        chosen=any(values.line(GROUP, name) for name in names),
        allowed_schemes=tuple(one.lower() for one in lists["allowed_schemes"]),
        disallowed_schemes=tuple(one.lower() for one in lists["disallowed_schemes"]),
        allowed_hosts=tuple(one.lower() for one in lists["allowed_hosts"]),
        disallowed_hosts=tuple(one.lower() for one in lists["disallowed_hosts"]),
        allowed_ports=_ports(values, "allowed_ports", lists["allowed_ports"]),
        disallowed_ports=_ports(values, "disallowed_ports", lists["disallowed_ports"]),
        networks=_networks(values),
    )


def _is_empty(values: Values, name: str) -> bool:
    line = values.line(GROUP, name)
    return line is not None and line.value.strip() in ("", "[]")


def _ports(values: Values, name: str, given: list[str]) -> tuple[int, ...]:
    found = []
    for one in given:
        if one.isascii() and one.isdigit() and 0 < int(one[:6]) < 65536:
            found.append(int(one))
        else:
            values.refuse(f"'{one}' is no port number", GROUP, name)
    return tuple(found)


def _networks(values: Values) -> tuple[str, ...]:
    found = []
    for one in values.get("xloud", "location_networks"):
        try:
            found.append(str(ipaddress.ip_network(one)))
        except ValueError as error:
            text = f"'{one}' is no network such as 10.1.2.0/24: {error}"
            values.refuse(text, "xloud", "location_networks")
    return tuple(found)

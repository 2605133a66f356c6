"""What an operator says about the URLs of web servers, as the configuration hands it on. No URL is judged here."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class UrlFilters:
    """[import_filtering_opts]: which http and https URLs may be registered or fetched; `location_networks` of [xloud].

    `chosen`: the operator set one of the lists; without that they count for nothing where a URL is registered. Of each
    pair the list of what is allowed counts when it is not empty, else that of what is not; empty ones restrict nothing.
    Hosts are lower case. `networks` (CIDR): addresses that everybody may name, private, of loopback or link-local ones
    included.
    """

    chosen: bool = False
    allowed_schemes: tuple[str, ...] = ()
    disallowed_schemes: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    disallowed_hosts: tuple[str, ...] = ()
    allowed_ports: tuple[int, ...] = ()
    disallowed_ports: tuple[int, ...] = ()
    networks: tuple[str, ...] = ()

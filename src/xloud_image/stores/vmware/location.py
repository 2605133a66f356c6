"""What the options of the vmware store mean, and the URLs of its images. No connection here.

A location is `vsphere://<host>/folder/<image dir>/<key>?dsName=<datastore>&dcPath=<datacenter path>`, the query
form-encoded; its order is free, and `dcPath` may be missing in what a lone host (ESXi) wrote.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from yarl import URL

from xloud_image.errors import BadRequest, ConfigError
from xloud_image.stores.base import plain_key
from xloud_image.stores.vmware.options import VMWARE

SCHEME: Final = VMWARE.schemes[0]
_PORT: Final = 443


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A configured datastore; the higher `weight` is filled first."""

    datacenter: str
    datastore: str
    weight: int = 0

    def __str__(self) -> str:
        return f"{self.datacenter}:{self.datastore}"


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """Name or address without brackets, and port."""

    host: str
    port: int = _PORT

    def __str__(self) -> str:
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _PORT else f"{name}:{self.port}"


def server(text: str) -> Server:
    """`host`, `host:port`, `[v6]:port`, or a bare IPv6 address. `ConfigError` for a scheme, a path or nothing."""
    found = _server(text.strip())
    if found is None:
        raise ConfigError(
            f"vmware_server_host = {text!r} is no name or address: write it without https:// and"
            " without a path, with :PORT only when it is not 443"
        )
    return found


def _server(text: str) -> Server | None:
    try:
        return Server(str(ipaddress.IPv6Address(text)))
    except ValueError:
        pass
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?", text)
    if match is None:
        return None
    try:
        host = str(ipaddress.IPv6Address(match[1])) if match[1] else match[2].lower()
    except ValueError:
        return None
    return Server(host, int(match[3] or _PORT))


def places(lines: Sequence[str]) -> tuple[Place, ...]:
    """`datacenter_path:datastore:weight`, split from the right, the weight optional. `ConfigError` names the line."""
    found: dict[tuple[str, str], Place] = {}
    for line in filter(None, (line.strip() for line in lines)):
        parts = [part.strip() for part in line.rsplit(":", 2)]
        weight = parts.pop() if len(parts) == 3 else ""
        if len(parts) != 2 or not all(parts) or (weight and not re.fullmatch(r"[0-9]+", weight)):
            raise ConfigError(
                f"vmware_datastores = {line!r} means nothing: write datacenter path:datastore:weight,"
                " such as DC1:images:100"
            )
        datacenter, datastore = parts[0].strip("/"), parts[1]
        if (datacenter, datastore) in found:
            raise ConfigError(f"vmware_datastores names {datacenter}:{datastore} twice")
        found[datacenter, datastore] = Place(datacenter, datastore, int(weight or 0))
    if not found:
        raise ConfigError("vmware_datastores is empty: name datacenter path:datastore:weight")
    return tuple(found.values())


def image_dir(text: str) -> str:
    """The folder without slashes at its ends. `ConfigError` for the datastore itself and for what no URL can say."""
    folder = "/".join(part for part in text.strip().split("/") if part)
    if not folder or re.search(r"[\[\]?#%\\\x00-\x1f]", folder) or {".", ".."} & set(folder.split("/")):
        raise ConfigError(
            f"vmware_store_image_dir = {text!r} cannot be used: name a folder of its own, such as /openstack_glance"
        )
    return folder


@dataclasses.dataclass(frozen=True, slots=True)
class Locations:
    """The URLs of one store, and nothing but them."""

    server: Server
    folder: str
    places: tuple[Place, ...]

    def url(self, place: Place, key: str) -> str:
        """The location of `key`, without credentials, as other services read it."""
        query = urlencode({"dsName": place.datastore, "dcPath": place.datacenter})
        return f"{SCHEME}://{self.server}/folder/{self.folder}/{key}?{query}"

    def https(self, place: Place, name: str) -> URL:
        """Where the server has the bytes; `name` "": the folder."""
        path = quote(f"/folder/{self.folder}/{name}".rstrip("/"))
        query = urlencode({"dcPath": place.datacenter, "dsName": place.datastore}, quote_via=quote, safe="")
        return URL(f"https://{self.server}{path}?{query}", encoded=True)

    def path(self, place: Place, name: str = "") -> str:
        """The same as the server's own calls have it: `[datastore] folder/name`."""
        return f"[{place.datastore}] {self.folder}/{name}".rstrip("/")

    def parse(self, url: str) -> tuple[Place, str] | None:
        """(datastore, key) of a URL directly in the folder of a configured datastore; None of any other."""
        scheme, _, rest = url.partition("://")
        netloc, slash, rest = rest.partition("/")
        path, _, query = rest.partition("?")
        if scheme != SCHEME or not slash or _server(netloc.rpartition("@")[2]) != self.server:
            return None
        place = self._place(query)
        before = f"folder/{self.folder}/"
        for form in (path, unquote(path)):
            if place is not None and form.startswith(before):
                try:
                    return place, plain_key(form.removeprefix(before))
                except BadRequest:
                    continue
        return None

    def _place(self, query: str) -> Place | None:
        fields: dict[str, list[str]] = {}
        for name, value in parse_qsl(query):
            fields.setdefault(name, []).append(value)
        stores, centers = fields.get("dsName", []), fields.get("dcPath", [])
        if len(stores) != 1 or len(centers) > 1:
            return None
        for place in self.places:
            if place.datastore == stores[0] and (not centers or centers[0].strip("/") == place.datacenter):
                return place
        return None

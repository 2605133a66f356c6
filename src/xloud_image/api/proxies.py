"""How a client reached the service when a proxy stands in front: scheme, host, path and the client's own address.

Headers of proxies count only with `[oslo_middleware] enable_proxy_headers_parsing`: without a proxy that sets them,
anybody could write them. `Forwarded` (RFC 7239) goes before `X-Forwarded-*`. Scheme and host are those of the first
proxy, the address is the one that the last proxy saw: what stands before it, the client may have written itself.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from typing import Final

from aiohttp import web

from xloud_image.api.state import CONTEXT, RUNTIME

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]{1,100}){1,10}", re.ASCII)
_LONGEST: Final = 4096  # characters of one of these headers; longer ones count as not sent
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """`base`: the address of the service as this client knows it, without a slash at its end. `client`: its address."""

    base: str
    client: str | None


_WAY: Final = web.RequestKey("way", Way)


def way(request: web.Request) -> Way:
    """Of this request; worked out once."""
    found = request.get(_WAY)
    if found is None:
        found = _way(request)
        request[_WAY] = found
    return found


def client(request: web.Request) -> str | None:
    """The address of whoever asks."""
    if not request.app[RUNTIME].settings.server.enable_proxy_headers_parsing:
        return request.remote
    return way(request).client


def whose(request: web.Request) -> str:
    """Who answers for what a request takes of the process: its project, without one the address it comes from."""
    ctx = request.get(CONTEXT)
    return (ctx.project if ctx else None) or client(request) or ""


def _way(request: web.Request) -> Way:
    server = request.app[RUNTIME].settings.server
    scheme, host, prefix, address = request.scheme, request.host or server.bind_host, "", request.remote
    if server.enable_proxy_headers_parsing:
        told = _forwarded(_all(request, "Forwarded"))
        if told:
            first, last = told[0], told[-1]
            scheme = _scheme(first.get("proto")) or scheme
            host = _host(first.get("host")) or host
            address = _address(last.get("for")) or address
        else:
            scheme = _scheme(_first(request, "X-Forwarded-Proto")) or scheme
            host = _host(_first(request, "X-Forwarded-Host")) or host
            address = _address(_all(request, "X-Forwarded-For").rpartition(",")[2]) or address
        host = _with_port(host, _first(request, "X-Forwarded-Port"), scheme)
        prefix = _first(request, "X-Forwarded-Prefix").rstrip("/")
        prefix = prefix if _PREFIX.fullmatch(prefix) else ""
    base = server.public_endpoint.rstrip("/") if server.public_endpoint else f"{scheme}://{host}{prefix}"
    return Way(base, address)


def _all(request: web.Request, name: str) -> str:
    text = ",".join(request.headers.getall(name, ()))
    return text if len(text) <= _LONGEST else ""


def _first(request: web.Request, name: str) -> str:
    return _all(request, name).partition(",")[0].strip()


def _forwarded(text: str) -> list[dict[str, str]]:
    """The elements of a `Forwarded` header. Pairs that are malformed are left out."""
    found = []
    for element in text.split(","):
        pairs = {}
        for pair in element.split(";"):
            name, equals, value = pair.strip().partition("=")
            if equals:
                pairs[name.strip().lower()] = value.strip().strip('"')
        if pairs:
            found.append(pairs)
    return found


def _scheme(text: str | None) -> str | None:
    word = (text or "").lower()
    return word if word in _DEFAULT_PORTS else None


def _host(text: str | None) -> str | None:
    return text if text and _HOST.fullmatch(text) else None


def _with_port(host: str, port: str, scheme: str) -> str:
    """The host with the port that clients use, unless it names one or it is the usual one."""
    if not port.isascii() or not port.isdigit() or len(port) > 5 or host.rpartition("]")[2].count(":"):
        return host
    return host if _DEFAULT_PORTS.get(scheme) == port else f"{host}:{port}"


def _address(text: str | None) -> str | None:
    """An address out of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`; None for anything else."""
    word = (text or "").strip().strip('"')
    if word.startswith("["):
        word = word[1:].partition("]")[0]
    elif word.count(":") == 1:
        word = word.partition(":")[0]
    try:
        return str(ipaddress.ip_address(word))
    except ValueError:
        return None

"""What web servers answer, and which of them may be asked."""

import contextlib
import json
import sqlite3
from typing import Any

from tests.faults.files import new
from tests.faults.rows import Site, row
from tests.servers.odd_web import OddWeb
from tests.servers.service import Service

DATA = bytes(range(256)) * 100

PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}


def by_post(service: Service, url: str) -> tuple[int, str]:
    """(status, id) of registering a URL by the locations API."""
    image = new(service)
    return service.request("POST", f"/v2/images/{image}/locations", json={"url": url}).status, image


def by_patch(service: Service, url: str) -> tuple[int, str]:
    """(status, id) of registering a URL by PATCH."""
    image = new(service)
    change = [{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]
    body = json.dumps(change).encode()
    return service.request("PATCH", f"/v2/images/{image}", body=body, headers=PATCH).status, image


def with_web(**more: Any) -> dict[str, dict[str, Any]]:
    """Sections of a service with a file store and the http store."""
    return {
        "DEFAULT": {"enabled_backends": "files:file, web:http", "show_multiple_locations": "true"},
        "web": {"https_insecure": "false"},
        **more,
    }


@row("the operator's lists of URLs hold for locations", "400 400; 400 400; 400 400")
def lists(site: Site) -> str:
    lists = {"disallowed_hosts": "[127.0.0.1]", "allowed_ports": "[80,443]"}
    service = site.service(with_web(import_filtering_opts=lists))
    urls = ("http://127.0.0.1:27599/image.raw", "http://127.0.0.1/image.raw", "http://images.example:8080/image.raw")
    return "; ".join(f"{by_post(service, url)[0]} {by_patch(service, url)[0]}" for url in urls)


@row("the node's own addresses are refused to everybody", "400 400; 400 400; 400 400; 400 400; 400 400")
def own_node(site: Site) -> str:
    service = site.service(with_web())
    hosts = ("127.0.0.1:27599", "localhost:27599", "169.254.169.254", "[::ffff:127.0.0.1]:27599", "2130706433:27599")
    return "; ".join(
        f"{by_post(service, f'http://{host}/x')[0]} {by_patch(service, f'http://{host}/x')[0]}" for host in hosts
    )


def odd(site: Site) -> tuple[Service, OddWeb]:
    """A service, and a web server at a private address."""
    web = OddWeb(DATA)
    site.closing(web)
    return site.service(with_web()), web


def read(service: Service, image: str) -> str:
    """How the whole and a part of an image are read: «200 206», or the statuses and what is wrong."""
    whole = service.request("GET", f"/v2/images/{image}/file")
    part = service.request("GET", f"/v2/images/{image}/file", headers={"Range": "bytes=1000-1999"})
    right = (whole.body, part.body) == (DATA, DATA[1000:2000])
    return f"{whole.status} {part.status}" + ("" if right else " other bytes")


@row("headers of a web server that are no UTF-8", "tag: 202 200, 200 206; changed: 202 200, 200 206")
def no_text(site: Site) -> str:
    service, web = odd(site)
    found = []
    for mode in ("tag", "changed"):
        (post, image), (patch, _) = by_post(service, web.url(mode)), by_patch(service, web.url(mode))
        found.append(f"{mode}: {post} {patch}, {read(service, image)}")
    return "; ".join(found)


@row("a web server whose HEAD fails where GET works", "head404: 202, 200 206; head500: 202, 200 206")
def head(site: Site) -> str:
    service, web = odd(site)
    found = []
    for mode in ("head404", "head500"):
        status, image = by_post(service, web.url(mode))
        found.append(f"{mode}: {status}, {read(service, image)}")
    return "; ".join(found)


@row("a web server that knows no ranges, or answers them oddly", "r206none: 200 206; r416: 200 206; multipart: 200 206")
def ranges(site: Site) -> str:
    service, web = odd(site)
    modes = ("r206none", "r416", "multipart")
    return "; ".join(f"{mode}: {read(service, by_post(service, web.url(mode))[1])}" for mode in modes)


@row("a row whose URL has a blank that nobody escaped", "200 206")
def blank(site: Site) -> str:
    service, web = odd(site)
    image = by_post(service, web.url("good"))[1]
    file = service.sections["database"]["connection"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection, connection:
        values = (f"{web.origin}/blank/an image.raw", json.dumps({"store": "web"}), image)
        connection.execute("UPDATE image_locations SET value = ?, meta_data = ? WHERE image_id = ?", values)
    return read(service, image)

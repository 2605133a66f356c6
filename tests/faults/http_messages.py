"""Requests whose headers or bodies mean something else than they seem to, and answers that a client never sees."""

import json
import threading
import urllib.error
import urllib.request

from tests.api import raw
from tests.faults.rows import Site, row
from tests.servers.service import Service

_OCTETS = {"Content-Type": "application/octet-stream"}


def new(service: Service, disk_format: str = "raw") -> str:
    body = {"name": "r", "disk_format": disk_format, "container_format": "bare"}
    image: str = service.request("POST", "/v2/images", json=body).json()["id"]
    return image


def status_of(service: Service, image: str) -> str:
    found: str = service.request("GET", f"/v2/images/{image}").json()["status"]
    return found


@row("a part is taken for the whole", "400 queued")
def part(site: Site) -> str:
    service = site.usual()
    image = new(service)
    headers = _OCTETS | {"Content-Range": "bytes 5-7/10"}
    status = service.request("PUT", f"/v2/images/{image}/file", body=b"abc", headers=headers).status
    return f"{status} {status_of(service, image)}"


@row("a transfer coding that is not undone", "501 501, both queued")
def coding(site: Site) -> str:
    service = site.usual()
    statuses, states = [], set()
    for name in ("gzip", "x-foo"):
        image = new(service)
        head = raw.head(
            "PUT", f"/v2/images/{image}/file", *(f"{k}: {v}" for k, v in _OCTETS.items()),
            f"Transfer-Encoding: {name}, chunked", "Connection: close",
        )  # fmt: skip
        statuses.append(raw.say(service.port, head + b"3\r\nabc\r\n0\r\n\r\n", seconds=10).status)
        states.add(status_of(service, image))
    return f"{statuses[0]} {statuses[1]}, both {' '.join(states)}"


@row("JSON in a coding that is not undone", "415")
def gzipped(site: Site) -> str:
    service = site.usual()
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    return str(service.request("POST", "/v2/images", body=b"\x1f\x8b\x08", headers=headers).status)


@row("the reason of a refusal is lost to a client that writes first", "415 415 415")
def reason(site: Site) -> str:
    service = site.service()
    found = []
    for _ in range(3):
        request = urllib.request.Request(
            f"{service.url}/v2/images/{new(service, 'qcow2')}/file", data=bytes(64 << 20), method="PUT", headers=_OCTETS
        )
        try:
            urllib.request.urlopen(request)
        except urllib.error.HTTPError as error:
            found.append(str(error.code))
            error.close()
        except OSError as error:
            found.append(type(error).__name__)
    return " ".join(found)


@row("ranges in other units, other spelling, with HEAD", "200 206 200")
def ranges(site: Site) -> str:
    service = site.usual()
    image = new(service)
    service.request("PUT", f"/v2/images/{image}/file", body=bytes(100), headers=_OCTETS)
    path = f"/v2/images/{image}/file"
    asked = (("GET", "items=0-9"), ("GET", "Bytes=0-9"), ("HEAD", "bytes=0-9"))
    return " ".join(str(service.request(method, path, headers={"Range": text}).status) for method, text in asked)


@row("the old way of asking for a range goes beyond the data", "416")
def old_range(site: Site) -> str:
    service = site.usual()
    image = new(service)
    service.request("PUT", f"/v2/images/{image}/file", body=bytes(1000), headers=_OCTETS)
    headers = {"Content-Range": "bytes 990-1005/1000"}
    return str(service.request("GET", f"/v2/images/{image}/file", headers=headers).status)


@row("a body of 120 properties of 1000 characters", "201")
def body(site: Site) -> str:
    service = site.usual()
    return str(
        service.request(
            "POST", "/v2/images", json={"name": "b", **{f"k{number}": "x" * 1000 for number in range(120)}}
        ).status
    )


@row("If-Match names other data", "412 412 queued")
def if_match(site: Site) -> str:
    service = site.usual()
    image, other = new(service), new(service)
    service.request("PUT", f"/v2/images/{image}/file", body=b"abc", headers=_OCTETS)
    got = service.request("GET", f"/v2/images/{image}/file", headers={"If-Match": '"other"'}).status
    put = service.request(
        "PUT", f"/v2/images/{other}/file", body=b"x", headers=_OCTETS | {"If-Match": '"other"'}
    ).status
    return f"{got} {put} {status_of(service, other)}"


@row("a client of HTTP/1.0 expects to be told to go on", "204, without a 100")
def expect(site: Site) -> str:
    service = site.usual()
    head = raw.head(
        "PUT", f"/v2/images/{new(service)}/file", "Content-Type: application/octet-stream", "Content-Length: 3",
        "Expect: 100-continue",
    ).replace(b"HTTP/1.1", b"HTTP/1.0")  # fmt: skip
    answer = raw.say(service.port, head + b"abc", seconds=10)
    return f"{answer.status}, {'with' if b' 100 ' in answer.received[:30] else 'without'} a 100"


@row("methods that nobody speaks here", "501 501 501")
def methods(site: Site) -> str:
    service = site.usual()
    return " ".join(
        str(raw.say(service.port, raw.head(method, "/v2/images", "Connection: close"), seconds=10).status)
        for method in ("CONNECT", "PROPFIND", "TRACE")
    )


@row("a browser asks whether it may send a body", "content-type is allowed")
def browser(site: Site) -> str:
    service = site.service({"cors": {"allowed_origin": "http://horizon.example"}})
    headers = {
        "Origin": "http://horizon.example",
        "Access-Control-Request-Method": "PUT",
        "Access-Control-Request-Headers": "content-type,x-auth-token",
    }
    answer = service.request("OPTIONS", f"/v2/images/{new(service)}/file", headers=headers)
    allowed = answer.headers.get("access-control-allow-headers", "").lower()
    return f"content-type is {'' if 'content-type' in allowed else 'not '}allowed"


@row("a balancer asks for health by OPTIONS", "503 503")
def health(site: Site) -> str:
    off = site.directory() / "off"
    service = site.service({"healthcheck": {"disable_by_file_path": off}})
    off.touch()
    return " ".join(str(service.request(method, "/healthcheck").status) for method in ("GET", "OPTIONS"))


@row("an error without Accept", "application/json with the reason")
def accept(site: Site) -> str:
    service = site.usual()
    answer = service.request("GET", "/v2/images/nothing", headers={"Accept": "*/*"})
    kind = answer.headers["content-type"].partition(";")[0]
    said = "with" if "nothing" in str(json.loads(answer.body)) else "without"
    return f"{kind} {said} the reason"


@row("a proxy tells how it was reached", "https://i.example/v2/")
def proxy(site: Site) -> str:
    service = site.service({"oslo_middleware": {"enable_proxy_headers_parsing": True}})
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "i.example"}
    found: str = service.request("GET", "/versions", headers=headers).json()["versions"][0]["links"][0]["href"]
    return found


@row("numbers are switched on", "200")
def numbers(site: Site) -> str:
    return str(site.service({"xloud": {"metrics": True}}).request("GET", "/metrics").status)


@row("an empty header about import methods", "left out")
def empty(site: Site) -> str:
    service = site.usual()
    answer = service.request("POST", "/v2/images", json={"name": "x"})
    return "left out" if answer.headers.get("openstack-image-import-methods") != "" else "sent"


@row("many refused bodies at once do not keep others waiting", "204 beside them")
def crowd(site: Site) -> str:
    service = site.service()
    image = new(service)
    refused = new(service, "qcow2")
    ended = threading.Event()

    def push() -> None:
        while not ended.is_set():
            raw.talk(
                service.port,
                raw.endless(raw.head("PUT", f"/v2/images/{refused}/file", "Content-Type: application/octet-stream",
                                     "Transfer-Encoding: chunked")),
                seconds=2,
            )  # fmt: skip

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    status = service.request("PUT", f"/v2/images/{image}/file", body=bytes(1 << 20), headers=_OCTETS).status
    ended.set()
    for thread in threads:
        thread.join()
    return f"{status} beside them"

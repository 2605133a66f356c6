"""What members, services and web servers could do by registering data where they lie."""

import hashlib
import http.server
import socketserver
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3

from tests.api.cloud import Cloud
from tests.faults.rows import Site, row
from tests.servers.place import HOST
from tests.servers.service import Service

_OCTETS = {"Content-Type": "application/octet-stream"}
_PATCH = {"Content-Type": "application/openstack-images-v2.1-json-patch"}
_WEB = {
    "DEFAULT": {"enabled_backends": "files:file,web:http"},
    "web": {"https_insecure": False},
    # the web servers of these rows are on this node
    "xloud": {"auth": "none", "location_networks": "127.0.0.0/8"},
}


class _Web:
    """A web server of one answer: `handler(request)` for GET and HEAD. `open`: connections that are there now."""

    def __init__(self, site: Site, handler: Callable[[http.server.BaseHTTPRequestHandler], None]) -> None:
        outer = self
        self.open = 0
        self.most = 0
        lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with lock:
                    outer.open += 1
                    outer.most = max(outer.most, outer.open)
                try:
                    handler(self)
                except OSError:
                    self.close_connection = True
                finally:
                    with lock:
                        outer.open -= 1

            do_HEAD = do_GET  # noqa: N815 - the name that the library asks for

            def log_message(self, *_: Any) -> None: ...

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        site.closing(self)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _new(service: Service, disk_format: str = "raw") -> str:
    fields = {"name": "r", "disk_format": disk_format, "container_format": "bare"}
    image_id: str = service.request("POST", "/v2/images", json=fields).json()["id"]
    return image_id


def _register(service: Service, image_id: str, url: str, **more: Any) -> int:
    body = {"url": url, **more}
    return service.request("POST", f"/v2/images/{image_id}/locations", json=body).status


def _show(service: Service, image_id: str) -> Any:
    return service.request("GET", f"/v2/images/{image_id}").json()


def _until(found: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found():
            return True
        time.sleep(0.2)
    return False


@row("a member registers the object of another project", "403 403 403, queued; the file is still there")
def anothers_object(site: Site) -> str:
    rgw = site.server("rgw")
    bucket = f"faults-{uuid.uuid4().hex[:8]}"
    client = site.closing(
        boto3.client("s3", endpoint_url=rgw.url, aws_access_key_id=rgw.access, aws_secret_access_key=rgw.secret)
    )
    client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=bucket, Key="payroll.csv", Body=b"secret")
    obj = {
        "s3_store_host": rgw.url,
        "s3_store_access_key": rgw.access,
        "s3_store_secret_key": rgw.secret,
        "s3_store_bucket": bucket,
        "s3_store_bucket_url_format": "path",
        "weight": 90,
    }
    cloud = Cloud(site.directory(), options={"enabled_backends": "fast:file,slow:file,mem:memory,obj:s3"}, obj=obj)
    site.closing(_Killed(cloud.service))
    cloud.service.start()
    theirs = cloud.ann.new(b"alice's own", store="obj", visibility="private")
    mine = cloud.bob.new()
    place = f"s3://{rgw.url.partition('://')[2]}/{bucket}"
    statuses = []
    for key in (theirs, "payroll.csv"):
        value = {"url": f"{place}/{key}", "metadata": {}}
        statuses.append(cloud.bob.patch(mine, {"op": "add", "path": "/locations/-", "value": value}).status)
    answer = cloud.bob.ask("POST", f"/v2/images/{mine}/locations", json={"url": f"{place}/{theirs}"})
    status = cloud.bob.show(mine)["status"]
    cloud.bob.delete(mine)
    # what an administrator registers stays as well
    image = cloud.admin.new()
    cloud.admin.ask("POST", f"/v2/images/{image}/locations", json={"url": f"{place}/payroll.csv"})
    cloud.admin.delete(image)
    there = client.get_object(Bucket=bucket, Key="payroll.csv")["Body"].read() == b"secret"
    said = "the file is still there" if there else "the file is gone"
    return f"{statuses[0]} {statuses[1]} {answer.status}, {status}; {said}"


class _Killed:
    def __init__(self, service: Service) -> None:
        self.close = service.kill


@row("other bytes under an unchanged checksum", "409; GOOD")
def swapped(site: Site) -> str:
    cloud = Cloud(site.directory())  # `mem` is heavier than `fast`
    site.closing(_Killed(cloud.service))
    cloud.service.start()
    image = cloud.ann.new(b"GOOD", store="fast")
    cloud.admin.patch(image, {"op": "replace", "path": "/visibility", "value": "public"})
    evil = cloud.ann.new(b"EVIL", store="mem")
    value = {"url": f"memory://mem/{evil}", "metadata": {}}
    answer = cloud.admin.patch(image, {"op": "add", "path": "/locations/0", "value": value})
    return f"{answer.status}; {cloud.bob.download(image).body.decode()}"


@row("readers of registered data are without number and end", "at most 4 readers; none after the images are gone")
def readers(site: Site) -> str:
    ended = threading.Event()

    def drip(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000000000")
        request.end_headers()
        while request.command == "GET" and not ended.wait(0.5):
            request.wfile.write(bytes(70_000))

    web = _Web(site, drip)
    service = site.service(_WEB)
    images = [_new(service) for _ in range(30 if site.quick else 300)]
    for number, image in enumerate(images):
        assert _register(service, image, f"{web.url}/{number}") == 202
    _until(lambda: web.open > 0)
    time.sleep(2 if site.quick else 20)
    most = web.most - 1  # a HEAD, or the look of another one that begins
    for image in images:
        service.request("DELETE", f"/v2/images/{image}")
    gone = _until(lambda: web.open == 0, 30)
    found = service.run("stores", "pending")
    ended.set()
    readers = "at most 4 readers" if most <= 4 else f"{most} readers"
    return f"{readers}; {'none' if gone and found.startswith('Nothing') else web.open} after the images are gone"


@row("data larger than any image may be are registered", "413 413 413 queued")
def too_large(site: Site) -> str:
    def claim(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", request.path.strip("/"))
        request.end_headers()
        request.close_connection = True

    web = _Web(site, claim)
    service = site.service(_WEB)
    image = _new(service)
    found = [_register(service, image, f"{web.url}/{size}") for size in (2**60, 2**63 - 1, 2**40 + 1)]
    return " ".join(map(str, [*found, _show(service, image)["status"]]))


def _hello(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "5")
    request.end_headers()
    if request.command == "GET":
        request.wfile.write(b"hello")


@row("a wrong checksum beside a right digest", "202, then queued without a checksum")
def wrong_checksum(site: Site) -> str:
    web, service = _Web(site, _hello), site.service(_WEB)
    image = _new(service)
    digests = {
        "checksum": "0" * 32,
        "os_hash_algo": "sha512",
        "os_hash_value": hashlib.sha512(b"hello").hexdigest(),
    }
    status = _register(service, image, f"{web.url}/a", validation_data=digests)
    _until(lambda: _show(service, image)["status"] != "importing")
    found = _show(service, image)
    return f"{status}, then {found['status']} {'with' if found['checksum'] else 'without'} a checksum"


@row("the algorithm while registered data are read", "sha512 sha512; active")
def algorithm(site: Site) -> str:
    web, service = _Web(site, _hello), site.service(_WEB)
    image = _new(service)
    _register(service, image, f"{web.url}/a")
    at_once = _show(service, image)["os_hash_algo"]
    _until(lambda: _show(service, image)["os_hash_value"] is not None)
    found = _show(service, image)
    return f"{at_once} {found['os_hash_algo']}; {found['status']}"


@row("another digest algorithm than that of the image", "409")
def other_algorithm(site: Site) -> str:
    sections = {**_WEB, "DEFAULT": {**_WEB["DEFAULT"], "show_multiple_locations": True}}
    web, service = _Web(site, _hello), site.service(sections)
    image = _new(service)
    service.request("PUT", f"/v2/images/{image}/file", body=b"hello", headers=_OCTETS)
    digests = {"os_hash_algo": "sha256", "os_hash_value": hashlib.sha256(b"hello").hexdigest()}
    value = {"url": f"{web.url}/a", "metadata": {}, "validation_data": digests}
    operation = {"op": "add", "path": "/locations/-", "value": value}
    return str(service.request("PATCH", f"/v2/images/{image}", json=[operation], headers=_PATCH).status)


@row("metadata of a location with a single store", "{} {'zone': 'north'}")
def single_store(site: Site) -> str:
    web = _Web(site, _hello)
    service = site.service(
        {
            "DEFAULT": {"enabled_backends": None, "show_multiple_locations": True},
            "xloud": _WEB["xloud"],
            "glance_store": {"default_backend": None, "stores": "file,http", "default_store": "file"},
            "files": {"filesystem_store_datadir": None},
        },
        start=False,
    )
    service.configure({"glance_store": {"filesystem_store_datadir": service.images}})
    service.start()
    found = []
    for metadata in ({}, {"zone": "north"}):
        image = _new(service)
        value = {"url": f"{web.url}/a", "metadata": metadata}
        operation = {"op": "add", "path": "/locations/-", "value": value}
        answer = service.request("PATCH", f"/v2/images/{image}", json=[operation], headers=_PATCH)
        assert answer.status == 200, answer.body
        found.append(answer.json()["locations"][0]["metadata"])
    return " ".join(map(str, found))


@row("the database's clock is set forward during an upload", "204 active")
def clock(site: Site) -> str:
    service = site.service(
        {"xloud": {"auth": "none", "lease_time": 5, "reaper_interval": 1}, "DEFAULT": {"workers": 2}}
    )
    image = _new(service)
    file = service.sections["database"]["connection"].removeprefix("sqlite:///")

    def body() -> Iterator[bytes]:
        for number in range(8):
            if number == 2:  # to every process the leases look as old as if the clock were a day ahead
                with sqlite3.connect(file, timeout=30) as connection:
                    connection.execute("UPDATE xloud_claims SET lease_until = datetime(lease_until, '-1 day')")
                connection.close()
            yield bytes(100_000)
            time.sleep(1)

    answer = service.request("PUT", f"/v2/images/{image}/file", body=body(), headers=_OCTETS)
    return f"{answer.status} {_show(service, image)['status']}"


@row("a refused upload says what is left", "415, names the record")
def refused(site: Site) -> str:
    service = site.usual()
    image = _new(service, "iso")
    answer = service.request("PUT", f"/v2/images/{image}/file", body=b"QFI\xfb" + bytes(1000), headers=_OCTETS)
    named = f"DELETE /v2/images/{image}".encode() in answer.body
    return f"{answer.status}, {'names the record' if named else 'says nothing'}"

"""S3 servers that nobody tuned for: an image goes in and comes out, or one true sentence says why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from tests.faults.rows import Site, row
from tests.servers.odd import Odd
from tests.servers.s3 import LocalBucket, Pys3local, Rclone, S3Server, SwiftS3
from tests.servers.service import Service

MIB = 1 << 20
WORKS = "PUT 204, active, GET 200 same, range 206 same, DELETE 204, nothing pending"


def serving(site: Site, server: Any, **given: Any) -> Service:
    """A service whose only store is a bucket there."""
    options = {
        "host": server.url,
        "access_key": server.access,
        "secret_key": server.secret,
        "bucket": "images",
        "create_bucket_on_put": True,
        **given,
    }
    return site.service(
        {
            "DEFAULT": {"enabled_backends": "cold:s3"},
            "glance_store": {"default_backend": "cold"},
            "cold": {f"s3_store_{name}": value for name, value in options.items()},
        }
    )


def upload(service: Service, body: bytes) -> tuple[str, int, str]:
    """An image with this data: (its id, the status of the answer, what it says)."""
    new = {"name": "r", "disk_format": "raw", "container_format": "bare"}
    image = service.request("POST", "/v2/images", json=new).json()["id"]
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image}/file", body=body, headers=headers)
    return image, answer.status, answer.body.decode(errors="replace")


def there_and_back(service: Service, *sizes: int, pending: bool) -> str:
    """`WORKS` when images of these sizes do; else what came. `pending`: also ask what is pending afterwards."""
    for number, size in enumerate(sizes):
        body = (hashlib.sha256(b"%d" % number).digest() * (size // 32 + 1))[:size]
        image, status, said = upload(service, body)
        if status != 204:
            return f"{status} {said}"
        file = f"/v2/images/{image}/file"
        state = service.request("GET", f"/v2/images/{image}").json()["status"]
        whole = service.request("GET", file)
        part = service.request("GET", file, headers={"Range": f"bytes={size // 2}-{size - 2}"})
        gone = service.request("DELETE", f"/v2/images/{image}")
        got = (
            f"PUT {status}, {state}, GET {whole.status} {_same(whole.body, body)}, "
            f"range {part.status} {_same(part.body, body[size // 2 : size - 1])}, DELETE {gone.status}"
        )
        if f"{got}, nothing pending" != WORKS:
            return got
    found = service.run("stores", "pending").strip() if pending else "Nothing is pending."
    return WORKS if found == "Nothing is pending." else found


def _same(got: bytes, wanted: bytes) -> str:
    return "same" if got == wanted else "OTHER"


def real(name: str, kind: Callable[[], Any], *sizes: int) -> None:
    """A row: images of these sizes on a server of this kind."""

    @row(name, WORKS)
    def run(site: Site) -> str:
        server: S3Server = site.closing(kind())
        server.start()
        return there_and_back(serving(site, server), *sizes, pending=True)


def behind(name: str, mode: str, *sizes: int, want: str = WORKS) -> None:
    """A row: the same on Ceph's gateway behind an oddity."""

    @row(name, want)
    def run(site: Site) -> str:
        odd = site.closing(Odd(site.server("rgw")))
        service = serving(site, odd, bucket=f"odd-{mode}")
        odd.be(mode)
        return there_and_back(service, *sizes, pending=not site.quick)


real("a server that refuses If-Match with 501 (Swift's s3api)", SwiftS3, 1000, 12 * MIB)
real("a server that answers a range with 200 and Content-Range (rclone)", Rclone, 1000, 12 * MIB)
real("a server that knows no ranges (pys3local)", Pys3local, 1000)
real("a server without metadata and list of uploads (LocalBucket)", LocalBucket, 12 * MIB, 1000)
behind("conditions refused with 501", "cond501", 1000, 12 * MIB)
behind("conditions refused with 400", "cond400", 1000, 12 * MIB)
behind("no ranges", "norange", 1000, 12 * MIB)
behind("metadata dropped", "nometa", 12 * MIB)
behind("each request refused twice with SlowDown", "slow", 12 * MIB)
behind("each request refused once with 429", "slow429", 12 * MIB)
behind("one SlowDown for the begin of the upload, one for the listing", "slow2", 12 * MIB)
behind("weak ETags", "weak", 1000, 12 * MIB)
behind("no ETag in answers to PUT", "noetagput", 1000, 12 * MIB)
behind("a bucket that is elsewhere for now (307)", "redir307", 1000, 12 * MIB)
behind("PUT without Content-MD5 refused", "md5", 1000, 12 * MIB)


def refused(name: str, mode: str, said: str, size: int = 12 * MIB) -> None:
    """A row: 503, not to be sent again, with these words."""

    @row(name, f"503 {said}")
    def run(site: Site) -> str:
        odd = site.closing(Odd(site.server("rgw")))
        service = serving(site, odd, bucket=f"odd-{mode}")
        odd.be(mode)
        return found(service, said, size)


def found(service: Service, said: str, size: int) -> str:
    """The status of an upload, and `said` when that is in the service's words or its log."""
    _, status, answer = upload(service, bytes(size))
    text = answer + service.log
    return f"{status} {said}" if said in text else f"{status} {answer}"


refused("nginx in front with its limit of 1 MiB (413)", "http413", "s3_store_large_object_chunk_size")
refused("parts not implemented", "mpunsupported", "takes no uploads in parts")
refused("no ETags at all", "noetag", "gives no ETags to parts")
refused("301 with the name of the region", "r301", "s3_store_region_name = eu-west-3", 1000)


@row("the bucket's name in the endpoint as well", "503 s3_store_host has the bucket's name in it")
def endpoint(site: Site) -> str:
    gateway = site.server("rgw")
    given = {"host": f"{gateway.url}/slashb", "bucket": "slashb", "create_bucket_on_put": False}
    ready = serving(site, gateway, bucket="slashb")
    upload(ready, b"makes the bucket")
    return found(serving(site, gateway, **given), "s3_store_host has the bucket's name in it", 1000)


@row("a bucket name that is not allowed", "503 s3_store_bucket")
def bucket_name(site: Site) -> str:
    return found(serving(site, site.server("rgw"), bucket="My_Bucket"), "s3_store_bucket", 1000)


@row("https to a port that speaks http", "503 it does not speak TLS there")
def not_tls(site: Site) -> str:
    gateway = site.server("rgw")
    host = gateway.url.replace("http://", "https://")
    return found(serving(site, gateway, host=host), "it does not speak TLS there", 1000)


@row("a deep check goes the way of a large image, and says what is lacking", "ok 2 lacks, ok 0 lacks, NO")
def deep(site: Site) -> str:
    odd = site.closing(Odd(site.server("rgw")))
    service = serving(site, odd, bucket="odd-deep", large_object_chunk_size=5)
    answers = []
    for mode in ("cond501", "plain", "http413"):
        odd.be(mode)
        try:
            text = service.run("stores", "check", "--deep", "--json")
        except Exception as error:  # noqa: BLE001 - it ends with 1
            text = str(error)
        results = json.loads(text[text.index("[{") if "[{" in text else text.index("[") : text.rindex("]") + 1])
        ok = results[0]["ok"]
        answers.append(f"ok {len(results[0]['lacks'])} lacks" if ok else "NO")
    return ", ".join(answers)

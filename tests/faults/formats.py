"""What an image author may put into the bytes."""

import subprocess

from tests.faults.rows import Site, row
from tests.servers.place import program
from tests.servers.service import Service


def put(service: Service, data: bytes, disk_format: str = "raw", container_format: str = "bare") -> str:
    """The status of the answer to an upload, and what the image is then."""
    image = service.request(
        "POST", "/v2/images", json={"name": "f", "disk_format": disk_format, "container_format": container_format}
    ).json()
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image['id']}/file", body=data, headers=headers)
    return f"{answer.status} {service.request('GET', '/v2/images/' + image['id']).json()['status']}"


@row("an empty upload is taken whatever it claims to be", "204 0")
def empty(site: Site) -> str:
    service = site.service()
    image = service.request(
        "POST", "/v2/images", json={"name": "e", "disk_format": "raw", "container_format": "bare"}
    ).json()
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image['id']}/file", body=b"", headers=headers)
    return f"{answer.status} {service.request('GET', '/v2/images/' + image['id']).json()['size']}"


@row(
    "a VMDK whose header and descriptor are read differently by qemu", "415 queued, 415 queued, 415 queued, 415 queued"
)
def vmdk(site: Site) -> str:
    service = site.service()
    head = b"# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\n"
    tabs = head + (
        b'CREATETYPE="monolithicSparse"\ncreateType="monolithicFlat"\nNOACCESS 1 ZERO\nRW\t2\tFLAT\t"/etc/passwd"\t0=\n'
    )
    beside = head + b'CREATETYPE="monolithicSparse"\ncreateType="monolithicFlat"\nRW 2 FLAT "neighbour" 0\n'
    answers = []
    for text in (tabs, beside):
        made = site.directory() / "b.vmdk"
        subprocess.run(
            [
                program("qemu-img", "qemu-utils"),
                "create",
                "-q",
                "-f",
                "vmdk",
                "-o",
                "subformat=monolithicSparse",
                made,
                "10M",
            ],
            check=True,
        )
        data = bytearray(made.read_bytes())
        data[12:20] = bytes(8)
        data[512 : 512 + 10240] = text.ljust(10240, b"\0")
        answers += [put(service, bytes(data), disk_format=claim) for claim in ("vmdk", "raw")]
    return ", ".join(answers)

"""What an image author may put into the bytes."""

import re
import struct
import subprocess
from uuid import UUID

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
    service = site.usual()
    image = service.request(
        "POST", "/v2/images", json={"name": "e", "disk_format": "raw", "container_format": "bare"}
    ).json()
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image['id']}/file", body=b"", headers=headers)
    return f"{answer.status} {service.request('GET', '/v2/images/' + image['id']).json()['size']}"


def _made(site: Site, name: str, *options: str) -> bytes:
    """What `qemu-img create` makes of 10 MiB."""
    new = site.directory() / "disk"
    command = [program("qemu-img", "qemu-utils"), "create", "-q", "-f", name, *options, new, "10M"]
    subprocess.run(command, check=True)
    data = new.read_bytes()
    # of a VHDX, what matters is in front: clients that send on after a refusal may lose the answer
    return data[: (3 << 20) + (96 << 10)] if name == "vhdx" else data


@row("a VMDK that qemu reads differently", "415 queued, 415 queued, 415 queued, 415 queued")
def vmdk(site: Site) -> str:
    service = site.usual()
    head = b"# Disk DescriptorFile\nversion=1\nCID=123\nparentCID=ffffffff\n"
    tabs = head + (
        b'CREATETYPE="monolithicSparse"\ncreateType="monolithicFlat"\nNOACCESS 1 ZERO\nRW\t2\tFLAT\t"/etc/passwd"\t0=\n'
    )
    beside = head + b'CREATETYPE="monolithicSparse"\ncreateType="monolithicFlat"\nRW 2 FLAT "neighbour" 0\n'
    answers = []
    for text in (tabs, beside):
        data = bytearray(_made(site, "vmdk", "-o", "subformat=monolithicSparse"))
        data[12:20] = bytes(8)
        data[512 : 512 + 10240] = text.ljust(10240, b"\0")
        answers += [put(service, bytes(data), disk_format=claim) for claim in ("vmdk", "raw")]
    return ", ".join(answers)


@row("a short qcow2 with a backing file", "415 queued, 415 queued")
def short(site: Site) -> str:
    service = site.usual()
    name = b"/etc/passwd"
    head = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 128, len(name), 16, 1024, 0, 1, 0x30000, 0x10000, 1, 0, 0
    ) + struct.pack(">QQQII", 0, 0, 0, 4, 104)  # fmt: skip
    head += struct.pack(">II", 0xE2792ACA, 3) + b"raw\0\0\0\0\0" + struct.pack(">II", 0, 0) + name
    data = head.ljust(300, b"\0")
    return f"{put(service, data)}, {put(service, data, 'ami', 'ami')}"


@row("a VHDX with an odd length of its size", "415 queued, 415 queued")
def odd(site: Site) -> str:
    service = site.usual()
    data = bytearray(_made(site, "vhdx"))
    at = data.index(UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le) + 20
    data[at : at + 4] = b"\xff" * 4
    return f"{put(service, bytes(data), 'vhdx')}, {put(service, bytes(data))}"


@row("parents in VMDK, VHD, VHDX and VDI", re.compile("(415 queued(, )?){8}"))
def parents(site: Site) -> str:
    service = site.usual()
    vmdk_image = bytearray(_made(site, "vmdk"))
    text = bytes(vmdk_image[512 : 21 * 512]).rstrip(b"\0")
    text = text.replace(b"parentCID=ffffffff\n", b'parentCID=12345678\nparentFileNameHint="/etc/passwd"\n')
    vmdk_image[512 : 21 * 512] = text.ljust(20 * 512, b"\0")
    vhd = bytearray(_made(site, "vpc"))
    vhd[63] = vhd[-449] = 4
    vhd[512 + 576 : 512 + 580] = b"W2ku"
    vhdx = bytearray(_made(site, "vhdx"))
    vhdx[vhdx.index(struct.pack("<8sHH", b"metadata", 0, 5)) + 65536 + 4] |= 2
    vdi = bytearray(_made(site, "vdi"))
    vdi[0x4C] = 4
    images = {"vmdk": vmdk_image, "vhd": vhd, "vhdx": vhdx, "vdi": vdi}
    return ", ".join(put(service, bytes(data), claim) for name, data in images.items() for claim in (name, "raw"))


@row("dangerous content in a container", re.compile("(415 queued(, )?){10}"))
def contained(site: Site) -> str:
    service = site.usual()
    data = _made(site, "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw")
    pairs = [(disk, container) for disk in ("qcow2", "raw") for container in ("ova", "compressed", "docker", "ovf")]
    return ", ".join(put(service, data, *pair) for pair in [*pairs, ("aki", "aki"), ("ari", "ari")])


@row("a disk of 2^63 bytes", "415 queued, 415 queued")
def absurd(site: Site) -> str:
    service = site.usual()
    answers = []
    for name, at in (("qcow2", 24), ("vdi", 0x170)):
        data = bytearray(_made(site, name))
        data[at : at + 8] = b"\x80" + bytes(7) if name == "qcow2" else bytes(7) + b"\x80"
        answers.append(put(service, bytes(data), name))
    return ", ".join(answers)


@row("a hybrid ISO whose partition table is odd", "204 active, 204 active")
def hybrid(site: Site) -> str:
    service = site.usual()
    data = bytearray(70000)
    data[510:512] = b"\x55\xaa"
    data[0x8000:0x8006] = b"\x01CD001"
    return f"{put(service, bytes(data), 'iso')}, {put(service, bytes(data))}"


@row("an empty upload claimed qcow2", "204 active, 1 line, Warning")
def nothing(site: Site) -> str:
    service = site.usual()
    body = {"name": "e", "disk_format": "qcow2", "container_format": "bare"}
    image = service.request("POST", "/v2/images", json=body).json()["id"]
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image}/file", body=b"", headers=headers)
    status = service.request("GET", f"/v2/images/{image}").json()["status"]
    lines = sum("no data" in line and image in line for line in service.log.splitlines())
    said = "Warning" if "0 bytes" in answer.headers.get("warning", "") else "-"
    return f"{answer.status} {status}, {lines} line, {said}"


@row("a fixed VHD and a qcow2 with extended L2 entries", "204 active, 204 active")
def taken(site: Site) -> str:
    service = site.usual()
    fixed = _made(site, "vpc", "-o", "subformat=fixed")
    extended = _made(site, "qcow2", "-o", "extended_l2=on,cluster_size=128k")
    return f"{put(service, fixed, 'vhd')}, {put(service, extended, 'qcow2')}"


@row("LUKS of version 2 is unknown, not dangerous", "415 unknown")
def encrypted(site: Site) -> str:
    service = site.usual()
    body = {"name": "l", "disk_format": "raw", "container_format": "bare"}
    image = service.request("POST", "/v2/images", json=body).json()["id"]
    data = (b"LUKS\xba\xbe\0\2" + (16384).to_bytes(8, "big")).ljust(65536, b"\0")
    headers = {"Content-Type": "application/octet-stream"}
    answer = service.request("PUT", f"/v2/images/{image}/file", body=data, headers=headers)
    return f"{answer.status} {'dangerous' if b'dangerous' in answer.body else 'unknown'}"

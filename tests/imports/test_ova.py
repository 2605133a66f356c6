"""OVAs that are imported: the first disk is the image; what a hostile one tries, it tries in vain."""

import io
import tarfile
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.cloud import Cloud
from tests.imports.conftest import begin, ended, stage
from tests.imports.test_imports import DATA, SHA
from tests.streams.test_ova import VMWARE

DISK = "machine-disk1.vmdk"
FORMAT = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
# of no format that is known: what the image claims counts
OVF = VMWARE.replace(FORMAT, "urn:other").encode()
assert FORMAT in VMWARE


def ova(descriptor: bytes = OVF, disk: bytes = DATA, change: Callable[[tarfile.TarInfo], Any] | None = None) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in (("machine.ovf", descriptor), (DISK, disk)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None and name == DISK:
                change(info)
            tar.addfile(info, io.BytesIO(data))
    return target.getvalue()


def imported(cloud: Cloud, who: Any, data: bytes, **fields: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task and the image afterwards."""
    image = who.new(container_format="ova", **fields)
    assert stage(who, image, data).status == 204
    assert begin(who, image).status == 202
    return ended(who, image), who.show(image)


def test_the_first_disk_is_the_image(cloud: Cloud) -> None:
    done, shown = imported(cloud, cloud.ann, ova())
    assert done["status"] == "success", done
    assert (shown["container_format"], shown["disk_format"], shown["size"]) == ("bare", "raw", len(DATA))
    assert shown["os_hash_value"] == SHA
    assert not [name for name in shown if name.startswith("cim_")], "for administrators"


def test_administrators_get_the_properties_that_the_operator_names(cloud: Cloud) -> None:
    done, shown = imported(cloud, cloud.admin, ova())
    assert done["status"] == "success", done
    assert (shown["cim_pasd_InstructionSet"], shown["cim_pasd_Reservation"]) == ("DMTF:x86:64", "100")
    assert "cim_pasd_InstructionSetExtensionName" not in shown


def test_a_property_that_cannot_be_kept_is_left_out(cloud: Cloud) -> None:
    long = OVF.replace(b"DMTF:x86:64", b"x" * 60_000)
    done, shown = imported(cloud, cloud.admin, ova(long))
    assert done["status"] == "success", done
    assert "cim_pasd_InstructionSet" not in shown
    assert shown["cim_pasd_Reservation"] == "100"


def test_an_upload_stays_what_it_is(cloud: Cloud) -> None:
    data = ova()
    image = cloud.ann.new(data, container_format="ova", disk_format="vmdk")
    assert (cloud.ann.show(image)["container_format"], cloud.ann.download(image).body) == ("ova", data)


def link(info: tarfile.TarInfo) -> None:
    info.type, info.linkname, info.size = tarfile.SYMTYPE, "/etc/shadow", 0


def elsewhere(info: tarfile.TarInfo) -> None:
    info.name = "../" + DISK


DOCTYPE = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
QCOW2 = (
    bytes.fromhex("514649fb00000003" + "0000000000000068" + "00000010") + bytes(500) + b"/etc/shadow" + bytes(70_000)
)


@pytest.mark.parametrize(
    ("data", "fields", "said"),
    [
        (ova(change=link), {}, "is no file"),
        (ova(change=elsewhere), {}, "leads out of the OVA"),
        (ova(OVF + b" " * (1 << 20)), {}, "more than 1048576 bytes"),
        (ova(DOCTYPE + OVF.partition(b"?>")[2]), {}, "document type"),
        (ova(VMWARE.encode()), {}, "the OVF says that its disk is vmdk"),
        (ova(VMWARE.encode()), {"disk_format": "vmdk"}, "vmdk"),
        (ova(disk=QCOW2), {"disk_format": "qcow2"}, "backing file"),
        (ova(disk=QCOW2), {}, "qcow2"),
        (ova()[:-40_000], {}, "ends in the middle"),
        (DATA, {}, "no OVA"),
    ],
    ids=["link", "elsewhere", "giant", "entities", "other format", "no vmdk", "backing", "lies", "cut", "no tar"],
)
def test_what_is_refused(cloud: Cloud, data: bytes, fields: dict[str, str], said: str) -> None:
    done, shown = imported(cloud, cloud.ann, data, **fields)
    assert done["status"] == "failure"
    assert said in done["message"]
    assert (shown["status"], shown["container_format"]) == ("queued", "ova")
    assert not [name for name in cloud.files("fast") if shown["id"] in name]

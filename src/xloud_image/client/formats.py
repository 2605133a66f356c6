"""What a file's first bytes say of its format, for people who do not say it themselves. The service judges again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from xloud_image.errors import ConfigError

HEAD: Final = 1 << 20  # bytes from the beginning that tell
_SECTOR: Final = 512
# what the inspection calls so, and what the Image API calls it
_NAMES: Final = {"gpt": "raw", "luks": "raw"}
_PACKED: Final = (
    (b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"PK\3\4", "zip"),
)  # fmt: skip
_ENDINGS: Final = re.compile(r"\.(qcow2|vmdk|vhdx?|vdi|iso|raw)\Z", re.IGNORECASE)


def of_file(path: Path) -> str:
    """The disk format of a file. `ConfigError`, with what to do, for what is no disk image as it is."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
            size = file.seek(0, 2)
            file.seek(max(0, size - _SECTOR))
            end = file.read(_SECTOR)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    return of_bytes(head, end=end, name=path.name)


def of_bytes(head: bytes, *, end: bytes = b"", name: str = "the data") -> str:
    """The same, of the first `HEAD` bytes and the last sector (empty: unknown)."""
    from oslo_utils.imageutils import format_inspector

    for magic, packed in _PACKED:
        if head.startswith(magic):
            raise ConfigError(
                f"{name} is compressed ({packed}): unpack it first; or import it, where the service unpacks "
                "(image_decompression), and say --disk-format"
            )
    if head[257:262] == b"ustar":
        raise ConfigError(f"{name} is a tar archive: say --disk-format and --container-format (ova, for an appliance)")
    if b"DescriptorFile" in head[:_SECTOR] and not head.startswith(b"KDMV"):
        raise ConfigError(f"{name} is the description of a VMDK: give the file with the data beside it (…-flat.vmdk), "
                          "with --disk-format raw")  # fmt: skip
    found = set()
    for kind in (*format_inspector.ALL_FORMATS,):
        inspector = format_inspector.ALL_FORMATS[kind]()
        try:
            inspector.eat_chunk(head)
            inspector.finish()
            if inspector.NAME != "raw" and inspector.format_match:
                found.add(inspector.NAME)
        except Exception:  # noqa: BLE001, S112 - parsers of anybody's bytes may fail in any way: not this format
            continue
    if "iso" in found:  # a hybrid has a partition table as well
        return "iso"
    if len(found) > 1:
        raise ConfigError(f"{name} looks like several formats ({', '.join(sorted(found))}): say --disk-format")
    if not found and end.startswith(b"conectix"):
        return "vhd"
    return next((_NAMES.get(one, one) for one in found), "raw")


def of_name(name: str) -> str | None:
    """What the ending of a name says; None: nothing."""
    match = _ENDINGS.search(name)
    return match[1].lower() if match else None


__all__ = ["HEAD", "of_bytes", "of_file", "of_name"]

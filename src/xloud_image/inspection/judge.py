"""Content against claim, and what is dangerous whatever it claims: decided at the first bytes that tell.

Two look at it: oslo.utils' format inspector, and the walls of this package; both must be content. This file decides
what their findings mean for an upload.
Rules: Image API reference, section "Data"; CVE-2024-32498 (external data files), CVE-2022-47951 (VMDK extents).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Final

from oslo_utils.imageutils import format_inspector as formats

from xloud_image.errors import FormatRefused
from xloud_image.inspection import others, qcow2, vhd, vhdx, vmdk
from xloud_image.inspection.reading import HINT, SECTOR, Parser, Reader

# The inspector explains each violation at WARNING with parts of user data; our refusal carries the sentence.
logging.getLogger(formats.__name__).setLevel(logging.CRITICAL)

_KNOWN: Final = frozenset(formats.ALL_FORMATS)
# A hybrid ISO carries a partition table as well, so that it boots from a stick.
_HYBRID: Final = frozenset({"iso", "gpt"})
# How far qemu looks for a VMDK descriptor when it guesses a format is one sector; what it takes for one: comments and
# empty lines, then a version.
_DESCRIPTOR: Final = re.compile(rb"(?i:# *disk descriptorfile)|(?:#[^\n]*\n| *\r?\n)*version=[1-3]\r?\n")
# Violations that the walls judge better: qemu reads features that the library does not know, and version 2 has none.
_OURS: Final = {"qcow2": frozenset({"unknown_features", "data_file"})}

# Smaller pieces than this are gathered, so that a stream of single bytes costs no more than another.
_GATHERED: Final = 4096

# What a format begins with, and where; its name; its wall, which gets the first sector.
_WALLS: Final[tuple[tuple[int, tuple[bytes, ...], str, Callable[[bytes], Parser]], ...]] = (
    (0, (qcow2.MAGIC,), qcow2.NAME, qcow2.parse),
    (0, (vhd.MAGIC,), vhd.NAME, vhd.parse),
    (0, (vhdx.MAGIC,), vhdx.NAME, vhdx.parse),
    (others.VDI_MAGIC_AT, (others.VDI_MAGIC,), "vdi", others.parse_vdi),
    (0, (others.LUKS_MAGIC,), "luks", others.parse_luks),
    (0, (others.QED_MAGIC,), "qed", others.parse_qed),
    (0, others.COW_MAGICS, "cow", others.parse_cow),
    (0, (others.BOCHS_MAGIC,), "bochs", others.parse_bochs),
)


class Inspection:
    """The judgement of one stream. Feed every chunk to `eat`, then call `end`; both raise `FormatRefused`.

    disk_format, container_format: what the image claims. vmdk_types: allowed createType values, lower-case compared.
    match: whether content must be what is claimed, of images in no container (bare); dangerous content is refused
    either way. What lies inside of a container (a tar, a compressed stream) is not unpacked: the container itself must
    not be read as a dangerous disk. nonfatal: names of GPT safety checks whose failure is tolerated.

    A stream that is shorter than a sector is judged as one with zeros behind it. One without a byte is always taken.
    """

    def __init__(
        self,
        disk_format: str | None,
        container_format: str | None = "bare",
        *,
        vmdk_types: Sequence[str],
        match: bool,
        nonfatal: Sequence[str] = (),
    ) -> None:
        self._claimed = disk_format
        self._bare = container_format == "bare"
        self._match = match and self._bare
        self._vmdk_types = {name.lower() for name in vmdk_types}
        self._nonfatal = frozenset(nonfatal)
        self._undecided = [formats.ALL_FORMATS[name]() for name in formats.ALL_FORMATS if name != "raw"]
        self._found: list[formats.FileInspector] = []
        self._table: formats.FileInspector | None = None  # a partition table that may belong to an ISO
        self._walls: list[Reader] = []
        self._guards: list[
            Reader
        ] = []  # what whoever believes the claim would read; the data need not be of that format
        self._head = b""
        self._small = bytearray()  # came, and is not looked at yet

    @property
    def decided(self) -> bool:
        """No more bytes are needed to judge."""
        return not self._undecided and len(self._head) == SECTOR and all(reader.done for reader in self._readers())

    def eat(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        if self._small or len(chunk) < _GATHERED:
            self._small += chunk
            if len(self._small) < _GATHERED:
                return
            chunk = bytes(self._small)
            self._small.clear()
        self._look(chunk)

    def _look(self, chunk: bytes) -> None:
        if len(self._head) < SECTOR:
            self._begin(chunk)
        else:
            for reader in self._readers():
                reader.eat(chunk)
        self._ask(chunk)

    def end(self) -> None:
        """The stream has ended: what is still undecided is judged by what came."""
        if self._small:
            self._look(bytes(self._small))
            self._small.clear()
        if not self._head:
            self._undecided = []
            return
        if missing := SECTOR - len(self._head):
            self._look(bytes(missing))
        for reader in self._readers():
            reader.end()
        for inspector in self._undecided:
            inspector.finish()
            if inspector.complete:
                self._judge(inspector)
            else:
                self._refuse_if_claimed(inspector, "it ends before the header of that format is complete")
        self._undecided = []
        self._judge_table()
        self._compare(self._names())

    def virtual_size(self, received: int) -> int | None:
        """Bytes that a guest sees, from the header found; for raw data the number of bytes received. After `end`.

        None: unknown, as for what is in a container.
        """
        if not self._bare:
            return None
        if received == 0:
            return 0
        for wall in self._walls:
            if self._claimed == wall.name:
                return wall.virtual_size or None
        for inspector in self._found:
            if self._claimed == inspector.NAME == "iso":
                return int(inspector.virtual_size) or None
        return received if self._claimed in ("raw", "iso", "gpt") and self._names() <= _HYBRID else None

    def _begin(self, chunk: bytes) -> None:
        """The first sector tells which walls stand before these data."""
        missing = SECTOR - len(self._head)
        self._head += chunk[:missing]
        if len(self._head) < SECTOR:
            return
        head = self._head
        if _DESCRIPTOR.match(head):
            # A descriptor that is a file of its own has its data in other files, which it names (CVE-2024-32498).
            raise FormatRefused("the data is the text of a VMDK descriptor, which names files outside of it; refused")
        if head.startswith((vmdk.MAGIC, vmdk.PART)):
            self._walls.append(Reader(vmdk.NAME, vmdk.parse(head, self._vmdk_types)))
        for at, magics, name, parse in _WALLS:
            if head.startswith(magics, at):
                self._walls.append(Reader(name, parse(head)))
        self._compare(self._names(), early=True)
        self._begin_claimed()
        for reader in self._readers():
            reader.eat(head)
            reader.eat(chunk[missing:])

    def _begin_claimed(self) -> None:
        """Readers of some formats, when told that the data are of theirs, need no magic. They ask for nothing else
        either, so whatever the data look like besides does not count."""
        if self._claimed == vmdk.NAME and not self._head.startswith(vmdk.MAGIC):
            if self._bare:
                # It could only be a descriptor, behind a comment or in what another format leaves free.
                raise FormatRefused(
                    f"the data is not {vmdk.NAME}: its first bytes are not those of that format; {HINT}"
                )
            self._guards.append(Reader(vmdk.NAME, vmdk.parse_hidden()))
        elif self._claimed == vhd.NAME and not self._head.startswith(vhd.MAGIC):
            if self._match:
                self._walls.append(Reader(vhd.NAME, vhd.parse_fixed()))
            else:
                self._guards.append(Reader(vhd.NAME, vhd.parse_end()))

    def _readers(self) -> list[Reader]:
        return [*self._walls, *self._guards]

    def _names(self) -> set[str]:
        names = {inspector.NAME for inspector in self._found} | {wall.name for wall in self._walls}
        if self._claimed == vhd.NAME and vhd.NAME in names and not self._head.startswith(vhd.MAGIC):
            names.discard("gpt")  # the guest's own, at the beginning of a fixed disk
        return names

    def _ask(self, chunk: bytes) -> None:
        """What the library says."""
        for inspector in list(self._undecided):
            try:
                inspector.eat_chunk(chunk)
            except Exception as error:  # noqa: BLE001 - see below
                # Parsers of hostile data may fail in any way; a failure means «not this format».
                self._undecided.remove(inspector)
                self._refuse_if_claimed(inspector, str(error))
                continue
            if inspector.complete:
                self._undecided.remove(inspector)
                self._judge(inspector)
        if self._table is not None and not any(inspector.NAME == "iso" for inspector in self._undecided):
            self._judge_table()

    def _judge(self, inspector: formats.FileInspector) -> None:
        if not _matches(inspector):
            self._refuse_if_claimed(inspector, "its first bytes are not those of that format")
            return
        self._found.append(inspector)
        if inspector.NAME == "gpt":
            self._table = inspector
        else:
            self._check_safety(inspector)
        self._compare(self._names(), early=True)

    def _judge_table(self) -> None:
        """A partition table, as soon as it is clear whether it is that of an ISO, whose programs boot as they like."""
        table, self._table = self._table, None
        if table is None or any(inspector.NAME == "iso" for inspector in self._found):
            return
        if self._bare and self._claimed in ("gpt", "raw", "iso"):
            self._check_safety(table)

    def _check_safety(self, inspector: formats.FileInspector) -> None:
        try:
            inspector.safety_check()
        except formats.SafetyCheckFailed as error:
            failed = set(error.failures) - _OURS.get(inspector.NAME, frozenset())
            if not failed or (inspector.NAME == "gpt" and failed <= self._nonfatal):
                return
            reasons = "; ".join(f"{name}: {error.failures[name]}" for name in sorted(failed))
            raise FormatRefused(f"the data is {inspector.NAME} with dangerous content ({reasons}); refused") from None
        except formats.ImageFormatError as error:
            raise FormatRefused(f"the data looks like {inspector.NAME} but cannot be checked: {error}") from None

    def _refuse_if_claimed(self, inspector: formats.FileInspector, why: str) -> None:
        if self._claimed == inspector.NAME and self._claimed not in ("gpt", vhd.NAME) and self._match:
            raise FormatRefused(f"the data is not {self._claimed}: {why}; {HINT}")

    def _compare(self, names: set[str], *, early: bool = False) -> None:
        """Content against claim. `raw` may hold any harmless thing; a claim that no inspector knows takes raw data."""
        if len(names) > 1 and not names <= _HYBRID:
            raise FormatRefused(f"the data looks like several formats at once ({', '.join(sorted(names))}); refused")
        if not self._match or self._claimed == "raw":
            return
        if self._claimed == "iso":
            fits = names <= _HYBRID and (early or "iso" in names)
        elif self._claimed in _KNOWN:
            fits = names <= {self._claimed} and (early or bool(names) or self._claimed == "gpt")
        else:
            fits = names <= {"gpt"}
        if not fits:
            found = ", ".join(sorted(names)) or "raw"
            raise FormatRefused(f"the image claims {self._claimed} but the data is {found}; {HINT}")


def _matches(inspector: formats.FileInspector) -> bool:
    try:
        return bool(inspector.format_match)
    except Exception:  # noqa: BLE001 - the parser of hostile data may fail in any way
        return False

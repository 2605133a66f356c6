"""Content against claim, and what is dangerous whatever it claims: decided at the first bytes that tell.

Two look at it: oslo.utils' format inspector, and the walls of this package; both must be content. This file decides
what their findings mean for an upload.
Rules: Image API reference, section "Data"; CVE-2024-32498 (external data files), CVE-2022-47951 (VMDK extents).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Final

from oslo_utils.imageutils import format_inspector as formats

from xloud_image.errors import FormatRefused
from xloud_image.inspection import vmdk
from xloud_image.inspection.reading import Reader

# The inspector explains each violation at WARNING with parts of user data; our refusal carries the sentence.
logging.getLogger(formats.__name__).setLevel(logging.CRITICAL)

_KNOWN: Final = frozenset(formats.ALL_FORMATS)
# A hybrid ISO carries a partition table as well, so that it boots from a stick.
_HYBRID: Final = frozenset({"iso", "gpt"})
# How far qemu looks for a VMDK descriptor when it guesses a format, and what it takes for one: comments and empty
# lines, then a version. Such a file ends in zeros, for which the inspector does not take it for text.
_PROBED: Final = 512
_DESCRIPTOR: Final = re.compile(rb"(?i:# *disk descriptorfile)|(?:#[^\n]*\n| *\r?\n)*version=[1-3]\r?\n")
_HINT: Final = (
    "set disk_format to what the file is (`qemu-img info FILE` tells), or use "
    "`xloud-image stores check --deep` if you meant to try a store"
)


class Inspection:
    """The judgement of one stream. Feed every chunk to `eat`, then call `end`; both raise `FormatRefused`.

    disk_format: what the image claims. vmdk_types: allowed createType values, lower-case compared.
    match: whether content must be what is claimed; dangerous content is refused either way.
    nonfatal: names of GPT safety checks whose failure is tolerated.
    """

    def __init__(
        self, disk_format: str, *, vmdk_types: Sequence[str], match: bool, nonfatal: Sequence[str] = ()
    ) -> None:
        self._claimed = disk_format
        self._match = match
        self._vmdk_types = {name.lower() for name in vmdk_types}
        self._nonfatal = frozenset(nonfatal)
        self._undecided = [formats.ALL_FORMATS[name]() for name in formats.ALL_FORMATS if name != "raw"]
        self._found: list[formats.FileInspector] = []
        self._walls: list[Reader] = []
        self._head = b""

    @property
    def decided(self) -> bool:
        """No more bytes are needed to judge."""
        return not self._undecided and len(self._head) == _PROBED and all(wall.done for wall in self._walls)

    def eat(self, chunk: bytes) -> None:
        """The next bytes of the stream."""
        if len(self._head) < _PROBED:
            self._begin(chunk)
        else:
            for wall in self._walls:
                wall.eat(chunk)
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

    def end(self) -> None:
        """The stream has ended: what is still undecided is judged by what came."""
        if len(self._head) < _PROBED:
            self._begin(bytes(_PROBED - len(self._head)))
        for wall in self._walls:
            wall.end()
        for inspector in self._undecided:
            inspector.finish()
            if inspector.complete:
                self._judge(inspector)
            else:
                self._refuse_if_claimed(inspector, "it ends before the header of that format is complete")
        self._undecided = []
        names = {inspector.NAME for inspector in self._found}
        if len(names) > 1 and not names <= _HYBRID:
            raise FormatRefused(f"the data looks like several formats at once ({', '.join(sorted(names))}); refused")
        self._compare(names)

    def virtual_size(self, received: int) -> int | None:
        """Bytes that a guest sees, from the header found; for raw data the number of bytes received. After `end`."""
        for wall in self._walls:
            if self._claimed == wall.name:
                return wall.virtual_size
        for inspector in self._found:
            if self._claimed == inspector.NAME:
                return int(inspector.virtual_size) or None
        return received if self._claimed in ("raw", "iso", "gpt") and not self._alien() else None

    def _begin(self, chunk: bytes) -> None:
        """The first bytes tell which walls stand before these data."""
        missing = _PROBED - len(self._head)
        self._head += chunk[:missing]
        if len(self._head) < _PROBED:
            return
        self._refuse_descriptor()
        if self._head.startswith((vmdk.MAGIC, vmdk.PART)):
            self._walls.append(Reader(vmdk.NAME, vmdk.parse(self._head, self._vmdk_types)))
        for wall in self._walls:
            wall.eat(self._head)
            wall.eat(chunk[missing:])

    def _alien(self) -> bool:
        return any(inspector.NAME not in _HYBRID for inspector in self._found)

    def _judge(self, inspector: formats.FileInspector) -> None:
        if not _matches(inspector):
            self._refuse_if_claimed(inspector, "its first bytes are not those of that format")
            return
        self._found.append(inspector)
        self._check_safety(inspector)
        self._compare({inspector.NAME}, early=True)

    def _check_safety(self, inspector: formats.FileInspector) -> None:
        try:
            inspector.safety_check()
        except formats.SafetyCheckFailed as error:
            failed = set(error.failures)
            if inspector.NAME == "gpt" and failed <= self._nonfatal:
                return
            if inspector.NAME == "gpt" and self._claimed not in ("gpt", "raw", "iso"):
                return
            reasons = "; ".join(f"{name}: {why}" for name, why in sorted(error.failures.items()))
            raise FormatRefused(f"the data is {inspector.NAME} with dangerous content ({reasons}); refused") from None
        except formats.ImageFormatError as error:
            raise FormatRefused(f"the data looks like {inspector.NAME} but cannot be checked: {error}") from None
        if isinstance(inspector, formats.VMDKInspector) and inspector.vmdktype.lower() not in self._vmdk_types:
            raise FormatRefused(
                f"VMDK of type {inspector.vmdktype} is not allowed here; allowed: {', '.join(sorted(self._vmdk_types))}"
            )

    def _refuse_descriptor(self) -> None:
        """A descriptor that is a file of its own has its data in other files, which it names (CVE-2024-32498)."""
        if _DESCRIPTOR.match(self._head):
            raise FormatRefused("the data is the text of a VMDK descriptor, which names files outside of it; refused")

    def _refuse_if_claimed(self, inspector: formats.FileInspector, why: str) -> None:
        # What claims to be a VMDK and lacks its signature could only be a descriptor: refused in any case.
        if self._claimed == inspector.NAME and self._claimed != "gpt" and (self._match or self._claimed == "vmdk"):
            raise FormatRefused(f"the data is not {self._claimed}: {why}; {_HINT}")

    def _compare(self, names: set[str], *, early: bool = False) -> None:
        """Content against claim. `raw` may hold any harmless thing; a claim that no inspector knows takes raw data."""
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
            raise FormatRefused(f"the image claims {self._claimed} but the data is {found}; {_HINT}")


def _matches(inspector: formats.FileInspector) -> bool:
    try:
        return bool(inspector.format_match)
    except Exception:  # noqa: BLE001 - the parser of hostile data may fail in any way
        return False

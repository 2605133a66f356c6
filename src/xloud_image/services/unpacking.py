"""What an import takes the data of an image out of: compressed streams and OVAs, where plugins say so; and what the
image is then. The stages themselves: `streams`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import orjson
import structlog

from xloud_image.errors import FormatRefused
from xloud_image.model import Image
from xloud_image.services.runtime import Runtime
from xloud_image.streams.decoders import HEAD, recognised
from xloud_image.streams.decompress import Decompress
from xloud_image.streams.ova import Ova
from xloud_image.streams.stages import Limit, Stage

log = structlog.get_logger(__name__)

# names and texts of properties: without control characters, of the plane that three bytes of UTF-8 hold
_PLAIN: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff\U00010000-\U0010ffff]{0,255}")


class Unpacking:
    """The way of one image. properties: what administrators get of the OVF, once the data have come."""

    def __init__(self, runtime: Runtime, image: Image, *, trusted: bool) -> None:
        """`trusted`: properties of the OVF are wanted. Reads a small file of the operator's."""
        plugins = runtime.settings.imports.image_import_plugins
        self._runtime, self._claimed = runtime, image.disk_format
        self._decompresses = "image_decompression" in plugins
        opens = "ovf_process" in plugins and image.container_format == "ova"
        self._ova = Ova(_wanted(runtime) if trusted else (), runtime.digest_pool) if opens else None

    def becomes(self, image: Image) -> Image:
        """The image as it is when nothing is packed any more."""
        packed = self._decompresses and image.container_format == "compressed"
        opened = self._ova is not None and image.container_format == "ova"
        return image.replace(container_format="bare") if packed or opened else image

    def stages(self, size: int | None) -> list[Stage]:
        """In their order, for data of `size` bytes, None unknown; none: the data pass as they come, in that size."""
        stages: list[Stage] = [Decompress(self._runtime.digest_pool)] if self._decompresses else []
        stages += [self._ova, self._as_claimed] if self._ova is not None else []
        return [Limit(size, self._runtime.settings.limits.image_size_cap), *stages] if stages else []

    def is_packed(self, head: bytes) -> bool:
        """Whether data that begin so have to pass the stages. `head`: `HEAD` bytes, fewer of shorter data."""
        return self._ova is not None or (self._decompresses and recognised(head[:HEAD]) is not None)

    @property
    def properties(self) -> Mapping[str, str]:
        """Those that can be kept."""
        return storable(self._ova.properties if self._ova is not None else {})

    async def _as_claimed(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Behind the OVA: before the first byte of a disk that the OVF says to be another than the image claims."""
        async for chunk in source:
            said = self._ova.disk_format if self._ova is not None else None
            if said is not None and said != self._claimed:
                raise FormatRefused(f"the OVF says that its disk is {said}, and the image that it is {self._claimed}")
            yield chunk


def storable(found: Mapping[str, str]) -> Mapping[str, str]:
    """Those properties that every database holds; who named them may name anything."""
    kept = {name: text for name, text in found.items() if _PLAIN.fullmatch(name) and _PLAIN.fullmatch(text)}
    if len(kept) < len(found):
        log.warning("properties that came with the data of an image are left out", number=len(found) - len(kept))
    return kept


def _wanted(runtime: Runtime) -> tuple[str, ...]:
    """The properties that the operator's ovf-metadata.json names; none where that cannot be read."""
    file = runtime.settings.imports.ovf_metadata_file
    if file is None:
        return ()
    try:
        named = orjson.loads(Path(file).read_bytes())["cim_pasd"]
        return tuple(name for name in named if isinstance(name, str))
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning(
            "no properties are taken from OVFs: the file that names them is wrong", file=file, reason=str(error)
        )
        return ()

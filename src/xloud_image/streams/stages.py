"""Stages: functions from the chunks of a stream to its chunks, whose findings are read when the stream has ended.

A stage hands on what it got, uncopied, and asks for a chunk when it is asked for one: whoever takes the last stage's
chunks sets the pace. The first error, of the source or of a stage, ends the stream; then nothing was found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from xloud_image.errors import BadRequest, TooLarge
from xloud_image.inspection import Inspection

Stage = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]


def through(source: AsyncIterator[bytes], stages: Sequence[Stage]) -> AsyncIterator[bytes]:
    """The source behind all stages; the first one sees it first."""
    for stage in stages:
        source = stage(source)
    return source


class Limit:
    """No more than may come, and as much as was announced. Found: `size`, the bytes that passed.

    declared: announced bytes, None unknown. cap: most bytes allowed. `TooLarge` over the cap, `BadRequest` when more or
    fewer bytes come than announced.
    """

    def __init__(self, declared: int | None, cap: int) -> None:
        self._declared, self._cap = declared, cap
        self.size = 0

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            self.size += len(chunk)
            if self.size > self._cap:
                raise TooLarge(f"the data is larger than {self._cap} bytes, the most that an image may have here")
            if self._declared is not None and self.size > self._declared:
                raise BadRequest(f"more data came than the {self._declared} bytes announced")
            yield chunk
        if self._declared is not None and self.size != self._declared:
            raise BadRequest(f"{self.size} bytes came, {self._declared} were announced")


class Inspect:
    """The inspection sees the bytes before anybody behind this stage does; raises its `FormatRefused`.

    Found: `virtual_size`, the bytes that a guest will see, None unknown.
    """

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection
        self.virtual_size: int | None = None

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        inspection, size = self._inspection, 0
        async for chunk in source:
            size += len(chunk)
            if not inspection.decided:
                inspection.eat(chunk)
            yield chunk
        inspection.end()
        self.virtual_size = inspection.virtual_size(size)

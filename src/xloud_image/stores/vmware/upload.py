"""The body of an upload by HTTP that notices when nobody takes it. What the server answers is not known here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.kit.web import Outgoing, wind


class Upload(Outgoing):
    """The body of an upload, which also sees whether the server takes it. `begun`: the server may have heard of it;
    `answered`: it has said what became of it; `stalled`: it has stopped taking bytes."""

    def __init__(self, source: AsyncIterator[bytes], size: int | None, patience: float) -> None:
        super().__init__(source, size)
        self._patience = patience
        self._limit: asyncio.Timeout | None = None
        self.begun = self.answered = self.stalled = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in super().__aiter__():
            self.begun = True
            wind(self._limit, self._patience)
            yield chunk
            wind(self._limit, None)  # the source may take its time
        self.begun = True

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """A chunk that is not taken within `patience` seconds is `StoreUnavailable`: aiohttp watches answers only."""
        try:
            async with asyncio.timeout(None) as self._limit:
                yield
        except TimeoutError as error:
            if self._limit is None or not self._limit.expired():
                raise  # the source's own
            self.stalled = True
            raise StoreUnavailable(f"it takes no data: nothing in {self._patience:g} seconds") from error

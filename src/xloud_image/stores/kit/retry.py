"""Asking again what failed for the moment. How often, and what must not be asked twice, is the backend's business."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from xloud_image.errors import StoreUnavailable

T = TypeVar("T")


async def retry(
    call: Callable[[], Awaitable[T]],
    pauses: Iterable[float],
    *,
    again: Callable[[StoreUnavailable], bool] = lambda error: True,
) -> T:
    """`call` until it ends well, once more after each of `pauses` (seconds). Raises its last error; at once one that is
    not `StoreUnavailable`, is not temporary, or for which `again` says no."""
    for pause in pauses:
        try:
            return await call()
        except StoreUnavailable as error:
            if not error.temporary or not again(error):
                raise
        await asyncio.sleep(pause)
    return await call()

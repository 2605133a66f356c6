"""A file that somebody fills, in whatever process of the node, read as it grows. Never blocks."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Final

from xloud_image.cache import locks
from xloud_image.errors import BlobChanged

PATIENCE: Final = 15.0  # seconds without a byte after which nobody waits on
# seconds until a second look, for the first byte and for others, and between later ones: what comes meanwhile is sent
# at once, so that a hundred readers of a slow store cost little
_FIRST, _NEXT, _LOOK = 0.002, 0.02, 0.1


async def there(fd: int, at: int, size: int) -> int:
    """Wait for bytes behind `at`, of `size` in all, and tell how many there are.

    0: no more will come from there: whoever filled it died, gave up or stands still. `BlobChanged`: what came so far
    was wrong.
    """
    since, pause = time.monotonic(), _NEXT if at else _FIRST
    while True:
        has = os.fstat(fd).st_size
        if has > at:
            return min(has, size) - at
        if has < at:
            raise BlobChanged("the data that the store gave are not the image's: their digest differs")
        filled, found = locks.is_held(fd, locks.FILLING), os.fstat(fd)
        if found.st_size == at and (not filled or not found.st_nlink or time.monotonic() - since > PATIENCE):
            return 0
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LOOK)

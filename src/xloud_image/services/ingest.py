"""Bytes of one source on their way into stores, through stages. Knows no image and no claim: whoever calls has claimed
the keys, and removes what is there under them when it cannot use it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence

from xloud_image.stores.base import Blob, Caller, Store, finish
from xloud_image.streams.stages import Stage, through
from xloud_image.streams.tee import Tee


@dataclasses.dataclass(slots=True)
class Target:
    """A key of a store that the bytes go to, on behalf of `caller`. required: without it the others are not wanted
    either. error: afterwards, why the store did not take them."""

    store: Store
    key: str
    caller: Caller | None = None
    required: bool = True
    error: Exception | None = None


async def ingest(
    source: AsyncIterator[bytes], targets: Sequence[Target], stages: Sequence[Stage], *, size: int | None
) -> dict[str, Blob]:
    """All bytes of the source, behind the stages, in each target: the blobs by store id. Returns when they are durable.

    targets: one or more, each in a store of its own. size: bytes that leave the last stage, None unknown.
    Raises what the source or a stage raises, what a required target raises, and, when none of the targets takes the
    bytes, what the last of them raises. Then nothing is left of what was under way, but what a target had taken
    whole is still there. A target that is not required and fails has its `error`; the others go on.
    Memory: that of stages and stores; of several targets, that of `Tee` too: the slowest sets the pace, and one that
    hangs holds up the others for as long as its store lets it.
    """
    chunks = through(source, stages)
    if len(targets) == 1:
        return {targets[0].store.name: await _write(targets[0], chunks, size)}
    return await _write_all(targets, chunks, size)


async def _write(target: Target, chunks: AsyncIterator[bytes], size: int | None) -> Blob:
    try:
        return await target.store.write(target.key, chunks, size=size, caller=target.caller)
    except Exception as error:
        target.error = error
        raise


async def _write_all(targets: Sequence[Target], chunks: AsyncIterator[bytes], size: int | None) -> dict[str, Blob]:
    tee = Tee(chunks, len(targets))
    feeding = asyncio.ensure_future(tee.feed())
    writes = {
        asyncio.ensure_future(_write(target, branch, size)): (target, branch)
        for target, branch in zip(targets, tee.branches, strict=True)
    }
    blobs: dict[str, Blob] = {}
    failure: Exception | None = None
    try:
        pending = set(writes)
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                target, branch = writes[task]
                branch.drop()
                if target.error is None:
                    blobs[target.store.name] = task.result()
                elif target.required:
                    raise target.error
                failure = target.error or failure
        if failure is not None and not blobs:
            raise failure
        return blobs
    finally:
        # What is under way is stopped, and waited for: a store leaves nothing of a write that was cancelled.
        for each in (feeding, *writes):
            each.cancel()
        await finish(asyncio.gather(feeding, *writes, return_exceptions=True))

"""`python -m tests.stores.rbd_loop CONF CALLS SECONDS URL…`: one rbd store under many short calls at once, in a process
of its own, because what fails here ends the process (0: all went well, 3: nothing moves any more, negative: a signal).

Each of 16 tasks looks at images, opens them past their end, and opens and leaves them, until CALLS are done or SECONDS
are over. The last line printed is the number of calls.
"""

import asyncio
import faulthandler
import itertools
import os
import sys
import threading
import time
import traceback
from pathlib import Path

from xloud_image import deaths
from xloud_image.errors import BadRange, BlobNotFound
from xloud_image.stores.rbd.store import RbdStore

_TASKS = 16
_STILL = 120.0  # seconds without any call that ends: it hangs


async def work(store: RbdStore, urls: list[str], numbers: "itertools.count[int]", calls: int, end: float) -> None:
    for number in numbers:
        if number >= calls or time.monotonic() > end:
            return
        url = urls[number % len(urls)]
        match number // len(urls) % 4:
            case 0:
                assert (await store.stat(url)).size == 5
            case 1:
                async with store.open(url) as reader:
                    assert reader.size == 5
            case 2:
                try:
                    async with store.open(url.removesuffix("snap") + "none"):
                        raise AssertionError("a snapshot that is not there was opened")
                except BlobNotFound:
                    pass
            case _:
                try:
                    async with store.open(url, offset=5):
                        raise AssertionError("a range past the end was opened")
                except BadRange:
                    pass
        done[0] += 1


done = [0]


def watch() -> None:
    """End the process when nothing moves."""
    last, since = -1, time.monotonic()
    while True:
        time.sleep(1)
        if done[0] != last:
            last, since = done[0], time.monotonic()
        elif time.monotonic() - since > _STILL:
            print(f"hangs after {last} calls", flush=True)
            faulthandler.dump_traceback()
            os._exit(3)


async def main(conf: str, calls: int, seconds: float, urls: list[str]) -> None:
    options = {option.name: option.default for option in RbdStore.TYPE.options}
    store = RbdStore("fast", options | {"rbd_store_ceph_conf": str(Path(conf)), "rbd_store_user": "glance"})
    await store.start()
    numbers, end = itertools.count(), time.monotonic() + seconds
    await asyncio.gather(*(work(store, urls, numbers, calls, end) for _ in range(_TASKS)))
    await store.aclose()
    print(done[0])


if __name__ == "__main__":
    faulthandler.enable()
    threading.Thread(target=watch, daemon=True).start()
    try:
        asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:]))
    except BaseException:  # noqa: BLE001 - told with where every thread stands: is it slow, or does it hang?
        print(f"failed after {done[0]} calls", flush=True)
        faulthandler.dump_traceback()
        traceback.print_exc()
        deaths.leave(1)
    deaths.leave()

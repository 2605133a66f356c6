"""The conformance suite of the Store contract: each promise of `stores.base` as a test. No backend here.

It needs pytest, pytest-asyncio (asyncio_mode = auto) and hypothesis; nothing else of the package imports this module.

A driver, also one outside this package, proves itself so (and once more with `make` returning `wrap(store)`):

    class TestMine(StoreSuite):
        async def make(self):                  # a new store object, not yet started; called again for a second process
            return MineStore("mine", {...})
        async def peek(self, key):             # the finished bytes under `key`, read behind the store's back, or None
            ...
        async def put_behind(self, key, data):    # put a finished blob there behind the store's back; its URL
            ...
        async def leftovers(self):             # names of all unfinished things in the backend: parts, drafts, volumes
            ...
        async def leave_behind(self, key):     # what a process killed in the middle of a write leaves; True if anything
            ...

`self.tmp` is a fresh directory of the test, `self.store` the started store. A store that takes no data derives from
`ReadOnlySuite` and needs `make` and `put_behind` only. Reading is tested against what was put there behind the store's
back, writing against what is seen there, so a fault in one cannot hide a fault in the other. Further hooks have
defaults: `hold`, `hang`, `handles`, `SECRETS`, `COPIES`, `MAY_NOT_COPY`, and for a backend where one write takes
seconds `SLOW = True` (fewer cases of each promise, several at once) and `TIMEOUT` (seconds for one test). A promise
that cannot apply to a backend is named in `NOT_APPLICABLE` with the reason; nothing is ever skipped.
"""

import pytest

# before they are imported, so that a failure shows the values
pytest.register_assert_rewrite(f"{__name__}.reading", f"{__name__}.writing")

from xloud_image.stores.suite.reading import (  # noqa: E402
    MIB,
    SIZE,
    ReadOnlySuite,
    Suite,
    collect,
    feed,
    noise,
    patches,
)
from xloud_image.stores.suite.writing import StoreSuite  # noqa: E402

__all__ = ["MIB", "SIZE", "ReadOnlySuite", "StoreSuite", "Suite", "collect", "feed", "noise", "patches"]

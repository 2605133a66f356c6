"""The directory of the cache and the threads that work in it, of one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

import structlog

from xloud_image.cache.directory import Directory
from xloud_image.cache.draft import Found, Key
from xloud_image.errors import ImageServiceError, StoreUnavailable, Unavailable
from xloud_image.stores.kit.threads import Threads

log = structlog.get_logger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

_QUIET: Final = 60.0  # seconds between two warnings that the directory cannot be used


class Cache:
    """`patience`: seconds that moving a piece of data may take. `have_files`: stores that are known to give files."""

    def __init__(self, directory: Directory, *, patience: float) -> None:
        self.directory = directory
        self.looking = Threads("image cache", 16, limit=5.0)  # before a read; one that waits longer goes past it
        self.moving = Threads("image cache data", 16, limit=patience)
        self.have_files: set[str] = set()
        self._warned = -_QUIET

    async def act(self, work: Callable[Concatenate[Directory, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(directory, …)` in a thread. `Unavailable` when the directory cannot be used."""
        try:
            return await self.moving.run(lambda: work(self.directory, *args, **kwargs))
        except OSError as error:
            raise Unavailable(f"The image cache of this node cannot be used now: {error.strerror}.") from error
        except StoreUnavailable as error:
            raise Unavailable("The disk of this node's image cache does not answer.") from error

    async def enter(self, key: Key, *, begin: bool, whole: bool) -> Found | None:
        """As `Directory.enter`, or for a part `find`; None, and a warning now and then, when there is no use of it."""

        def look() -> Found | None:
            if whole:
                return self.directory.enter(key, begin=begin)
            opened = self.directory.find(key)
            return None if opened is None else Found(opened)

        try:
            return await self.looking.run(look, lost=lambda found: None if found is None else found.close())
        except (OSError, ImageServiceError) as error:
            self.warn(error)
            return None

    def warn(self, error: OSError | ImageServiceError) -> None:
        """Once in a while: reads go on without the cache."""
        if time.monotonic() - self._warned >= _QUIET:
            self._warned = time.monotonic()
            reason = error.message if isinstance(error, ImageServiceError) else str(error)
            log.warning("the image cache cannot be used", reason=reason)

    async def aclose(self) -> None:
        await self.looking.aclose()
        await self.moving.aclose()

"""What is known of the server behind a bucket: what it lacks, found by asking it. One for each store and process.

Whatever is missing, images are stored and read all the same; each lack costs one promise, and its sentence says which.
"""

from __future__ import annotations

import enum
import logging
from typing import Final

_log = logging.getLogger(__name__)


class Lack(enum.Enum):
    """A thing that not every server has. The value: what is missing, and what that costs."""

    CREATE = (
        "it does not obey If-None-Match: two writers of one key at the same moment are not told apart (the service "
        "makes no such two)"
    )
    REPLACE = "it does not obey If-Match in PUT: small images go in parts as well, where it takes parts"
    METADATA = (
        "it drops x-amz-meta headers: unfinished uploads are told by their bytes, and 'stores contents' lists them"
    )
    LISTING = (
        "it cannot list unfinished uploads: parts that a killed upload left stay there; give the bucket a rule that "
        "removes old ones"
    )
    RANGES = (
        "it does not honour ranges: a part of an image is read from the beginning and cut, and so is what broke off"
    )
    PARTS = "it takes no uploads in parts: an image may have no more than one part"
    ABORTS = "it forgets no upload that was aborted: what is discarded while it is written may stay there"
    TAGS = "it gives no ETags: an image that is replaced while it is read is not noticed"


class Known:
    """`quotes`: whether the server wants If-Match with quotes; `guards`: whether it knows If-Match in GET; `digests`:
    whether it demands Content-MD5; `met`: whether an object of ours was read back."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._lacks: dict[Lack, None] = {}
        self.quotes = True
        self.guards = True
        self.digests = False
        self.met = False

    def lacks(self, what: Lack) -> bool:
        return what in self._lacks

    def learn(self, what: Lack) -> None:
        """It lacks this; said once in the log."""
        if what not in self._lacks:
            self._lacks[what] = None
            _log.warning("store %s: of its server: %s", self._name, what.value)

    @property
    def lacking(self) -> tuple[Lack, ...]:
        """In the order of the list above."""
        return tuple(lack for lack in Lack if lack in self._lacks)

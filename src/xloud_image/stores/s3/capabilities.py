"""What is known of the server behind a bucket: what it lacks, found by asking it. One for each store and process.

Whatever is missing, images are stored and read all the same; each lack costs one promise, and its sentence says which.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from typing import Final

from xloud_image.stores.s3.answers import Answer

APART: Final = 1.0  # seconds between two refusals that are not one and the same mishap
MINUTES: Final = 300.0  # seconds after which what was refused is asked for again

_log = logging.getLogger(__name__)


class Lack(enum.Enum):
    """A thing that not every server has. The value: what is missing, and what that costs."""

    CREATE = (
        "it does not obey If-None-Match: two writers of one key at the same moment are not told apart (the service "
        "makes no such two)"
    )
    REPLACE = "it does not obey If-Match in PUT: small images go in parts as well, where it takes parts"
    METADATA = "it drops x-amz-meta headers: unfinished uploads are told by their bytes, and 'stores ls' lists them"
    LISTING = (
        "it cannot list unfinished uploads, or the keys may not (s3:ListBucketMultipartUploads): parts that a killed "
        "upload left stay there; give the bucket a rule that removes old ones"
    )
    RANGES = (
        "it does not honour ranges: a part of an image is read from the beginning and cut, and so is what broke off"
    )
    PARTS = "it takes no uploads in parts: an image may have no more than one part"
    ABORTS = "it forgets no upload that was aborted: what is discarded while it is written may stay there"
    TAGS = "it gives no ETags: an image that is replaced while it is read is not noticed"


class Known:
    """`quotes`: whether the server wants If-Match with quotes; `guards`: whether it knows If-Match in GET; `digests`:
    whether it demands Content-MD5; `met`: whether an object of ours was read back.

    What was proved is lacking for good (`learn`). What was only refused may have been refused by something in between:
    it is lacking from the second refusal on, and asked for again after some minutes (`refused`, `has`)."""

    def __init__(self, name: str) -> None:
        self._name: Final = name
        self._lacks: dict[Lack, float] = {}  # until when it is not asked for (time.monotonic)
        self._doubts: dict[Lack, float] = {}  # when it was first refused
        self.quotes = True
        self.guards = True
        self.digests = False
        self.met = False

    def lacks(self, what: Lack) -> bool:
        """Whether to do without it now."""
        return time.monotonic() < self._lacks.get(what, 0.0)

    def learn(self, what: Lack, until: float = math.inf) -> None:
        """It lacks this; said once in the log."""
        if what not in self._lacks:
            _log.warning("store %s: of its server: %s", self._name, what.value)
        self._lacks[what] = max(until, self._lacks.get(what, 0.0))

    def refused(self, what: Lack, answer: Answer | None = None) -> None:
        """It seems to lack this. The same answer twice, `APART` seconds or more between them, teaches it for some
        minutes; a 400 or 405 that is a web page is not the server's own and does not. None: it passed over it."""
        now = time.monotonic()
        if answer is not None and answer.status in (400, 405) and not answer.code:
            said = answer.body[:512].lower()
            if b"<html" in said or b"<!doctype" in said:
                return
        first = self._doubts.setdefault(what, now)
        if now - first > MINUTES:
            first = self._doubts[what] = now
        if what in self._lacks or now - first >= APART:
            self.learn(what, now + MINUTES)

    def has(self, what: Lack) -> None:
        """It was seen to work; what was proved to be lacking stays so."""
        self._doubts.pop(what, None)
        if self._lacks.get(what) != math.inf:
            self._lacks.pop(what, None)

    def doubted(self, what: Lack) -> bool:
        """Whether it was refused once, and not yet again."""
        return what in self._doubts and what not in self._lacks

    @property
    def lacking(self) -> tuple[Lack, ...]:
        """What was not there when it was last asked for, in the order of the list above."""
        return tuple(lack for lack in Lack if lack in self._lacks)

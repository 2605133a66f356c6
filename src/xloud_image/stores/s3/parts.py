"""How an upload is cut into parts: arithmetic. No request here."""

from __future__ import annotations

import dataclasses
from typing import Final

MIB: Final = 1 << 20
PARTS: Final = 10_000  # of one upload, by S3's rules
UNKNOWN: Final = 1 << 40  # bytes that an upload of unknown size reaches with its 10,000 parts


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """`part`: bytes of the first parts; `in_flight`: bytes sent and not yet confirmed; `single`: up to so many bytes
    go in one PUT, -1: never.

    Known size: equal parts, large enough that 10,000 do. Unknown: each is a little larger than the one before it, so
    that 10,000 reach 1 TiB. From 10 MiB on, 100 GiB are reached with parts of 63 MiB, 1 TiB with 200 MiB.
    """

    part: int
    in_flight: int
    single: int

    def size_of(self, number: int, size: int | None) -> int:
        """Bytes of part `number` (from 1) of an upload of `size` bytes, in whole MiB; the last one may have fewer."""
        if size is not None:
            return max(self.part, _whole(-(-size // PARTS)))
        steps = PARTS * (PARTS - 1) // 2
        missing = max(0, UNKNOWN - PARTS * self.part)
        return _whole(self.part + missing * (number - 1) // steps)

    def window(self, part: int) -> int:
        """Bytes that may be in flight while parts have `part` bytes: at least two of them."""
        return max(self.in_flight, 2 * part)


def _whole(size: int) -> int:
    return -(-size // MIB) * MIB

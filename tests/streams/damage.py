"""Streams with damage by chance."""

import random
from typing import Final

RUNS: Final = 300


def damaged(data: bytes, seed: int) -> bytes:
    """Some bytes wrong, missing or doubled, in a few places."""
    chance, wrong = random.Random(seed), bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at, to = sorted(chance.randrange(len(wrong) + 1) for _ in range(2))
        to = min(to, at + chance.choice((1, 4, 60, 600)))
        part = bytes(wrong[at:to])
        wrong[at:to] = chance.choice(
            (b"", part * 2, chance.randbytes(len(part)), b"\xff" * len(part), bytes(len(part)))
        )
    return bytes(wrong)

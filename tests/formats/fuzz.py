"""`python -m tests.formats.fuzz [CASES] [--seed N]`: images by chance; those that are taken are opened by real qemu.

No image that the inspection takes may make qemu open anything but itself: neither by the format that it claims, nor by
the one that qemu guesses. `--library` leaves out the walls, to see that there is something to be found.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import hashlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from oslo_utils.imageutils import format_inspector as formats

from tests.formats.mutate import Case, case
from tests.formats.sandbox import Sandbox
from tests.servers.place import new_directory
from xloud_image.errors import FormatRefused
from xloud_image.inspection import Inspection

ALLOWED = ("streamOptimized", "monolithicSparse")
BATCH = 40
Judge = Callable[[Case], bool]


def walls(one: Case) -> bool:
    """Whether an upload of it would be taken."""
    inspection = Inspection(one.claim, one.container, vmdk_types=ALLOWED, match=one.seed % 4 != 0)
    step = (65536, 1 << 20, 777)[one.seed % 3] if len(one.data) < 1 << 20 else 65536
    try:
        for at in range(0, len(one.data), step):
            inspection.eat(one.data[at : at + step])
        inspection.end()
        inspection.virtual_size(len(one.data))
    except FormatRefused:
        return False
    return True


def library(one: Case) -> bool:
    """Whether the library alone finds nothing wrong with it."""
    for kind in formats.ALL_FORMATS.values():
        inspector = kind()
        try:
            inspector.eat_chunk(one.data)
            inspector.finish()
            if inspector.format_match:
                inspector.safety_check()
        except (formats.SafetyCheckFailed, formats.ImageFormatError) as error:
            if inspector.NAME != "gpt" and (isinstance(error, formats.SafetyCheckFailed) or inspector.format_match):
                return False
        except Exception:  # noqa: BLE001 - not that format
            continue
    return True


class Counts:
    """By family: cases, those taken; of the taken ones that differ, how many qemu could open."""

    def __init__(self) -> None:
        self.cases: collections.Counter[str] = collections.Counter()
        self.taken: collections.Counter[str] = collections.Counter()
        self.able = 0
        self.findings: dict[int, list[str]] = {}

    def __str__(self) -> str:
        rows = [f"{kind:14}{self.cases[kind]:8}{self.taken[kind]:8}" for kind in sorted(self.cases)]
        total = f"{'all':14}{self.cases.total():8}{self.taken.total():8}"
        return "\n".join([f"{'':14}{'cases':>8}{'taken':>8}", *rows, total, f"opened by qemu: {self.able}"])


def run(
    seeds: Iterator[int], judge: Judge = walls, *, kind: str | None = None, enough: int = 1 << 60, told: int = 0
) -> Counts:
    """Judge the cases of these seeds and have qemu open what is taken; ends early after `enough` findings.

    told: after how many cases the counts so far are printed; 0 never.
    """
    folder = new_directory("formats-fuzz")
    sandbox = Sandbox(folder)
    counts = Counts()
    waiting: list[concurrent.futures.Future[tuple[dict[int, list[str]], int]]] = []
    batch: list[Case] = []
    seen: set[tuple[str, bytes]] = set()

    def collect(most: int) -> None:
        while len(waiting) > most:
            found, able = waiting.pop(0).result()
            counts.findings |= found
            counts.able += able

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for seed in seeds:
            one = case(seed, str(folder), kind)
            counts.cases[one.kind] += 1
            if judge(one):
                counts.taken[one.kind] += 1
                what = (one.claim, hashlib.sha256(one.data).digest())
                if what not in seen:
                    seen.add(what)
                    batch.append(one)
            if len(batch) == BATCH:
                waiting.append(pool.submit(sandbox.findings, batch))
                batch = []
                collect(4)
                if len(counts.findings) >= enough:
                    break
            if told and counts.cases.total() % told == 0:
                print(f"\n{counts}\nled elsewhere: {len(counts.findings)}", flush=True)
        if batch:
            waiting.append(pool.submit(sandbox.findings, batch))
        collect(0)
    shutil.rmtree(folder)
    return counts


def main() -> int:
    """The exit code: 1 when an image that is taken led qemu elsewhere."""
    parser = argparse.ArgumentParser(prog="python -m tests.formats.fuzz", description=__doc__)
    parser.add_argument("cases", nargs="?", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 40), help="of the first case")
    parser.add_argument("--library", action="store_true", help="without the walls")
    given = parser.parse_args()
    print(f"{given.cases} cases from seed {given.seed}", flush=True)
    begun = time.monotonic()
    counts = run(iter(range(given.seed, given.seed + given.cases)), library if given.library else walls, told=10_000)
    print(f"{counts}\nseconds: {time.monotonic() - begun:.0f}\nled elsewhere: {len(counts.findings)}")
    for seed, names in sorted(counts.findings.items())[:20]:
        print(f"  {seed}: {', '.join(names)[:200]}")
    return 1 if counts.findings else 0


if __name__ == "__main__":
    sys.exit(main())

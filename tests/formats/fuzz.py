"""`python -m tests.formats.fuzz [CASES] [--seed N]`: images by chance; those that are taken are opened by real qemu.

No image that the inspection takes may make qemu open anything but itself: neither by any format that it may claim, nor
by the one that qemu guesses. Each is judged in every way in which it may be declared, every format in every container,
and opened by every format that was taken. `--library` leaves out the walls, to see that there is something to be found.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import dataclasses
import hashlib
import random
import shutil
import sys
import time
from collections.abc import Callable, Iterator

from oslo_utils.imageutils import format_inspector as formats

from tests.formats.mutate import DECLARED, Case, case
from tests.formats.sandbox import Sandbox
from tests.servers.place import new_directory
from xloud_image.errors import FormatRefused
from xloud_image.inspection import Inspection

ALLOWED = ("streamOptimized", "monolithicSparse")
BATCH = 40
# the case as it would be taken; None: refused
Judge = Callable[[Case], Case | None]


def walls(one: Case) -> Case | None:
    """Whether an upload of it would be taken, and as what: by the claim that was drawn, or by any other."""
    step = (65536, 1 << 20, 777)[one.seed % 3] if len(one.data) < 1 << 20 else 65536
    drawn = _taken(one.data, one.claim, one.container, one.seed % 4 != 0, step)
    taken: list[str] = []
    for claim, container, match in DECLARED:
        if claim not in taken and _taken(one.data, claim, container, match, 65536):
            taken.append(claim)
    if not drawn and not taken:
        return None
    return dataclasses.replace(one, claim=one.claim if drawn else taken[0], also=tuple(taken))


def _taken(data: bytes, claim: str, container: str | None, match: bool, step: int) -> bool:
    inspection = Inspection(claim, container, vmdk_types=ALLOWED, match=match)
    try:
        for at in range(0, len(data), step):
            if inspection.decided:
                break
            inspection.eat(data[at : at + step])
        inspection.end()
        inspection.virtual_size(len(data))
    except FormatRefused:
        return False
    return True


def library(one: Case) -> Case | None:
    """Whether the library alone finds nothing wrong with it."""
    return one if _harmless(one) else None


def _harmless(one: Case) -> bool:
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
    """By family: cases, those taken by any claim. By claim: cases taken by it. Of those that differ, how many qemu
    could open."""

    def __init__(self) -> None:
        self.cases: collections.Counter[str] = collections.Counter()
        self.taken: collections.Counter[str] = collections.Counter()
        self.claims: collections.Counter[str] = collections.Counter()
        self.able = 0
        self.findings: dict[int, list[str]] = {}

    def __str__(self) -> str:
        rows = [f"{kind:14}{self.cases[kind]:8}{self.taken[kind]:8}" for kind in sorted(self.cases)]
        total = f"{'all':14}{self.cases.total():8}{self.taken.total():8}"
        claims = "taken as " + ", ".join(f"{claim} {count}" for claim, count in sorted(self.claims.items()))
        return "\n".join([f"{'':14}{'cases':>8}{'taken':>8}", *rows, total, claims, f"opened by qemu: {self.able}"])


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
    seen: set[tuple[str, tuple[str, ...], bytes]] = set()

    def collect(most: int) -> None:
        while len(waiting) > most:
            found, able = waiting.pop(0).result()
            counts.findings |= found
            counts.able += able

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for seed in seeds:
            one = case(seed, str(folder), kind)
            counts.cases[one.kind] += 1
            taken = judge(one)
            if taken is not None:
                counts.taken[one.kind] += 1
                counts.claims.update({taken.claim, *taken.also})
                what = (taken.claim, taken.also, hashlib.sha256(one.data).digest())
                if what not in seen:
                    seen.add(what)
                    batch.append(taken)
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
    counts = run(iter(range(given.seed, given.seed + given.cases)), library if given.library else walls, told=1_000)
    print(f"{counts}\nseconds: {time.monotonic() - begun:.0f}\nled elsewhere: {len(counts.findings)}")
    for seed, names in sorted(counts.findings.items())[:20]:
        print(f"  {seed}: {', '.join(names)[:200]}")
    return 1 if counts.findings else 0


if __name__ == "__main__":
    sys.exit(main())

"""What real qemu opens when it is given an image: traced by strace, in a folder that holds a canary."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.formats.mutate import Case
from tests.servers.place import program
from xloud_image.conversion import disk

CANARY: Final = b"This canary must never be read. " * 2048
# how qemu calls what an image may claim to be
DRIVERS: Final = disk.DRIVERS | {"ploop": "parallels", "iso": "raw", "ami": "raw", "aki": "raw", "ari": "raw"}
_OPENED: Final = re.compile(r'(?:open|openat|openat2|creat)\((?:AT_FDCWD, |\d+, )?"((?:[^"\\]|\\.)*)"')
_CONNECTED: Final = re.compile(r"connect\(\d+, (.*)")
# where the C library looks now and then; no image names anything there
_SYSTEM: Final = (
    "/sys/devices/system/",
    "/proc/",
    "/dev/null",
    "/dev/shm",
    "/usr/lib/",
    "/lib/",
    "/etc/ld.so",
    "/etc/localtime",
)
_SMALL: Final = 8 << 20  # bytes of a converted image that are searched for the canary


class Sandbox:
    """A folder with a canary; images are opened in folders of their own beside it.

    What qemu opens for itself (libraries, settings) is learnt from a raw image at the beginning; after that every other
    name that it opens, or tries to, is a finding.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "canary").write_bytes(CANARY)
        self._strace = program("strace", "strace")
        self._qemu = program("qemu-img", "qemu-utils")
        self._io = program("qemu-io", "qemu-utils")
        self._own: set[str] = set()
        self._batches = 0
        for claim in ("raw", "qcow2"):
            self._own |= {name for name, _ in self._run([Case(0, "", claim, None, bytes(65536), ("vdi", "vmdk"))])[0]}

    def findings(self, cases: Sequence[Case]) -> tuple[dict[int, list[str]], int]:
        """What was opened besides the images, by seed (-1: by none in particular), and how many qemu could open."""
        opened, batch, able = self._run(cases)
        found: dict[int, list[str]] = {}
        for name, seed in opened:
            if name not in self._own and ("canary" in name or not name.startswith(_SYSTEM)):
                found.setdefault(seed, []).append(name)
        for case in cases:
            for out in batch.glob(f"{case.seed}/out*"):
                if out.stat().st_size <= _SMALL and CANARY[:64] in out.read_bytes():
                    found.setdefault(case.seed, []).append("the canary's bytes")
        subprocess.run(["rm", "-rf", batch], check=True)
        return found, able

    def _run(self, cases: Sequence[Case]) -> tuple[set[tuple[str, int]], Path, int]:
        """Names opened, each with the seed of the image that was given to the process that did."""
        self._batches += 1
        batch = self.folder / f"batch{self._batches}-{cases[0].seed}"
        # a file's blocks of 512 bytes, memory in KiB, cores, seconds of the processor: dash takes one limit at a time
        lines = ["set -e", *(f"ulimit {limit}" for limit in ("-f 1048576", "-v 4194304", "-c 0", "-t 20")), "set +e"]
        for case in cases:
            place = batch / str(case.seed)
            place.mkdir(parents=True)
            (place / "image").write_bytes(case.data)
            os.link(self.folder / "canary", place / "canary")
            driver = DRIVERS.get(case.claim, case.claim)
            forced = f" -f {driver}" if driver != "raw" else ""
            lines += [
                f"cd {place}",
                f"{self._qemu} info{forced} --backing-chain {place}/image && : >{place}/able",
                f"{self._qemu} convert -O raw {place}/image {place}/out1",
            ]
            if forced:
                lines.append(f"{self._qemu} convert{forced} -O raw {place}/image {place}/out2")
            others = {DRIVERS.get(claim, claim) for claim in case.also} - {driver, "raw"}
            if others:
                opens = (f"-c 'open -r -o driver={other} {place}/image' -c 'read 0 512' -c close" for other in others)
                lines.append(f"{self._io} {' '.join(opens)}")
        script, log = batch / "script", batch / "log"
        script.write_text("\n".join(lines) + "\n")
        calls = "trace=open,openat,openat2,creat,connect"
        command = [
            self._strace,
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-s",
            "4096",
            "-e",
            "signal=none",
            "-e",
            calls,
            "-o",
            log,
        ]
        subprocess.run([*command, "sh", script], capture_output=True, timeout=3600, check=False)
        return self._read(log, batch), batch, sum((batch / str(case.seed) / "able").exists() for case in cases)

    def _read(self, log: Path, batch: Path) -> set[tuple[str, int]]:
        mine = re.compile(rf"{re.escape(str(batch))}/(?:script|(\d+)/(?:image|out[12]|able))")
        opened: set[tuple[str, int]] = set()
        seeds: dict[str, int] = {}  # by process
        for line in log.read_text(errors="backslashreplace").splitlines():
            process = line.split(" ", 1)[0]
            for name in [*_OPENED.findall(line), *_CONNECTED.findall(line)]:
                known = mine.fullmatch(name)
                if known is None:
                    opened.add((name, seeds.get(process, -1)))
                elif known[1]:
                    seeds[process] = int(known[1])
        return {(re.sub(r"/proc/\d+/", "/proc/N/", name), seed) for name, seed in opened}

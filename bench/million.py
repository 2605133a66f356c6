"""What operators look at when there are a million images: is a change for another service possible, and the numbers."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import time
from typing import TYPE_CHECKING

from bench.paging import LARGE, filled
from bench.peers import COMMAND, Counting
from bench.report import LOWER
from bench.runs import Broken

if TYPE_CHECKING:
    from bench.peers import Server
    from bench.runs import Run


def takeover(run: Run) -> None:
    """`xloud-image takeover check` of a million images with three properties, two tags and a location each."""
    if not run.with_ours:
        return
    count = LARGE // 10 if run.quick else LARGE
    server = filled(run, count)
    began = time.perf_counter()
    process = subprocess.Popen(
        [COMMAND, "takeover", "check", "--config-file", server.directory / "glance-api.conf"],
        stdout=subprocess.DEVNULL,
    )
    # waited for here: only so is told what it took
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1: the bench's locations lead nowhere
        raise Broken(f"takeover check ended with {process.returncode}")
    took = time.perf_counter() - began
    run.report.add("takeover", f"check of {count:,}", "s", LOWER, ours=took, at_most=60, target="60 s")
    run.report.add("takeover", f"check of {count:,}, at most", "MiB", LOWER, ours=used.ru_maxrss / 1024)


def _text(server: Server, headers: dict[str, str]) -> str:
    connection = http.client.HTTPConnection(**server.address, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
    if answer.status != 200:
        raise Broken(f"GET /metrics: {answer.status}")
    return text


def metrics(run: Run) -> None:
    """A scrape of `/metrics` with a million images: what it costs while the last look at them serves, and beside a new
    one."""
    if not run.with_ours:
        return
    count = LARGE // 10 if run.quick else LARGE
    server = filled(run, count, Counting)
    headers = run.token("admin")
    began = time.perf_counter()
    _text(server, headers)
    run.report.add("metrics", f"the first scrape of {count:,}", "ms", LOWER, ours=1000 * (time.perf_counter() - began))
    worst, end = 0.0, time.monotonic() + (5 if run.quick else 70)  # two looks
    while time.monotonic() < end:
        began = time.perf_counter()
        if "xloud_image_images{" not in _text(server, headers):
            raise Broken("no images in the metrics")
        worst = max(worst, 1000 * (time.perf_counter() - began))
        time.sleep(0.5)
    run.report.add("metrics", f"later scrapes of {count:,}, the slowest", "ms", LOWER, ours=worst, at_most=100,
                   target="100 ms")  # fmt: skip

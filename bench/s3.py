"""The s3 store beside Glance's driver and obstore, on one gateway: 1 GiB in and out, a range at the end of 4 GiB."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import boto3

from bench.peers import Glance
from bench.report import HIGHER, LOWER
from bench.runs import GIB, MIB, Broken, Run
from tests.servers.ceph import Ceph
from tests.servers.place import ROOT
from tests.servers.rgw import Rgw

if TYPE_CHECKING:
    from collections.abc import Sequence

# name in the table, and what the client's process is told
OURS = ("ours", {"who": "ours"})
OURS_BARE = ("ours, bodies not signed", {"who": "ours", "signed": False})
BARE = ("obstore, bodies not signed", {"who": "obstore", "signed": False})
SIGNED = ("obstore, bodies signed as ours are", {"who": "obstore", "signed": True})
PEER = ("Glance's driver", {"who": "glance", "digests": True})
PLAIN = ("Glance's driver, its digests taken out", {"who": "glance", "digests": False})
WORKS = ("put, size known", "put, size unknown", "get")


def row(run: Run) -> None:
    """1 GiB to and from Ceph's gateway over http, and the first byte of a range at the end of 4 GiB."""
    with Server() as server:
        _Row(run, server).measure()


class Server:
    """A gateway with a bucket for the run."""

    def __enter__(self) -> Server:
        self._ceph = Ceph()
        self._ceph.start()
        self._rgw = Rgw(self._ceph)
        self._rgw.start()
        self.options = {
            "s3_store_host": self._rgw.url,
            "s3_store_access_key": self._rgw.access,
            "s3_store_secret_key": self._rgw.secret,
            "s3_store_bucket": "bench",
            "s3_store_bucket_url_format": "path",
        }
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self._rgw.url,
            aws_access_key_id=self._rgw.access,
            aws_secret_access_key=self._rgw.secret,
            region_name="us-east-1",
        )
        self.s3.create_bucket(Bucket="bench")
        return self

    def __exit__(self, *_: object) -> None:
        self.s3.close()
        self._rgw.close()
        self._ceph.close()

    def remove(self, key: str) -> None:
        self.s3.delete_object(Bucket="bench", Key=key)


class _Row:
    def __init__(self, run: Run, server: Server) -> None:
        self._run, self._server = run, server
        self._size = 128 * MIB if run.quick else GIB
        self._seen: dict[tuple[str, str], list[dict[str, float]]] = {}

    def measure(self) -> None:
        """Everything in turn on each; the middle of the turns counts."""
        for turn in range(self._run.repeats):
            for name, spec in (OURS, SIGNED, OURS_BARE, BARE, PEER, PLAIN):
                self._server.remove("data")
                self._timed(WORKS[0], name, spec, do="put", known=True)
            for name, spec in (OURS, PEER):  # obstore never knows the size: the same as before
                if name == "ours" or not turn:
                    self._server.remove("data")
                    self._timed(WORKS[1], name, spec, do="put", known=False)
            self._server.remove("data")
            self._timed(WORKS[0], *BARE, do="put", known=True)
            for name, spec in (OURS, BARE, PEER):
                self._timed(WORKS[2], name, spec, do="get")
        self._seen[WORKS[1], SIGNED[0]] = self._seen[WORKS[0], SIGNED[0]]
        for work in WORKS:
            self._told(work)
        self._range()

    def _size_of(self, work: str, name: str) -> int:
        """Glance copies all it has received with each new chunk when it is not told the size: a GiB takes hours."""
        return min(self._size, 128 * MIB) if (work, name) == (WORKS[1], PEER[0]) else self._size

    def _timed(self, work: str, name: str, spec: dict[str, Any], **more: Any) -> None:
        size = self._size_of(work, name)
        seen = self._client(spec | more | {"key": "data", "size": size})
        if seen["done"] != size:
            raise Broken(f"{name}: {work}: {seen['done']} bytes, not {size}")
        self._seen.setdefault((work, name), []).append(seen)

    def _client(self, spec: dict[str, Any]) -> dict[str, float]:
        python = sys.executable if spec["who"] == "ours" else str(Glance.python())
        done = subprocess.run(
            [python, "bench/s3_client.py"],
            input=json.dumps(spec | {"options": self._server.options}),
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        if done.returncode:
            raise Broken(f"{spec['who']} ended with {done.returncode}: {done.stderr[-2000:]}")
        seen: dict[str, float] = json.loads(done.stdout)
        return seen

    def _middle(self, work: str, name: str, what: str) -> float | None:
        some = self._seen.get((work, name), [])
        return statistics.median(seen[what] for seen in some) if some else None

    def _told(self, work: str) -> None:
        add, gib = self._run.report.add, self._size / GIB
        for name, aim in ((BARE[0], 0.8), (SIGNED[0], 0.8), (PEER[0], 1.0), (PLAIN[0], None)):
            # like with like; reading has no bodies to sign
            who = OURS_BARE[0] if name == BARE[0] and work == WORKS[0] else OURS[0]
            wall, ours = self._middle(work, name, "wall"), self._middle(work, who, "wall")
            if wall is None or ours is None:
                continue
            cpu, mine = self._middle(work, name, "cpu"), self._middle(work, who, "cpu")
            assert cpu is not None
            assert mine is not None
            size = self._size_of(work, name)
            told = f"{work}, {who}, peer: {name}" if who != "ours" else f"{work}, peer: {name}"
            told += f", with {size // MIB} MiB" if size != self._size else ""
            rates = {"peer": size / MIB / wall, "ours": self._size / MIB / ours}
            add("s3", told, "MiB/s", HIGHER, **rates, times=aim, target=f"≥ {aim:.0%} of it" if aim else "")
            glance = 1 / 0.6 if name in (PEER[0], PLAIN[0]) else None
            seconds = {"peer": cpu * GIB / size, "ours": mine / gib}
            add(
                "s3",
                told,
                "CPU-s/GiB of the client",
                LOWER,
                **seconds,
                times=glance,
                target="≤ 0.6 of it" if glance else "",
            )
        memory = {"peer": self._middle(work, PEER[0], "memory"), "ours": self._middle(work, "ours", "memory")}
        add("s3", f"{work}: memory of the client, peer: {PEER[0]}", "MiB", LOWER, **memory, at_most=150)

    def _range(self) -> None:
        size = (256 * MIB if self._run.quick else 4 * GIB) - 17
        part = 64 * MIB
        upload = self._server.s3.create_multipart_upload(Bucket="bench", Key="large")["UploadId"]
        parts: Sequence[dict[str, Any]] = [
            {"PartNumber": number, "ETag": self._part(upload, number, min(part, size - start))}
            for number, start in enumerate(range(0, size, part), 1)
        ]
        self._server.s3.complete_multipart_upload(
            Bucket="bench", Key="large", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        times: dict[int, list[float]] = {0: [], size - MIB: []}
        for _ in range(10):
            for offset, some in times.items():
                spec = {"who": "ours", "do": "first", "key": "large", "offset": offset}
                some.append(self._client(spec | {"length": MIB if offset else None})["wall"] * 1000)
        plain, ranged = (statistics.median(some) for some in times.values())
        work = "first byte of the last MiB of 4 GiB, peer: of a plain read"
        self._run.report.add("s3", work, "ms", LOWER, peer=plain, ours=ranged, times=0.1, target="≤ 10× a plain read")
        self._server.remove("large")

    def _part(self, upload: str, number: int, size: int) -> str:
        answer = self._server.s3.upload_part(
            Bucket="bench", Key="large", UploadId=upload, PartNumber=number, Body=bytes(size)
        )
        tag: str = answer["ETag"]
        return tag

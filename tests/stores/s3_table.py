"""The table of servers and promises in docs/stores.md: what `stores check --deep` finds on each real server.

`.venv-test/bin/python -m tests.stores.s3_table` starts them all and writes it; a test compares it row by row.
"""

import asyncio
import contextlib
import re
import sys
from typing import Any, Final

from tests.servers.ceph import Ceph
from tests.servers.place import ROOT
from tests.servers.rgw import Rgw
from tests.servers.s3 import LocalBucket, Moto, Pys3local, Rclone, SwiftS3
from xloud_image.services.store_check import Result, check_one
from xloud_image.stores.layers import wrap
from xloud_image.stores.s3.capabilities import Lack
from xloud_image.stores.s3.store import S3Store

COMMAND: Final = ".venv-test/bin/python -m tests.stores.s3_table"
DOCUMENT: Final = ROOT / "docs" / "stores.md"
_TABLE: Final = re.compile(r"(<!-- s3 servers -->\n)(.*?)(<!-- end -->)", re.DOTALL)
SERVERS: Final = (Moto, Rclone, LocalBucket, Pys3local, SwiftS3)
RGW: Final = "Ceph's gateway"
COLUMNS: Final = {
    Lack.CREATE: "`If-None-Match`",
    Lack.REPLACE: "`If-Match` in PUT",
    Lack.METADATA: "metadata",
    Lack.LISTING: "list of uploads",
    Lack.ABORTS: "aborted is gone",
    Lack.RANGES: "ranges",
    Lack.TAGS: "ETags",
    Lack.PARTS: "parts",
}
TITLES: Final = ("server", "small images", "large images", *COLUMNS.values())


def options(server: Any, bucket: str, **given: Any) -> dict[str, Any]:
    """Every option of a store on a server of these tests; parts are as small as may be."""
    found = {option.name: option.default for option in S3Store.TYPE.options}
    found |= {
        "s3_store_host": server.url,
        "s3_store_access_key": server.access,
        "s3_store_secret_key": server.secret,
        "s3_store_bucket": bucket,
        "s3_store_create_bucket_on_put": True,
        "s3_store_large_object_chunk_size": 5,
    }
    return found | {f"s3_store_{name}": value for name, value in given.items()}


async def examined(server: Any, bucket: str) -> tuple[Result, bool, S3Store]:
    """What a deep check says, and whether a small image comes there and back."""
    store = S3Store("cold", options(server, bucket))
    wrapped = wrap(store)
    try:
        blob = await wrapped.write("small", _small(), size=4)
        async with wrapped.open(blob.url, length=4) as reader:
            small = b"".join([chunk async for chunk in reader.chunks]) == b"data"
        await wrapped.delete(blob.url)
        return await check_one(wrapped, "cold", "s3", deep=True, timeout=100), small, store
    finally:
        await wrapped.aclose()


async def _small() -> Any:
    yield b"data"


def row(name: str, server: Any, bucket: str) -> str:
    """The line of a server."""
    result, small, store = asyncio.run(examined(server, bucket))
    known = store._client.known
    cells = ["yes" if small else "NO", "yes" if result.ok else "refused"]
    cells += ["no" if known.lacks(lack) else "yes" for lack in COLUMNS]
    if known.lacks(Lack.PARTS):  # then there is nothing to find, and nothing to abort
        cells[2 + list(COLUMNS).index(Lack.ABORTS)] = "–"
    return f"| {name} | {' | '.join(cells)} |\n"


def rows() -> dict[str, str]:
    """Those of the document, by the server's name."""
    found = _TABLE.search(DOCUMENT.read_text(encoding="utf-8"))
    lines = found[2].splitlines(keepends=True)[2:] if found else []
    return {line.split("|")[1].strip(): line for line in lines}


def write(lines: list[str]) -> None:
    head = f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}\n"
    text = DOCUMENT.read_text(encoding="utf-8")
    new = _TABLE.sub(lambda match: f"{match[1]}{head}{''.join(lines)}{match[3]}", text)
    DOCUMENT.write_text(new, encoding="utf-8")


def main() -> None:
    lines = []
    with contextlib.ExitStack() as stack:
        ceph = Ceph()
        stack.callback(ceph.close)
        ceph.start()
        for name, server in ((RGW, Rgw(ceph)), *((kind.NAME, kind()) for kind in SERVERS)):
            stack.callback(server.close)
            server.start()
            lines.append(row(name, server, "table"))
            sys.stdout.write(lines[-1])
    write(lines)


if __name__ == "__main__":
    main()

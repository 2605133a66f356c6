"""What the tools of each format write comes out as it was; what is damaged, cut, or not one image is refused."""

import asyncio
import bz2
import gzip
import io
import lzma
import os
import random
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers.place import program
from tests.streams.damage import RUNS, damaged
from xloud_image.errors import BadRequest, FormatRefused, ImageServiceError, TooLarge
from xloud_image.streams import decompress
from xloud_image.streams.decoders import PIECE, zstd
from xloud_image.streams.decompress import BATCH, Decompress
from xloud_image.streams.stages import Limit, through

MIB = 1 << 20


def image(size: int, seed: int = 1) -> bytes:
    """As a disk: zeros, noise, text."""
    chance, parts, length = random.Random(seed), [], 0
    while length < size:
        count = chance.randrange(1, 1 + size // 4)
        part = chance.choice((bytes(count), chance.randbytes(count), (b"%d files of a disk\n" * count)[:count]))
        parts.append(part)
        length += count
    return b"".join(parts)[:size]


DATA = image(2 * MIB + 7)
SMALL = image(700, 4)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


async def pieces(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def unpacked(pool: ThreadPoolExecutor, data: bytes, size: int = 70_000) -> tuple[bytes, Decompress]:
    stage = Decompress(pool)
    out = [piece async for piece in stage(pieces(data, size))]
    assert stage.format is None or max(map(len, out), default=0) <= PIECE
    assert (stage.read, stage.written) == (len(data), sum(map(len, out)))
    return b"".join(out), stage


async def refused(
    pool: ThreadPoolExecutor, data: bytes, words: str | None = None, size: int = 70_000
) -> ImageServiceError:
    with pytest.raises((BadRequest, FormatRefused), match=words) as caught:
        await unpacked(pool, data, size)
    return caught.value


# what the real tools write

TOOLS = {
    "gzip": ("gzip", "gzip", "gzip -c FILE"),
    "gzip without a name": ("gzip", "gzip", "gzip -9n < FILE"),
    "gzip, pigz": ("pigz", "pigz", "pigz -c -b 128 -p 4 FILE"),
    "gzip, pigz of independent blocks": ("pigz", "pigz", "pigz -ic -p 4 FILE"),
    "gzip, bgzip": ("bgzip", "tabix", "bgzip -c FILE"),
    "gzip, two files": ("gzip", "gzip", "(head -c 1000000 FILE | gzip; tail -c +1000001 FILE | gzip)"),
    "gzip, zeros behind": ("gzip", "gzip", "(gzip -c FILE; head -c 777 /dev/zero)"),
    "xz": ("xz", "xz-utils", "xz -c FILE"),
    "xz of blocks": ("xz", "xz-utils", "xz -1 -T2 --block-size=512KiB -c FILE"),
    "xz, sha256": ("xz", "xz-utils", "xz -0 --check=sha256 -c FILE"),
    "xz, crc32": ("xz", "xz-utils", "xz -0 --check=crc32 -c FILE"),
    "xz, no check": ("xz", "xz-utils", "xz -0 --check=none -c FILE"),
    "xz, largest preset": ("xz", "xz-utils", "xz -9e -c FILE"),
    "xz, filtered": ("xz", "xz-utils", "xz --x86 --lzma2=preset=0 -c FILE"),
    "xz, two files, padded": (
        "xz",
        "xz-utils",
        "(head -c 99 FILE | xz; head -c 8 /dev/zero; tail -c +100 FILE | xz -0; head -c 4 /dev/zero)",
    ),
    "zstd": ("zstd", "zstd", "zstd -qc FILE"),
    "zstd of a pipe": ("zstd", "zstd", "cat FILE | zstd -q"),
    "zstd, no check": ("zstd", "zstd", "zstd -qc --no-check FILE"),
    "zstd, long": ("zstd", "zstd", "cat FILE | zstd -q --long=27"),
    "zstd, ultra": ("zstd", "zstd", "cat FILE | zstd -q -1 -T2 --ultra --zstd=wlog=27"),
    "zstd, pzstd": ("pzstd", "zstd", "pzstd -qc -p 3 FILE"),
    "zstd, two files": ("zstd", "zstd", "(head -c 99 FILE | zstd -q; tail -c +100 FILE | zstd -q)"),
    "bzip2": ("bzip2", "bzip2", "bzip2 -c FILE"),
    "bzip2, small blocks, two files": ("bzip2", "bzip2", "(head -c 99 FILE | bzip2 -1; tail -c +100 FILE | bzip2 -1)"),
    "zip": ("zip", "zip", "zip -q OUT FILE && cat OUT"),
    "zip, stored": ("zip", "zip", "zip -0q OUT FILE && cat OUT"),
    "zip of a pipe": ("zip", "zip", "cat FILE | zip -q - - | cat"),
    "zip, descriptor": ("zip", "zip", "zip -qfd OUT FILE && cat OUT"),
    "zip64": ("zip", "zip", "zip -qfz OUT FILE && cat OUT"),
    "zip, 7z": ("7z", "p7zip-full", "7z a -bd -tzip OUT FILE >/dev/null && cat OUT"),
    "zip, 7z, stored": ("7z", "p7zip-full", "7z a -bd -tzip -mm=Copy OUT FILE >/dev/null && cat OUT"),
}


@pytest.fixture
def by_tool(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    tool, package, line = request.param
    program(tool, package)
    (tmp_path / "disk.img").write_bytes(DATA)
    line = line.replace("FILE", "disk.img").replace("OUT", "out.zip")
    return subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, capture_output=True).stdout


@pytest.mark.parametrize(("by_tool", "name"), [(how, name) for name, how in TOOLS.items()], indirect=["by_tool"])
async def test_what_tools_write(pool: ThreadPoolExecutor, by_tool: bytes, name: str) -> None:
    out, stage = await unpacked(pool, by_tool)
    assert out == DATA
    assert (stage.format, stage.inner) == (name.partition(",")[0].partition(" ")[0].replace("zip64", "zip"), None)


class Pipe(io.RawIOBase):
    """What cannot be gone back in, so that zipfile writes sizes behind the data."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)


def zipped(
    data: bytes,
    method: int = zipfile.ZIP_DEFLATED,
    *,
    pipe: bool = False,
    wide: bool = False,
    comment: bytes = b"",
    name: str = "disk.img",
) -> bytes:
    """An archive as Python's zipfile writes it; into a pipe: with the sizes behind the data."""
    target: Any = Pipe() if pipe else io.BytesIO()
    info = zipfile.ZipInfo(name)
    info.compress_type = method
    with zipfile.ZipFile(target, "w") as archive:
        archive.comment = comment
        with archive.open(info, "w", force_zip64=wide) as member:
            member.write(data)
    return target.data if pipe else target.getvalue()


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("pipe", [True, False])
@pytest.mark.parametrize("comment", [b"", b"made by nobody", bytes(65535)])
async def test_zipfile(pool: ThreadPoolExecutor, pipe: bool, wide: bool, comment: bytes) -> None:
    out, stage = await unpacked(pool, zipped(DATA, pipe=pipe, wide=wide, comment=comment))
    assert (out, stage.format) == (DATA, "zip")


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "zip": zipped,
    "zip of a pipe": lambda data: zipped(data, pipe=True),
    "zip64": lambda data: zipped(data, wide=True),
    "zip, stored": lambda data: zipped(data, zipfile.ZIP_STORED),
    "xz": lzma.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    "bzip2": bz2.compress,
}
packers = pytest.mark.parametrize("how", PACKERS)


@packers
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(seed=st.integers(0, 1 << 32), largest=st.integers(1, 3000))
async def test_chunks_of_any_size(pool: ThreadPoolExecutor, how: str, seed: int, largest: int) -> None:
    chance = random.Random(seed)
    data = chance.randbytes(chance.randrange(3000)) + bytes(chance.randrange(3000))
    packed = PACKERS[how](data)

    async def source() -> AsyncIterator[bytes]:
        at = 0
        while at < len(packed):
            size = chance.randrange(largest + 1)  # empty ones, too
            yield packed[at : at + size]
            at += size

    assert b"".join([piece async for piece in Decompress(pool)(source())]) == data


@packers
async def test_batches_that_end_anywhere(pool: ThreadPoolExecutor, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers and trailers across the batches that threads get."""
    packed = PACKERS[how](SMALL)
    for size in range(1, 40):
        monkeypatch.setattr(decompress, "BATCH", size)
        assert (await unpacked(pool, packed, size))[0] == SMALL


# what is not compressed, and what is so twice


@pytest.mark.parametrize(
    "data", [b"", b"P", b"PK", b"\x1f\x8b", b"\x1f\x8b\x07" + bytes(50), b"BZh9" + bytes(50), DATA]
)
async def test_what_is_not_compressed_passes(pool: ThreadPoolExecutor, data: bytes) -> None:
    stage = Decompress(pool)
    chunks = [data[at : at + 70_000] for at in range(0, len(data), 70_000)]

    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    passed = [chunk async for chunk in stage(source())]
    assert all(mine is its for mine, its in zip(passed, chunks, strict=True))
    assert (stage.format, stage.inner, stage.read, stage.written) == (None, None, len(data), len(data))


@pytest.mark.parametrize("outer", ["gzip", "zip", "xz"])
@packers
async def test_one_layer(pool: ThreadPoolExecutor, how: str, outer: str) -> None:
    inside = PACKERS[how](DATA)
    out, stage = await unpacked(pool, PACKERS[outer](inside))
    assert out == inside
    assert (stage.format, stage.inner) == (outer, how.partition(",")[0].partition(" ")[0].replace("zip64", "zip"))


# damage


def made_of(packed: bytes) -> int:
    """How many bytes in front tell the format."""
    return {b"\x1f": 4, b"P": 4, b"\xfd": 6, b"\x28": 4, b"B": 10}[packed[:1]]


@packers
async def test_cut_anywhere(pool: ThreadPoolExecutor, how: str) -> None:
    packed = PACKERS[how](SMALL)
    for length in range(made_of(packed), len(packed)):
        await refused(pool, packed[:length], "part is missing")


@packers
async def test_one_wrong_byte(pool: ThreadPoolExecutor, how: str) -> None:
    """Nobody gets other bytes: it is noticed, or stands in what says nothing of them (a time, a name)."""
    packed = PACKERS[how](SMALL)
    noticed = 0
    for at in range(len(packed)):
        for bit in (0x01, 0x80):
            wrong = bytearray(packed)
            wrong[at] ^= bit
            try:
                out, stage = await unpacked(pool, bytes(wrong))
            except (BadRequest, FormatRefused):
                noticed += 1
            else:
                assert out == (SMALL if stage.format else wrong), (at, bit)
    assert noticed > 1.7 * len(packed) - 100


@pytest.mark.parametrize(
    "behind", [b"x", b"\0x", bytes(3), bytes(5000) + b"x", b"PK\5\6" + bytes(18), gzip.compress(b"x")]
)
@packers
async def test_something_behind(pool: ThreadPoolExecutor, how: str, behind: bytes) -> None:
    if how == "gzip" and behind.strip(b"\0")[:1] in (b"", b"\x1f"):
        return  # what gzip takes, too
    await refused(pool, PACKERS[how](SMALL) + behind, "behind")


@packers
async def test_damage_by_chance(pool: ThreadPoolExecutor, how: str) -> None:
    packed = PACKERS[how](SMALL)
    for seed in range(RUNS):
        wrong = damaged(packed, seed)
        try:
            out, stage = await unpacked(pool, wrong, 1 + seed % 200)
        except (BadRequest, FormatRefused):
            continue
        assert out == (SMALL if stage.format else wrong), seed


async def test_trailers_of_gzip(pool: ThreadPoolExecutor) -> None:
    packed = gzip.compress(DATA)
    crc, size = struct.unpack("<II", packed[-8:])
    assert (await unpacked(pool, packed[:-8] + struct.pack("<II", crc, size)))[0] == DATA
    await refused(pool, packed[:-8] + struct.pack("<II", crc ^ 1, size), "damaged")
    await refused(pool, packed[:-8] + struct.pack("<II", crc, size ^ 1), "damaged")


async def test_headers_of_gzip(pool: ThreadPoolExecutor) -> None:
    """All optional fields, as RFC 1952 has them; with reserved flags it is no gzip."""
    plain = gzip.compress(DATA, mtime=0)
    head = plain[:3] + b"\x1e" + plain[4:10] + struct.pack("<H", 300) + bytes(300) + b"a name\0" + b"a comment\0"
    assert (await unpacked(pool, head + struct.pack("<H", zlib.crc32(head) & 0xFFFF) + plain[10:]))[0] == DATA
    assert (await unpacked(pool, plain[:3] + b"\x20" + plain[4:]))[1].format is None


async def test_unknown_checksums_of_xz(pool: ThreadPoolExecutor) -> None:
    """liblzma gives the bytes out and does not check them."""
    flags = b"\0\x0f"
    head = b"\xfd7zXZ\0" + flags + struct.pack("<I", zlib.crc32(flags))
    index = b"\0\0\0\0"
    footer = struct.pack("<I", 1) + flags
    packed = (
        head + index + struct.pack("<I", zlib.crc32(index)) + struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ"
    )
    await refused(pool, packed, "unknown kind 15")


async def test_windows(pool: ThreadPoolExecutor) -> None:
    """As much as xz -9 and zstd --long=27 ask for, and no more."""
    for log, fits in ((26, True), (27, True), (28, False)):
        by_xz = lzma.compress(SMALL, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << log}])
        by_zstd = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
        for packed in (by_xz, by_zstd.compress(SMALL) + by_zstd.flush()):
            if fits:
                assert (await unpacked(pool, packed))[0] == SMALL
            else:
                assert (await refused(pool, packed, "128 MiB")).status == 415


async def test_a_dictionary_of_zstd(pool: ThreadPoolExecutor) -> None:
    samples = [b"line %d of some text that repeats %d\n" % (number, number * 7) for number in range(2000)]
    dictionary = zstd.train_dict(samples, 2000)
    await refused(pool, zstd.compress(SMALL, zstd_dict=dictionary), "damaged")


# zip archives that are not one file


def several() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", SMALL)
        archive.writestr("b", SMALL)
    return target.getvalue()


def empty() -> bytes:
    target = io.BytesIO()
    zipfile.ZipFile(target, "w").close()
    return target.getvalue()


def link() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        info = zipfile.ZipInfo("disk.img")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return target.getvalue()


def another_entry() -> bytes:
    """One file, and a directory with two."""
    data = zipped(SMALL)
    at, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    return data[:end] + data[at:end] + data[end:]


def edited(data: bytes, signature: bytes, at: int, new: bytes) -> bytes:
    """Bytes of the record that has this signature changed."""
    place = data.index(signature) + at
    return data[:place] + new + data[place + len(new) :]


ZIPS = {
    "several": (several(), "more than one file"),
    "nothing": (empty(), "no file"),
    "a folder": (zipped(b"", name="folder/"), "folder"),
    "a link": (link(), "link"),
    "another entry": (another_entry(), "more than one file"),
    "lzma": (zipped(SMALL, zipfile.ZIP_LZMA), "method 14"),
    "encrypted": (edited(zipped(SMALL), b"PK\3\4", 6, b"\1\0"), "encrypted"),
    "stored, size behind": (zipped(SMALL, zipfile.ZIP_STORED, pipe=True), "size behind"),
    "split": (b"PK\7\x08" + zipped(SMALL), "split"),
    "first disk": (edited(zipped(SMALL), b"PK\5\6", 4, b"\1\0"), "split"),
    "other name": (edited(zipped(SMALL), b"PK\1\2", 46, b"x"), "directory"),
    "other method": (edited(zipped(SMALL), b"PK\1\2", 10, b"\0\0"), "directory"),
    "other checksum": (edited(zipped(SMALL), b"PK\1\2", 16, b"1234"), "directory"),
    "other sizes": (edited(zipped(SMALL), b"PK\1\2", 20, b"1234"), "directory"),
    "other place": (edited(zipped(SMALL), b"PK\1\2", 42, b"\1"), "directory"),
    "no entries": (edited(zipped(SMALL), b"PK\5\6", 8, bytes(4)), "end record"),
    "two entries": (edited(zipped(SMALL), b"PK\5\6", 8, b"\2\0\2\0"), "end record"),
    "other size of the directory": (edited(zipped(SMALL), b"PK\5\6", 12, b"\1"), "end record"),
    "other place of the directory": (edited(zipped(SMALL), b"PK\5\6", 16, b"\1"), "end record"),
    "size in front": (edited(zipped(SMALL), b"PK\3\4", 22, b"\1"), "in front"),
    "checksum in front": (edited(zipped(SMALL), b"PK\3\4", 14, b"\1"), "in front"),
    "checksum behind": (edited(zipped(SMALL, pipe=True), b"PK\7\x08", 4, b"\1"), "behind the file"),
    "sizes behind": (edited(zipped(SMALL, pipe=True), b"PK\7\x08", 8, b"\1"), "behind the file"),
}


@pytest.mark.parametrize("name", ZIPS)
async def test_zips_that_are_not_one_file(pool: ThreadPoolExecutor, name: str) -> None:
    data, words = ZIPS[name]
    await refused(pool, data, words)


@pytest.mark.parametrize("kind", [b"-lh5-", b"-lh0-", b"-lzs-"])
async def test_lha(pool: ThreadPoolExecutor, kind: bytes) -> None:
    error = await refused(pool, b"\x20\x11" + kind + bytes(100), "lha archives are not supported")
    assert error.status == 415


# bombs


@pytest.mark.parametrize("how", ["gzip", "xz", "zstd", "bzip2"])
async def test_pieces_without_end(pool: ThreadPoolExecutor, how: str) -> None:
    """Each costs a decoder and holds nothing."""
    packed = PACKERS[how](b"")
    assert (await unpacked(pool, packed * 1000))[0] == b""
    await refused(pool, packed * 3000, "too many small pieces")


async def test_what_comes_out_is_bounded_by_what_came_in(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompress, "FREE", 8 * MIB)
    zeros, noise = zstd.compress(bytes(40 * MIB)), zstd.compress(random.Random(1).randbytes(MIB))
    with pytest.raises(TooLarge):
        await unpacked(pool, zeros)
    assert len((await unpacked(pool, noise + zeros, BATCH))[0]) == 41 * MIB


BOMB = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from xloud_image.errors import TooLarge
from xloud_image.streams.decompress import Decompress
from xloud_image.streams.stages import Limit, through

def peak():
    # not that of getrusage: it begins with what the process had before it became this program
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10

async def main(name, repeats, cap):
    part = open(name, "rb").read()
    async def source():
        for _ in range(repeats):
            yield part
    with ThreadPoolExecutor(2) as pool:
        decompress, limit, before = Decompress(pool), Limit(None, cap), peak()
        try:
            async for _ in through(source(), [decompress, limit]):
                pass
        except TooLarge:
            print(decompress.format, decompress.written, peak() - before)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.mark.parametrize("how", ["gzip", "xz", "zstd", "bzip2"])
def test_memory_of_a_bomb(tmp_path: Path, how: str) -> None:
    """10 GiB of zeros, of which 160 MiB may come: memory as for anything else, and an end when they have come."""
    (tmp_path / "part").write_bytes(PACKERS[how](bytes(128 * MIB)))
    words = [sys.executable, "-c", BOMB, str(tmp_path / "part"), "80", str(160 * MIB)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    name, written, grown = done.stdout.split()
    assert name == how
    assert 160 * MIB < int(written) <= 160 * MIB + PIECE
    assert 0 < int(grown) < 40, "MiB"


async def test_nested_archives_are_not_opened(pool: ThreadPoolExecutor) -> None:
    """As in 42.zip: archives in archives. Of one in one a layer goes, several are no image."""
    inside = zipped(bytes(MIB))
    out, stage = await unpacked(pool, zipped(inside))
    assert (out, stage.inner) == (inside, "zip")
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(16):
            archive.writestr(f"lib {number:x}.zip", inside)
    await refused(pool, target.getvalue(), "more than one file")


# the loop and the pool


async def test_output_is_made_as_it_is_taken(pool: ThreadPoolExecutor) -> None:
    packed = PACKERS["gzip"](bytes(64 * MIB))
    assert len(packed) < BATCH
    stage = Decompress(pool)
    chunks = stage(pieces(packed))
    assert len(await anext(chunks)) <= PIECE
    assert stage.written <= PIECE
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_input_is_read_as_it_is_needed(pool: ThreadPoolExecutor) -> None:
    packed, taken = PACKERS["gzip"](random.Random(1).randbytes(8 * MIB)), 0

    async def source() -> AsyncIterator[bytes]:
        nonlocal taken
        async for piece in pieces(packed):
            taken += len(piece)
            yield piece

    chunks = Decompress(pool)(source())
    await anext(chunks)
    assert taken <= BATCH + 70_000
    await chunks.aclose()  # type: ignore[attr-defined]


async def test_threads_decode_and_not_the_loop() -> None:
    """While the pool has no thread nothing comes out, and the loop turns."""
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(gate.wait)
        task = asyncio.ensure_future(unpacked(pool, PACKERS["xz"](DATA)))
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert not task.done()
        gate.set()
        assert (await task)[0] == DATA


async def test_cancelled_in_the_middle() -> None:
    """The thread ends its turn, and the next stream has it."""
    packed = PACKERS["xz"](DATA)
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        for turns in range(5):
            task = asyncio.ensure_future(unpacked(pool, packed))
            for _ in range(turns):
                await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # on a busy machine it may have ended by itself
        pool.submit(gate.wait)
        waiting = asyncio.ensure_future(unpacked(pool, packed))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        assert (await unpacked(pool, packed))[0] == DATA


async def test_an_error_of_the_source_passes_through(pool: ThreadPoolExecutor) -> None:
    error = RuntimeError("the client is gone")

    async def source() -> AsyncIterator[bytes]:
        yield PACKERS["gzip"](DATA)[:1000]
        raise error

    with pytest.raises(RuntimeError) as caught:
        async for _ in through(source(), [Decompress(pool), Limit(None, 1 << 40)]):
            pass
    assert caught.value is error


async def test_many_at_once(pool: ThreadPoolExecutor) -> None:
    data = [os.urandom(300_000 + number) for number in range(16)]
    packed = [PACKERS[how](each) for each, how in zip(data, [*PACKERS, *PACKERS], strict=True)]
    assert [out for out, _ in await asyncio.gather(*(unpacked(pool, each) for each in packed))] == data

"""Digests that are given, and those that a vendor publishes, with real signatures."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fetching.conftest import DATA, fetched
from tests.servers.nginx import Nginx
from tests.servers.place import new_directory, program
from xloud_image.errors import BadRequest, ConfigError, SourceRefused, TooLarge, Unavailable, Unverified
from xloud_image.fetching import signatures
from xloud_image.fetching.checksums import ALGORITHMS, Expected, published
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.streams.digest import Digest


def digest(algorithm: str, data: bytes = DATA) -> str:
    return hashlib.new(algorithm, data).hexdigest()


SHA256, OTHER = digest("sha256"), digest("sha256", b"other")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_digest_that_is_given(fetcher: Fetcher, nginx: Nginx, algorithm: str) -> None:
    with ThreadPoolExecutor() as pool:
        stage = Digest([algorithm], pool)
        async with fetcher.open(f"{nginx.url}/file", trusted=True) as resource:
            assert b"".join([chunk async for chunk in stage(resource.chunks())]) == DATA
        found = await stage.hexes()
    Expected(algorithm, digest(algorithm).upper()).require(found)
    with pytest.raises(Unverified, match=f"the {algorithm} of the data is {digest(algorithm)}, not") as caught:
        Expected(algorithm, digest(algorithm, DATA[:-1])).require(found)
    assert not caught.value.temporary


@pytest.mark.parametrize(
    ("algorithm", "value"),
    [
        ("sha256", SHA256[:-1]),
        ("sha256", SHA256 + "0"),
        ("sha256", "g" + SHA256[1:]),
        ("sha256", digest("md5")),
        ("sha256", "\u0661" * 64),
        ("SHA256", SHA256),
        ("crc32", "00000000"),
        ("", ""),
    ],
)
def test_what_is_no_digest(algorithm: str, value: str) -> None:
    with pytest.raises(BadRequest):
        Expected(algorithm, value)


# files of checksums


async def entry(fetcher: Fetcher, nginx: Nginx, folder: Path, text: str | bytes, name: str = "file") -> Expected:
    (folder / "SUMS").write_bytes(text if isinstance(text, bytes) else text.encode())
    return await published(fetcher, f"{nginx.url}/SUMS", of=f"{nginx.url}/images/{name}", trusted=True)


GOOD = {
    "coreutils": f"{OTHER}  another\n{SHA256}  file\n",
    "binary": f"{SHA256} *file\n{OTHER} *file.sig\n",
    "no end of line": f"{SHA256}  file",
    "DOS": f"{OTHER}  another\r\n{SHA256}  file\r\n",
    "large letters": f"{SHA256.upper()}  file\n",
    "BSD": f"SHA256 (another) = {OTHER}\nSHA256 (file) = {SHA256}\n",
    "remarks": f"# file: {len(DATA)} bytes\n\nSHA256 (file) = {SHA256}\n",
    "in a directory": f"{OTHER}  ./other/another\n{SHA256}  ./images/file\n",
    "here before elsewhere": f"{OTHER}  old/file\n{SHA256}  ./file\n",
    "twice the same": f"{SHA256}  file\n{SHA256}  file\n",
    "the strongest": f"MD5 (file) = {digest('md5', b'')}\nSHA256 (file) = {SHA256}\nSHA1 (file) = {digest('sha1')}\n",
    "what is not known here": f"BLAKE2b (file) = {OTHER}\nSHA3-256 (file) = {OTHER}\n{SHA256}  file\n",
    "inside names": f"{OTHER}  {SHA256}  file\n{SHA256}  file\n",
}


@pytest.mark.parametrize("form", GOOD)
async def test_forms(fetcher: Fetcher, nginx: Nginx, folder: Path, form: str) -> None:
    assert await entry(fetcher, nginx, folder, GOOD[form]) == Expected("sha256", SHA256)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("options", [(), ("--tag",), ("-b",)])
async def test_the_programs_that_make_them(
    fetcher: Fetcher, nginx: Nginx, folder: Path, algorithm: str, options: tuple[str, ...]
) -> None:
    names = ("file", "empty", "b\\ack", "an image")
    for name in names[2:]:
        (folder / name).write_bytes(b"other")
    words = [f"{algorithm}sum", *options, *names]
    text = subprocess.run(words, cwd=folder, capture_output=True, check=True).stdout
    assert await entry(fetcher, nginx, folder, text) == Expected(algorithm, digest(algorithm))
    for name, path in (("b\\ack", "b%5Cack"), ("an image", "an%20image?x=/y#z/z")):
        assert await entry(fetcher, nginx, folder, text, path) == Expected(algorithm, digest(algorithm, b"other")), name


BAD = {
    "nothing": ("", "says nothing about file"),
    "another": (f"{SHA256}  another\n", "says nothing about file"),
    "a part of the name": (f"{SHA256}  file.xz\n{SHA256}  a-file\n", "says nothing about file"),
    "two": (f"{SHA256}  file\n{OTHER}  file\n", "different things"),
    "two elsewhere": (f"{SHA256}  a/file\n{OTHER}  b/file\n", "different things"),
    "a page": ("<html><body>Not found</body></html>", "line 1 of the file"),
    "a digest alone": (SHA256, "line 1 of the file"),
    "too short": (f"{SHA256[:-1]}  file\n", "line 1 of the file"),
    "no length of any": (f"{SHA256}{'0' * 8}  file\n", "line 1 of the file"),
    "one blank": (f"{SHA256} file\n", "line 1 of the file"),
    "a wrong length": (f"MD5 (file) = {SHA256}\n", "line 1 of the file"),
    "rubbish behind": (f"{SHA256}  file\nsee above\n", "line 2 of the file"),
    "no text": (b"\xff\xfe\x00", "is no text"),
}


@pytest.mark.parametrize("form", BAD)
async def test_what_is_not_believed(fetcher: Fetcher, nginx: Nginx, folder: Path, form: str) -> None:
    text, words = BAD[form]
    with pytest.raises(Unverified, match=words):
        await entry(fetcher, nginx, folder, text)


async def test_a_file_of_checksums_without_end(fetcher: Fetcher, nginx: Nginx, folder: Path) -> None:
    with pytest.raises(TooLarge):
        await entry(fetcher, nginx, folder, f"{OTHER}  x\n" * 20_000)
    assert await entry(fetcher, nginx, folder, "#\n" * 500_000 + f"{SHA256}  file") == Expected("sha256", SHA256)


async def test_no_name_and_no_file(fetcher: Fetcher, nginx: Nginx, folder: Path) -> None:
    with pytest.raises(BadRequest, match="without the name"):
        await entry(fetcher, nginx, folder, GOOD["BSD"], "")
    with pytest.raises(SourceRefused, match="it answers 404"):
        await published(fetcher, f"{nginx.url}/absent", of=f"{nginx.url}/file", trusted=True)


# signatures


class Vendor:
    """A key of one vendor, and gpg with it. `when`: the time that all of it is done at."""

    def __init__(self, name: str, *, expires: str = "0", when: str = "") -> None:
        self._when = ("--faked-system-time", when) if when else ()
        self.home = new_directory("gpg")
        self.home.chmod(0o700)
        self.keyring = self.home / "keyring.gpg"
        self.armored = self.home / "keyring.asc"
        self._gpg(
            "--passphrase", "", "--quick-generate-key", f"{name} <{name}@example.org>", "ed25519", "sign", expires
        )
        self.keyring.write_bytes(self._gpg("--export"))
        self.armored.write_bytes(b"of the vendor\n\n" + self._gpg("--armor", "--export"))

    def sign(self, data: bytes, *options: str) -> bytes:
        return self._gpg(*options, given=data)

    def revoke(self) -> None:
        (made,) = (self.home / "openpgp-revocs.d").glob("*.rev")
        text = made.read_text().replace(":-----BEGIN", "-----BEGIN")
        self._gpg("--import", given=text.encode())
        self.keyring.write_bytes(self._gpg("--export"))

    def close(self) -> None:
        subprocess.run([program("gpgconf", "gpgconf"), "--homedir", self.home, "--kill", "all"], check=False)

    def _gpg(self, *words: str, given: bytes = b"") -> bytes:
        quiet = ("--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", *self._when)
        command = [program("gpg", "gpg"), "--homedir", self.home, *quiet, *words]
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@pytest.fixture(scope="module")
def vendor() -> Iterator[Vendor]:
    made = Vendor("vendor")
    yield made
    made.close()


@pytest.fixture(scope="module")
def stranger() -> Iterator[Vendor]:
    made = Vendor("stranger")
    yield made
    made.close()


SUMS = f"# remark\n{OTHER}  another\n{SHA256}  file\n".encode()
RIGHT = Expected("sha256", SHA256)


@pytest.fixture
def place(folder: Path) -> Path:
    """Where the checksums lie; nothing is beside them."""
    found = folder / "signed"
    found.mkdir(exist_ok=True)
    for old in found.iterdir():
        old.unlink()
    (found / "SUMS").write_bytes(SUMS)
    return found


async def signed(fetcher: Fetcher, nginx: Nginx, keyring: Path | None, signature: str | None = None) -> Expected:
    of, named = f"{nginx.url}/file", None if signature is None else f"{nginx.url}/signed/{signature}"
    return await published(fetcher, f"{nginx.url}/signed/SUMS", of=of, trusted=True, signature=named, keyring=keyring)


@pytest.mark.parametrize("armor", [(), ("--armor",)])
@pytest.mark.parametrize("name", ["SUMS.gpg", "SUMS.asc", "SUMS.sign", "SUMS.sig", "elsewhere"])
async def test_a_signature_beside(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, stranger: Vendor, place: Path, name: str, armor: tuple[str, ...]
) -> None:
    (place / name).write_bytes(vendor.sign(SUMS, *armor, "--detach-sign"))
    given = name if name == "elsewhere" else None
    for keyring in (vendor.keyring, vendor.armored):
        assert await signed(fetcher, nginx, keyring, given) == RIGHT
    with pytest.raises(Unverified, match="not among those of the operator"):
        await signed(fetcher, nginx, stranger.keyring, given)
    (place / "SUMS").write_bytes(SUMS.replace(SHA256.encode(), OTHER.encode()))
    with pytest.raises(Unverified, match="does not fit"):
        await signed(fetcher, nginx, vendor.keyring, given)


async def test_a_signature_around(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, stranger: Vendor, place: Path
) -> None:
    text = vendor.sign(SUMS, "--clear-sign")
    for written in (text, text.replace(b"\n", b"\r\n"), b"\n" + text, text + f"{OTHER}  file\n".encode()):
        (place / "SUMS").write_bytes(written)
        assert await signed(fetcher, nginx, vendor.keyring) == RIGHT, "what stands around it is not read"
    (place / "SUMS").write_bytes(text)
    assert await signed(fetcher, nginx, None) == RIGHT, "nobody asked for a check"
    with pytest.raises(Unverified, match="not among those of the operator"):
        await signed(fetcher, nginx, stranger.keyring)
    (place / "SUMS").write_bytes(text.replace(SHA256.encode(), OTHER.encode()))
    with pytest.raises(Unverified, match="does not fit"):
        await signed(fetcher, nginx, vendor.keyring)
    (place / "SUMS").write_bytes(text.partition(b"-----BEGIN PGP SIGNATURE")[0])
    for keyring in (vendor.keyring, None):
        with pytest.raises(Unverified):
            await signed(fetcher, nginx, keyring)


@pytest.mark.parametrize("kind", ["armor", "bare", "keybox"])
async def test_a_keyring_of_several_keys(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, stranger: Vendor, place: Path, tmp_path: Path, kind: str
) -> None:
    keyring = tmp_path / "keys"
    if kind == "keybox":
        keyring = vendor.home / "pubring.kbx"
    else:
        files = [one.armored if kind == "armor" else one.keyring for one in (stranger, vendor)]
        keyring.write_bytes(b"".join(file.read_bytes() for file in files))
    (place / "SUMS.gpg").write_bytes(vendor.sign(SUMS, "--detach-sign"))
    assert await signed(fetcher, nginx, keyring) == RIGHT


async def test_of_several_signatures_one_counts_and_none_is_wrong(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, stranger: Vendor, place: Path
) -> None:
    """Vendors sign with their old key and their new one."""
    ours, theirs = (one.sign(SUMS, "--detach-sign") for one in (vendor, stranger))
    for both in (ours + theirs, theirs + ours):
        (place / "SUMS.gpg").write_bytes(both)
        assert await signed(fetcher, nginx, vendor.keyring) == RIGHT
    (place / "SUMS.gpg").write_bytes(ours + vendor.sign(b"another text", "--detach-sign"))
    with pytest.raises(Unverified, match="does not fit"):
        await signed(fetcher, nginx, vendor.keyring)


async def test_no_signature(fetcher: Fetcher, nginx: Nginx, vendor: Vendor, place: Path) -> None:
    with pytest.raises(Unverified, match="no signature lies beside"):
        await signed(fetcher, nginx, vendor.keyring)
    with pytest.raises(SourceRefused, match="it answers 404"):
        await signed(fetcher, nginx, vendor.keyring, "absent")
    with pytest.raises(BadRequest, match="no keyring"):
        await signed(fetcher, nginx, None, "absent")
    for rubbish in (b"", b"rubbish", SUMS, os.urandom(1000), vendor.keyring.read_bytes(), vendor.sign(SUMS, "--sign")):
        (place / "SUMS.gpg").write_bytes(rubbish)
        with pytest.raises(Unverified, match="not signed by a key that is known"):
            await signed(fetcher, nginx, vendor.keyring)
    (place / "SUMS.gpg").write_bytes(bytes(65_537))
    with pytest.raises(TooLarge):
        await signed(fetcher, nginx, vendor.keyring)


async def test_a_weak_digest_within_a_signature_counts_for_nothing(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, place: Path
) -> None:
    options = ("--digest-algo", "SHA1", "--allow-weak-digest-algos", "--detach-sign")
    (place / "SUMS.gpg").write_bytes(vendor.sign(SUMS, *options))
    with pytest.raises(Unverified):
        await signed(fetcher, nginx, vendor.keyring)


async def test_a_key_that_expired_or_was_revoked(fetcher: Fetcher, nginx: Nginx, place: Path) -> None:
    for kind in ("expired", "revoked"):
        made = Vendor(kind) if kind == "revoked" else Vendor(kind, expires="1d", when="20200101T000000!")
        try:
            (place / "SUMS.gpg").write_bytes(made.sign(SUMS, "--detach-sign"))
            if kind == "revoked":
                assert await signed(fetcher, nginx, made.keyring) == RIGHT
                made.revoke()
            with pytest.raises(Unverified, match=kind):
                await signed(fetcher, nginx, made.keyring)
        finally:
            made.close()


async def test_keys_that_cannot_be_read(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, place: Path, tmp_path: Path
) -> None:
    (place / "SUMS.gpg").write_bytes(vendor.sign(SUMS, "--detach-sign"))
    with pytest.raises(ConfigError, match="cannot be read"):
        await signed(fetcher, nginx, tmp_path / "absent")
    broken = tmp_path / "broken"
    broken.write_bytes(vendor.armored.read_bytes().replace(b"m", b"\xff"))
    with pytest.raises(ConfigError, match="cannot be read"):
        await signed(fetcher, nginx, broken)
    for rubbish in (b"", b"rubbish"):
        broken.write_bytes(rubbish)
        with pytest.raises(Unverified):
            await signed(fetcher, nginx, broken)


async def test_without_gpgv(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "SUMS.gpg").write_bytes(vendor.sign(SUMS, "--detach-sign"))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ConfigError, match="gpgv, which does not start"):
        await signed(fetcher, nginx, vendor.keyring)


async def test_a_gpgv_that_hangs_is_ended(
    fetcher: Fetcher, nginx: Nginx, vendor: Vendor, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (place / "SUMS.gpg").write_bytes(vendor.sign(SUMS, "--detach-sign"))
    noted = tmp_path / "pid"
    (tmp_path / "gpgv").write_text(f"#!/bin/sh\necho $$ > {noted}\nexec sleep 100\n")
    (tmp_path / "gpgv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(signatures, "_SECONDS", 1.0)
    with pytest.raises(Unavailable, match="did not come to an end"):
        await signed(fetcher, nginx, vendor.keyring)
    assert not noted.exists() or not Path(f"/proc/{noted.read_text().strip()}").exists()


async def test_an_image_whose_checksum_is_signed(fetcher: Fetcher, nginx: Nginx, vendor: Vendor, place: Path) -> None:
    """All of the way: the digest that the vendor signed is the one of what came."""
    (place / "SUMS").write_bytes(vendor.sign(SUMS, "--clear-sign"))
    expected = await signed(fetcher, nginx, vendor.armored)
    data = await fetched(fetcher, f"{nginx.url}/file")
    expected.require({expected.algorithm: hashlib.new(expected.algorithm, data).hexdigest()})

"""URLs of locations in the form that Glance writes: rows of its own code are read, ours are texts that it reads, and
what looks for a URL finds both."""

import base64
import uuid
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.db.conftest import MakeEmpty
from tests.servers.glance import ENVIRONMENT
from tests.servers.place import environment
from tests.servers.process import run
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import ciphers, claims, images, locations, schema, sql
from xloud_image.db.engine import Database
from xloud_image.model import Claim, Image, Location

KEY = "0123456789abcdef"
URL = "swift+https://user:pässword@auth.example/v3/container/0b1c"
# written by Glance 33 with KEY: the URL above, an empty one's worth of padding, a long one
GLANCE = Path(__file__).with_name("glance33") / "encrypted_urls.txt"


def vectors() -> list[tuple[str, str, str]]:
    """Key, URL, and what Glance made of it."""
    found = []
    for line in GLANCE.read_text().splitlines():
        key, url, text = line.split("\t")
        found.append((key, url, text))
    return found


def test_what_glance_wrote() -> None:
    assert len(vectors()) > 20
    for key, url, text in vectors():
        assert ciphers.Urls(key).opened(text) == url


@pytest.mark.parametrize("length", range(40))
def test_every_length_of_padding(length: int) -> None:
    for key in ("k" * 16, "k" * 24, "k" * 32):
        urls, url = ciphers.Urls(key), "rbd://" + "x" * length
        text = urls.sealed(url)
        assert urls.opened(text) == url
        assert urls.sealed(url) == text
        assert url not in text
        # as Glance reads it: up to the last zero byte
        raw = base64.urlsafe_b64decode(text)
        plain = Cipher(algorithms.AES(key.encode()), modes.CBC(raw[:16])).decryptor().update(raw[16:])
        assert plain[: plain.rfind(b"\0")].decode() == url
        assert plain.count(b"\0") == 1
        assert len(plain) % 16 == 0


@pytest.mark.parametrize("text", ["", "AAAA", "file:///x", "not base64 ü", "QUJD" * 20, URL])
def test_what_is_no_such_text_stays(text: str) -> None:
    assert ciphers.Urls(KEY).opened(text) == text
    other = ciphers.Urls("another key 0123").sealed(URL)
    assert ciphers.Urls(KEY).opened(other) == other


def test_glance_reads_ours() -> None:
    words = "import sys; from glance.common import crypt; print(crypt.urlsafe_decrypt(sys.argv[1], sys.argv[2]))"
    for key, url, _ in vectors():
        command = [environment(ENVIRONMENT, "python"), "-c", words, key, ciphers.Urls(key).sealed(url)]
        assert run(command, seconds=60).strip() == url


async def test_rows(empty: MakeEmpty) -> None:
    settings = empty()
    await schema.upgrade(settings)
    secret = DatabaseSettings(connection=settings.connection, max_retries=0, metadata_encryption_key=KEY)
    db, clear = Database(secret), Database(settings)
    await db.start()
    await clear.start()
    try:
        ours = Image(str(uuid.uuid4()), status="active", locations=(Location(URL, {"store": "s"}),))
        made = await db.write(lambda conn: images.create(conn, ours))
        assert made.locations[0].url == URL
        [row] = await clear.read(lambda conn: sql.fetch(conn, "SELECT value FROM image_locations"))
        assert "swift" not in row[0]
        assert ciphers.Urls(KEY).opened(row[0]) == URL
        # a change of its metadata leaves the URL
        moved = (Location(URL, {"store": "t"}, id=made.locations[0].id),)
        changed = await db.write(lambda conn: images.change(conn, ours.id, lambda now: now.replace(locations=moved)))
        assert changed.locations == moved
        [found] = await db.read(lambda conn: locations.holders(conn, [URL]))
        assert found.location is not None
        assert (found.image_id, found.location.url) == (ours.id, URL)
        [row] = await db.read(lambda conn: locations.page(conn, 0, 10))
        assert row.location is not None
        assert row.location.url == URL

        claim = Claim(str(uuid.uuid4()), "delete", ours.id, "s", url=URL)
        await db.write(lambda conn: claims.begin(conn, claim, lease=0))
        [kept] = await db.read(lambda conn: claims.list_all(conn))
        assert kept.url == URL
        [row] = await clear.read(lambda conn: sql.fetch(conn, "SELECT url FROM xloud_claims"))
        assert "swift" not in row[0]
        assert [one.url for one in await db.read(lambda conn: locations.leaving(conn, [URL]))] == [URL]

        # rows from before the key, and of a Glance
        old = Image(str(uuid.uuid4()), status="active", locations=(Location("file:///a"),))
        await clear.write(lambda conn: images.create(conn, old))
        key, url, text = next(one for one in vectors() if one[0] == KEY)
        theirs = Image(str(uuid.uuid4()), status="active", locations=(Location(text),))
        await clear.write(lambda conn: images.create(conn, theirs))
        for image, wanted in ((old, "file:///a"), (theirs, url)):
            seen = await db.read(lambda conn, image=image: images.get(conn, image.id))  # type: ignore[misc]
            assert seen is not None
            assert seen.locations[0].url == wanted
        assert key == KEY
    finally:
        await db.aclose()
        await clear.aclose()

"""URLs of locations as the database keeps them where the operator has `metadata_encryption_key`: in the form that
Glance writes and reads (AES in CBC, the initial vector first, a zero byte and padding behind the text, base64).

Glance takes any initial vector and padding. Ours are made from the key and the text, so that the same URL is always the
same text, and rows are found by it. It tells that two rows have the same URL, and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from sqlalchemy.ext.asyncio import AsyncConnection

from xloud_image.model import Location

_BLOCK: Final = 16
_OPTION: Final = "location_urls"


class Urls:
    """One key. State: none."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def sealed(self, url: str) -> str:
        """The URL as the database keeps it."""
        text = url.encode()
        made = hmac.new(self._key, b"location" + text, hashlib.sha512).digest()
        padding = bytes(byte or 1 for byte in made[_BLOCK : 2 * _BLOCK])  # the zero byte before it is the last one
        text += b"\0" + padding[: _BLOCK - len(text) % _BLOCK - 1]
        cipher = Cipher(algorithms.AES(self._key), modes.CBC(made[:_BLOCK])).encryptor()
        return base64.urlsafe_b64encode(made[:_BLOCK] + cipher.update(text) + cipher.finalize()).decode()

    def opened(self, value: str) -> str:
        """The URL of a row, whoever wrote it. What is none, of another key or in the clear, is given back as it is."""
        if ":" in value:  # of no such text, and in every URL
            return value
        try:
            raw = base64.b64decode(value, altchars=b"-_", validate=True)
            cipher = Cipher(algorithms.AES(self._key), modes.CBC(raw[:_BLOCK])).decryptor()
            text = cipher.update(raw[_BLOCK:]) + cipher.finalize()
            url = text[: text.rindex(b"\0")].decode()
        except (binascii.Error, ValueError):
            return value
        return url if ":" in url else value

    def forms(self, urls: Sequence[str]) -> list[str]:
        """Every form in which rows of ours may have these URLs."""
        return [*urls, *(self.sealed(url) for url in urls)]


def options(key: str | None) -> dict[str, object]:
    """What an engine has to know, for `of`."""
    return {} if key is None else {_OPTION: Urls(key)}


def of(conn: AsyncConnection) -> Urls | None:
    """The key of the database, None when URLs stand in the clear."""
    sync = conn.sync_connection
    assert sync is not None
    found: Urls | None = sync.get_execution_options().get(_OPTION)
    return found


def opened(urls: Urls | None, location: Location) -> Location:
    """A location as its row has it, with its URL."""
    if urls is None:
        return location
    return Location(urls.opened(location.url), location.metadata, location.status, location.id)

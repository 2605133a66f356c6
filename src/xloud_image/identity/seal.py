"""Entries of a shared token cache made tamper-proof (MAC) or unreadable as well (ENCRYPT). No connection is
made here.

Our own format under our own key prefix: other services that share the servers neither read nor overwrite it.
From `memcache_secret_key` and the token itself a key is derived for each token, so that an entry cannot be
moved to another token, and neither the token nor a plain hash of it is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from xloud_image.errors import ConfigError

_PREFIX: Final = b"xloud-image:token:1:"
_NONCE: Final = 12
_TAG: Final = 32


class Seal:
    """`strategy` is None, "MAC" or "ENCRYPT" in any case. Raises ConfigError when the secret is missing."""

    def __init__(self, strategy: str | None, secret: str | None) -> None:
        self.strategy = (strategy or "none").upper()
        if self.strategy not in ("NONE", "MAC", "ENCRYPT"):
            raise ConfigError(
                f"[keystone_authtoken] memcache_security_strategy: '{strategy}' is none of None, MAC, ENCRYPT"
            )
        if self.strategy != "NONE" and not secret:
            raise ConfigError(f"[keystone_authtoken] memcache_security_strategy = {strategy} needs memcache_secret_key")
        self._secret = (secret or "").encode()

    def keys(self, token: str) -> tuple[bytes, bytes]:
        """(name of the entry in the cache, key of its contents)."""
        if self.strategy == "NONE":
            return _PREFIX + b"n" + hashlib.sha256(token.encode()).hexdigest().encode(), b""
        info = b"xloud-image token cache 1 " + self.strategy.encode() + b"\0" + token.encode()
        derived = HKDF(hashes.SHA256(), 64, None, info).derive(self._secret)
        return _PREFIX + self.strategy[:1].lower().encode() + derived[:32].hex().encode(), derived[32:]

    def close(self, name: bytes, key: bytes, data: bytes) -> bytes:
        """`data` as it is stored under `name`."""
        if self.strategy == "MAC":
            return hmac.digest(key, name + b"\0" + data, "sha256") + data
        if self.strategy == "ENCRYPT":
            nonce = os.urandom(_NONCE)
            return nonce + AESGCM(key).encrypt(nonce, data, name)
        return data

    def open(self, name: bytes, key: bytes, stored: bytes) -> bytes | None:
        """What was given to `close`; None when somebody else wrote or changed it."""
        if self.strategy == "MAC":
            tag, data = stored[:_TAG], stored[_TAG:]
            return data if hmac.compare_digest(tag, hmac.digest(key, name + b"\0" + data, "sha256")) else None
        if self.strategy == "ENCRYPT":
            try:
                return AESGCM(key).decrypt(stored[:_NONCE], stored[_NONCE:], name)
            except (InvalidTag, ValueError):
                return None
        return stored

"""TLS to the database: the files that an address names, and what is made of them; which count is for `arguments`."""

from __future__ import annotations

import os
import ssl

from xloud_image.errors import ConfigError


def refused(text: str) -> ConfigError:
    """The sentence about an address that cannot be served."""
    return ConfigError(f"[database] connection: {text}")


def readable(name: str, path: str) -> None:
    """ConfigError when a file or directory that an argument names cannot be read."""
    try:
        if os.path.isdir(path):
            os.listdir(path)
        else:
            with open(path, "rb"):
                pass
    except OSError as error:
        raise refused(f"{name}={path} cannot be read: {error.strerror}") from None


def context(
    *,
    chain: bool,
    name: bool,
    ca: str | None,
    capath: str | None = None,
    cert: str | None,
    key: str | None,
    password: str | None,
    crl: str | None,
    cipher: str | None = None,
) -> ssl.SSLContext:
    """Made once for all connections. ConfigError: one of the files is not what it should be."""
    at = ca or capath
    try:
        made = ssl.create_default_context(cafile=ca, capath=capath)
        made.check_hostname = name
        made.verify_mode = ssl.CERT_REQUIRED if chain else ssl.CERT_NONE
        if crl:
            at = crl
            made.load_verify_locations(crl)
            made.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        if cert:
            at = f"{cert} with its key {key or cert}"
            made.load_cert_chain(cert, key, password=password or "")
        if cipher:
            at = "ssl_cipher"
            made.set_ciphers(cipher)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise refused(f"TLS: {at} cannot be used: {reason}") from None
    return made

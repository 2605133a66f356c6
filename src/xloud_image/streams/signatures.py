"""Signatures of images: what the properties img_signature… say, and a stage that verifies it. Where certificates come
from is not known here.

The signature is one of the data's digest, in the forms that Nova verifies: RSA-PSS (MGF1, the longest salt), DSA, and
ECDSA by the names of curves. Source: Image API reference, "Upload".
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime as dt
import re
from collections.abc import AsyncIterator, Mapping
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, utils

from xloud_image.errors import BadRequest
from xloud_image.streams.digest import Digest

NAMES: Final = (
    "img_signature",
    "img_signature_hash_method",
    "img_signature_key_type",
    "img_signature_certificate_uuid",
)
_METHODS: Final[Mapping[str, hashes.HashAlgorithm]] = {
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}
_CURVES: Final = ("SECT571K1", "SECT409K1", "SECT571R1", "SECT409R1", "SECP521R1", "SECP384R1")
_TYPES: Final = {"RSA-PSS": rsa.RSAPublicKey, "DSA": dsa.DSAPublicKey} | dict.fromkeys(
    (f"ECC_{curve}" for curve in _CURVES), ec.EllipticCurvePublicKey
)
_ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_LONGEST: Final = 16384  # characters of a signature


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """What the properties of an image say. `algorithm`: the digest, by the name that `hashlib` has for it."""

    value: bytes = dataclasses.field(repr=False)
    method: str
    key_type: str
    certificate: str

    @property
    def algorithm(self) -> str:
        return self.method.replace("-", "").lower()


def stated(properties: Mapping[str, str | None]) -> Signature | None:
    """The signature of an image that has all four properties; None: it is not signed. `BadRequest` for what can be no
    signature."""
    values = [properties.get(name) for name in NAMES]
    if not all(values):
        return None
    text, method, key_type, certificate = (value or "" for value in values)
    if method not in _METHODS:
        raise BadRequest(f"'img_signature_hash_method' must be one of {', '.join(_METHODS)}.")
    if key_type not in _TYPES:
        raise BadRequest(f"'img_signature_key_type' must be one of {', '.join(_TYPES)}.")
    if not _ID.fullmatch(certificate):
        raise BadRequest("'img_signature_certificate_uuid' is no id of a certificate.")
    try:
        value = base64.b64decode("".join(text[:_LONGEST].split()), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("'img_signature' is not written in base64.") from None
    return Signature(value, method, key_type, certificate)


def read(data: bytes) -> x509.Certificate:
    """A certificate (X.509) as files and key managers have it, in PEM or DER. `BadRequest`."""
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificate(data)
        return x509.load_der_x509_certificate(data)
    except (ValueError, UnsupportedAlgorithm):
        raise BadRequest("The certificate of the image's signature is no X.509 certificate.") from None


def require_valid(signature: Signature, certificate: x509.Certificate, now: dt.datetime | None = None) -> None:
    """`BadRequest` when the certificate does not count now (UTC), or its key is none of the kind that was stated."""
    now = now or dt.datetime.now(dt.UTC)
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        word = "has expired" if now > certificate.not_valid_after_utc else "does not count yet"
        raise BadRequest(f"The certificate {signature.certificate} of the image's signature {word}.")
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, _TYPES[signature.key_type]):
        raise BadRequest(f"The key of the certificate {signature.certificate} is none of type {signature.key_type}.")


def require(signature: Signature, certificate: x509.Certificate, digests: Mapping[str, str]) -> None:
    """`BadRequest` unless the data that has these digests (hex, by algorithm) was signed so with the key of this
    certificate, which was found valid."""
    digest, method = bytes.fromhex(digests[signature.algorithm]), _METHODS[signature.method]
    key, hashed = certificate.public_key(), utils.Prehashed(method)
    try:
        if isinstance(key, rsa.RSAPublicKey):
            form = padding.PSS(padding.MGF1(method), padding.PSS.MAX_LENGTH)
            key.verify(signature.value, digest, form, hashed)
        elif isinstance(key, dsa.DSAPublicKey):
            key.verify(signature.value, digest, hashed)
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature.value, digest, ec.ECDSA(hashed))
        else:
            raise InvalidSignature
    except (InvalidSignature, UnsupportedAlgorithm, ValueError):
        raise BadRequest("The data is not what was signed: img_signature does not fit it.") from None


class Verify:
    """A stage behind the digests, the last one: a store does not see the end of data that is not what was signed."""

    def __init__(self, digest: Digest, signature: Signature, certificate: x509.Certificate) -> None:
        self._digest, self._signature, self._certificate = digest, signature, certificate

    async def __call__(self, source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in source:
            yield chunk
        require(self._signature, self._certificate, await self._digest.hexes())

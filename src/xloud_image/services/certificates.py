"""Certificates of signed images: from the operator's directory, else from Barbican."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from xloud_image.errors import BadRequest, Conflict, Unavailable
from xloud_image.identity.context import Context
from xloud_image.model import Image
from xloud_image.services.runtime import Runtime
from xloud_image.streams import signatures
from xloud_image.streams.signatures import Signature

_ENDINGS: Final = ("", ".pem", ".crt", ".der")


@dataclasses.dataclass(frozen=True, slots=True)
class Seal:
    """What data has to fit: a signature, and the certificate of whoever signed."""

    signature: Signature
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


async def signed(runtime: Runtime, ctx: Context, image: Image, *, kept: Mapping[str, str] | None = None) -> Seal | None:
    """What the data of this image has to fit, None when it is not signed. `BadRequest` when the signature or its
    certificate does not count, `Unavailable` while the certificate cannot be had. kept: a certificate
    that was read before (`id`, `pem`)."""
    signature = signatures.stated(image.properties)
    if signature is None:
        return None
    known = kept is not None and kept["id"] == signature.certificate
    data = kept["pem"].encode() if kept and known else await _data(runtime, ctx, signature.certificate)
    certificate = signatures.read(data)
    signatures.require_valid(signature, certificate)
    return Seal(signature, certificate)


def require_same(image: Image, seal: Seal | None) -> None:
    """`Conflict` when the image, as it is under its lock, was signed anew since the certificate was read."""
    if signatures.stated(image.properties) != (None if seal is None else seal.signature):
        raise Conflict("The signature of the image was changed meanwhile; try again.")


async def _data(runtime: Runtime, ctx: Context, identity: str) -> bytes:
    directory = runtime.settings.signing.signature_certificates
    if directory is not None:
        found = await asyncio.to_thread(_of_directory, Path(directory), identity)
        if found is not None:
            return found
    if runtime.settings.auth.keystone is not None and ctx.token:
        return await runtime.barbican.certificate(identity, ctx.token)
    where = "the operator's directory has none of this id" if directory else "no certificates are kept here"
    raise BadRequest(
        f"The image has a signature (img_signature…) that cannot be verified: {where}. Remove one of these properties"
        " to upload without that check."
    )


def _of_directory(directory: Path, identity: str) -> bytes | None:
    for ending in _ENDINGS:
        try:
            return (directory / f"{identity}{ending}").read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        except OSError as error:
            raise Unavailable(f"The certificate of the image's signature cannot be read: {error.strerror}.") from None
    return None

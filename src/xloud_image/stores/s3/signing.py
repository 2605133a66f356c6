"""Signatures of S3 requests (AWS Signature Version 4), as the server's own documents define them. Nothing is sent here.

Thirty lines of HMAC instead of a library: the one that is kept for it brings the whole of AWS's service descriptions.
The tests compare every signature with that library's, and the real gateway verifies them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

EMPTY: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED: Final = "UNSIGNED-PAYLOAD"


@dataclasses.dataclass(frozen=True, slots=True)
class Keys:
    """Who signs. Never logged."""

    access: str = dataclasses.field(repr=False)
    secret: str = dataclasses.field(repr=False)


def escaped_query(query: Mapping[str, str]) -> str:
    """The query in its canonical form, which is also the one to be sent."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))


def signed(
    keys: Keys,
    region: str,
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    payload: str,
    *,
    at: float | None = None,
) -> dict[str, str]:
    """The headers to send: the given ones (`host` must be among them) by lower-case name, and those of the signature.

    `path` and `query` as they are sent; `payload`: hex SHA-256 of the body, or `UNSIGNED`; `at`: seconds since 1970.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    day = stamp[:8]
    all_headers = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    all_headers |= {"x-amz-date": stamp, "x-amz-content-sha256": payload}
    names = ";".join(sorted(all_headers))
    lines = [method, path, query, *(f"{name}:{all_headers[name]}" for name in sorted(all_headers)), "", names, payload]
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = b"AWS4" + keys.secret.encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode(), "sha256").hex()
    all_headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return all_headers

"""Where a bucket is: the URL of a request, the location of an object, and the key of any location ever written.

A location holds no credentials. Old ones do (`s3://access:secret@host/bucket/key`, the secret may hold `/`, `@` or
`%2F`), so they are taken apart from the right and what stands before the last `@` is thrown away unread.
"""

from __future__ import annotations

import dataclasses
import re
from urllib.parse import quote, urlsplit

from xloud_image.errors import BadRequest, ConfigError
from xloud_image.stores.base import plain_key

_AWS = ".amazonaws.com"
_REGION = re.compile(r"(?:^|[.])s3[.-](?:dualstack[.])?([a-z]{2}(?:-[a-z]+)+-\d+)[.]amazonaws[.]com")
_DNS_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_SCHEMES = {"s3": "http", "s3+http": "http", "s3+https": "https"}


@dataclasses.dataclass(frozen=True, slots=True)
class Address:
    """`host` with its port where that is not the scheme's own, `prefix` a path before the bucket (mostly empty).

    `virtual`: the bucket is a part of the host name, else of the path.
    """

    tls: bool
    host: str
    prefix: str
    bucket: str
    region: str
    virtual: bool

    @classmethod
    def of(cls, host: str, bucket: str, *, region: str = "", url_format: str = "auto") -> Address:
        """From the options of the same names. Without a scheme it is plain http; "auto" is virtual at AWS, else path.

        `ConfigError` names the option.
        """
        parts = urlsplit(host if "://" in host else f"http://{host}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise ConfigError("s3_store_host is a host, or http(s)://host[:port], without credentials")
        if not bucket or "/" in bucket:
            raise ConfigError("s3_store_bucket is the name of one bucket, without a slash")
        name = _bare(parts.scheme, parts.netloc)
        at_aws = (parts.hostname or "").endswith(_AWS)
        found = _REGION.search(parts.hostname or "")
        return cls(
            tls=parts.scheme == "https",
            host=name,
            prefix=parts.path.rstrip("/"),
            bucket=bucket,
            region=region or (found[1] if found else "us-east-1"),
            virtual=url_format == "virtual"
            or (url_format == "auto" and at_aws and _DNS_BUCKET.fullmatch(bucket) is not None),
        )

    def request(self, key: str) -> tuple[str, str]:
        """(the Host header, the path) of a request for an object, or for the bucket itself when `key` is empty."""
        tail = f"/{quote(key, safe='-_.~')}" if key else ""
        if self.virtual:
            return f"{self.bucket}.{self.host}", f"{self.prefix}{tail}" or "/"
        return self.host, f"{self.prefix}/{quote(self.bucket, safe='-_.~')}{tail}"

    @property
    def server(self) -> tuple[bool, str, str, str]:
        """What two buckets of one server have in common."""
        return self.tls, self.host, self.prefix, self.region

    def source(self, key: str) -> str:
        """The object as one to be copied from (`x-amz-copy-source`)."""
        return f"/{quote(self.bucket, safe='-_.~')}/{quote(key, safe='-_.~')}"

    @property
    def place(self) -> str:
        """host/bucket, what identifies the bucket."""
        return f"{self.host}{self.prefix}/{self.bucket}"

    def location(self, key: str) -> str:
        """The form that Glance with glance_store 5.7.0 and newer writes and reads."""
        return f"s3{'+https' if self.tls else ''}://{self.place}/{key}"

    def key_of(self, location: str) -> str | None:
        """The key of a location in this bucket, in any of its forms; None for any other."""
        scheme, found, rest = location.partition("://")
        if not found or scheme not in _SCHEMES or rest.count("/") < 2:
            return None
        place, _, key = rest.rpartition("/")
        place, _, bucket = place.rpartition("/")
        host, slash, prefix = place.rpartition("@")[2].partition("/")
        if f"{slash}{prefix}" != self.prefix or bucket != self.bucket or _bare(_SCHEMES[scheme], host) != self.host:
            return None
        try:
            return plain_key(key)
        except BadRequest:
            return None


def _bare(scheme: str, host: str) -> str:
    """The host in lower case, without the port that its scheme has anyway."""
    return host.lower().removesuffix({"http": ":80", "https": ":443"}[scheme])

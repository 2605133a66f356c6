"""Data on its way into an image, or to a URL. What breaks goes on: from where it was when the service can, else anew.
Reading and comparing is `data`'s.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from xloud_image import resuming
from xloud_image.client.cloud import OCTETS, Answered, Broken, Cloud, Image
from xloud_image.client.data import ATTEMPTS, Verified, digests_of
from xloud_image.errors import ConfigError, ImageServiceError, Unverified

if TYPE_CHECKING:
    import requests

_WORTH: Final = 8 << 20  # bytes from which on it costs less to ask where to go on than to send all of them again
DURABLE: Final = 3600.0  # seconds in which a server has made durable what was sent


class _Body:
    """A source as the body of a request, of unknown length."""

    def __init__(self, source: Verified) -> None:
        self._source = source

    def __iter__(self) -> Iterator[bytes]:
        return self._source.chunks()


class _SizedBody(_Body):
    """The same, with a length."""

    def __init__(self, source: Verified, size: int) -> None:
        super().__init__(source)
        self.len = size  # so `requests` asks


def _body(source: Verified) -> Any:
    if source.size == 0:
        source.digests.require()
        return b""
    return _Body(source) if source.size is None else _SizedBody(source, source.size)


def upload(cloud: Cloud, image_id: str, source: Verified, *, store: str | None = None, stage: bool = False) -> Image:
    """Give a queued image its data; `stage`: keep them for an import. The image as it is then.

    `Answered`: the service refuses it; `Broken`: it did not go on, and may be tried again; `Unverified`: the source, or
    what the service stored, is not what it should be.
    """
    path = f"/images/{image_id}/{'stage' if stage else 'file'}"
    if source.again and (source.size or 0) >= _WORTH and _in_parts(cloud, path, source, store):
        return _compared(cloud.image(image_id), source)
    _settled(cloud, image_id)  # another command may just have broken off
    failed = 0
    while True:
        before = source.digests.at
        try:
            _put(cloud, path, source, store)
            break
        except Broken as error:
            failed = 1 if source.digests.at > before else failed + 1
            if not source.again or failed >= ATTEMPTS:
                raise
            time.sleep(min(30.0, 0.25 * 2**failed))
            image = _settled(cloud, image_id)
            if image.get("status") == ("uploading" if stage else "active"):  # only the answer was lost
                return _compared(image, source)
            if image.get("status") != "queued":
                raise Broken(f"{error.message}; the image is {image.get('status')}") from None
    return _compared(cloud.image(image_id), source)


def _in_parts(cloud: Cloud, path: str, source: Verified, store: str | None) -> bool:
    """Send the data so that what is there stays there when it breaks, also for another process that goes on. False: the
    service does not offer it."""
    more = {"X-Image-Meta-Store": store} if store else {}
    digest = source.expected.get("sha512")
    try:
        resuming.upload(
            cloud.transport,
            cloud.url + path,
            cast("BinaryIO", _Readable(source)),
            headers=lambda: {**cloud.headers(), **more},
            size=source.size,
            digest=("sha-512", bytes.fromhex(digest)) if digest else None,
        )
    except resuming.NotOffered:
        return False
    except resuming.Refused as error:
        raise Answered(error.status, error.message) from None
    except resuming.GaveUp as error:
        raise Broken(error.message) from None
    except resuming.UploadError as error:
        raise Unfinished(error.message) from None
    return True


class Unfinished(ImageServiceError):
    """The image has an unfinished upload of other data."""


class _Readable(io.RawIOBase):
    """A source as a file that can be sought in."""

    def __init__(self, source: Verified) -> None:
        super().__init__()
        self._source = source
        self._at = 0  # where the next byte is read
        self._chunks: Iterator[bytes] | None = None
        self._rest = b""

    def seek(self, offset: int, whence: int = 0) -> int:
        assert whence == 0
        if offset != self._at:
            self._at, self._chunks, self._rest = offset, None, b""
        return offset

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        if self._chunks is None:
            self._chunks = self._source.chunks(self._at)
        parts, missing = [], size
        while missing:
            self._rest = self._rest or next(self._chunks, b"")
            if not self._rest:
                break
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        self._at += size - missing
        return b"".join(parts)


def _put(cloud: Cloud, path: str, source: Verified, store: str | None) -> None:
    headers = {"Content-Type": OCTETS}
    if store:
        headers["X-Image-Meta-Store"] = store
    if source.size:
        headers["x-openstack-image-size"] = str(source.size)
    how: dict[str, Any] = {} if source.again else {"allow_reauth": False}
    cloud.ask("PUT", path, data=_body(source), headers=headers, seconds=DURABLE, **how).close()


def _settled(cloud: Cloud, image_id: str) -> Image:
    """The image, once the service has noticed that an upload broke."""
    until = time.monotonic() + 60
    while True:
        try:
            image = cloud.image(image_id)
        except Broken:
            image = {"status": "saving"}
        if image.get("status") != "saving" or time.monotonic() > until:
            return image
        time.sleep(0.5)


def _compared(image: Image, source: Verified) -> Image:
    """`Unverified`: the service has other data than was read here."""
    if image.get("status") == "active":
        found = source.digests.require()
        for name, value in digests_of(image).items():
            if name in found and found[name] != value:
                raise Unverified(f"the service stored other data: its {name} is {value}, sent was {found[name]}")
    return image


def put_to_url(url: str, source: Verified) -> None:
    """Send data to a URL by PUT, as pre-signed addresses of object stores want it. `Broken`, `ConfigError` when the
    server refuses it. Neither tells the URL's query, which may be a secret."""
    import requests

    if source.size is None:
        raise ConfigError("the image has no size yet")
    failed = 0
    while True:
        before = source.digests.at
        try:
            with requests.put(url, data=_body(source), headers={"Content-Type": OCTETS}, timeout=(30, DURABLE),
                              allow_redirects=False, stream=True, auth=_nobody) as answer:  # fmt: skip
                if answer.status_code < 300:
                    return
                if answer.status_code < 500:
                    raise ConfigError(f"the server of the URL answers {answer.status_code}: it does not take the data")
            reason = f"the server of the URL answers {answer.status_code}"
        except requests.exceptions.InvalidURL:
            raise ConfigError("this is no URL") from None
        except requests.exceptions.RequestException as error:
            reason = f"the connection broke: {type(error).__name__}"
        failed = 1 if source.digests.at > before else failed + 1
        if failed >= ATTEMPTS:
            raise Broken(reason)
        time.sleep(min(30.0, 0.25 * 2**failed))


def _nobody(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """No login of ~/.netrc: the address is all."""
    return request


__all__ = ["put_to_url", "upload"]

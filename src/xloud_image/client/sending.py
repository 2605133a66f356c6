"""Data on its way into an image, or to a URL. What breaks goes on: from where it was when the service can, else anew.
Reading and comparing is `data`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from xloud_image.client.cloud import OCTETS, Broken, Cloud, Image
from xloud_image.client.data import ATTEMPTS, Verified, digests_of
from xloud_image.errors import ConfigError, Unverified

if TYPE_CHECKING:
    import requests

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


def _put(cloud: Cloud, path: str, source: Verified, store: str | None) -> None:
    headers = {"Content-Type": OCTETS}
    if store:
        headers["X-Image-Meta-Store"] = store
    if source.size:
        headers["x-openstack-image-size"] = str(source.size)
    how: dict[str, Any] = {} if source.again else {"allow_reauth": False}
    cloud.ask("PUT", path, data=_body(source), headers=headers, seconds=DURABLE, **how).close()


def _settled(cloud: Cloud, image_id: str) -> Image:
    """The image, once the service has noticed that the connection broke."""
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

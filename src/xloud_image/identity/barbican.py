"""Certificates from a key manager (Barbican), read with the caller's own token. Nothing is kept.

The service's account only finds the address in the catalogue. Not by castellan: it wants a configuration of the whole
process and a client library for what is two requests here, and blocks as well.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from typing import TYPE_CHECKING, Any, Final

from keystoneauth1 import adapter, exceptions

from xloud_image.errors import BadRequest, Unavailable
from xloud_image.identity.validator import connect, plugin

if TYPE_CHECKING:
    from xloud_image.config.settings import BarbicanSettings, KeystoneSettings

_LOG = logging.getLogger(__name__)

_TIME: Final = 10.0  # seconds for a request
_LARGEST: Final = 65536  # bytes of a certificate
_KINDS: Final = ("application/octet-stream", "text/plain", "application/pkix-cert")


class Barbican:
    """One per process; connects when it is first asked."""

    def __init__(self, settings: BarbicanSettings, keystone: KeystoneSettings) -> None:
        self._settings, self._keystone = settings, keystone
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._session: Any = None
        self._address: str | None = (settings.barbican_endpoint or "").rstrip("/") or None

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def certificate(self, identity: str, token: str) -> bytes:
        """The payload of a secret that the token's user may read. `BadRequest`: there is none, or not for him;
        `Unavailable`."""
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(4, "barbican")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(3 * _TIME):
                return await loop.run_in_executor(self._threads, self._read, identity, token)
        except TimeoutError:
            raise _away("no answer in time") from None

    # in a thread

    def _read(self, identity: str, token: str) -> bytes:
        try:
            if self._session is None:
                login = plugin(self._keystone)
                self._session = connect(self._keystone, login).session
                self._session.auth = login
            if self._settings.verify_ssl_path:
                self._session.verify = self._settings.verify_ssl_path
            elif not self._settings.verify_ssl:
                self._session.verify = False
            if self._address is None:
                self._address = self._found()
            secret = f"{self._address}/v1/secrets/{identity}"
            told = self._get(secret, token, "application/json").json()
            kind = (told.get("content_types") or {}).get("default", _KINDS[0])
            kind = kind.partition(";")[0].strip()
            answer = self._get(f"{secret}/payload", token, kind if kind in _KINDS else _KINDS[0])
        except exceptions.ClientException as error:
            _LOG.warning("Barbican: %s", error)
            raise _away("it does not answer") from None
        except (ValueError, AttributeError):
            raise _away("it answers with what cannot be read") from None
        if len(answer.content) > _LARGEST:
            raise BadRequest(f"The secret {identity} of the key manager is no certificate.")
        return bytes(answer.content)

    def _found(self) -> str:
        settings = self._settings
        found = adapter.Adapter(
            self._session,
            service_type="key-manager",
            interface=settings.barbican_endpoint_type,
            region_name=settings.barbican_region_name or self._keystone.region_name,
        ).get_endpoint()
        if not found:
            raise BadRequest(
                "The certificate of the image's signature cannot be read: the catalogue has no key manager."
            )
        return str(found).rstrip("/").removesuffix("/v1")

    def _get(self, url: str, token: str, kind: str) -> Any:
        answer = self._session.get(
            url,
            headers={"X-Auth-Token": token, "Accept": kind},
            authenticated=False,
            raise_exc=False,
            redirect=False,
            timeout=_TIME,
        )
        if answer.status_code in (400, 401, 403, 404, 406):
            raise BadRequest(
                "The key manager has no certificate of this id (img_signature_certificate_uuid) that you may read."
            )
        if answer.status_code != 200:
            raise _away(f"it answers {answer.status_code}")
        return answer


def _away(why: str) -> Unavailable:
    return Unavailable(f"The key manager (Barbican) cannot be asked for the certificate now: {why}; try again.")

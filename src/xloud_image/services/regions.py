"""Images of other regions' image services, read with their callers' tokens: the import method glance-download.

Where the other service is says the catalogue of Keystone, asked with the caller's token when he asks for the import.
The token is kept in the job until that ends, readable for who has the service's own password, which never leaves the
configuration. Both requests, for the image and for its data, pass the lists of [import_filtering_opts]; a redirect to
another server does not get the token.
"""

from __future__ import annotations

import base64
import dataclasses
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson

from xloud_image.config.settings import KeystoneSettings
from xloud_image.errors import BadRequest, Conflict, SourceRefused, StoreRefused, StoreUnavailable, Unavailable
from xloud_image.fetching.checksums import Expected
from xloud_image.fetching.fetcher import Fetcher
from xloud_image.fetching.resource import Resource
from xloud_image.identity.context import Context
from xloud_image.identity.seal import Seal
from xloud_image.model import Job
from xloud_image.schemas import BASE, READ_ONLY, RESERVED, RESERVED_PREFIX
from xloud_image.services import fetching
from xloud_image.services.runtime import Runtime
from xloud_image.services.unpacking import storable
from xloud_image.stores.kit.keystone import Catalogue, ask_keystone, identity_url
from xloud_image.stores.kit.web import Web

_INTERFACES: Final = ("public", "internal", "admin")
_IMAGE: Final = 4 << 20  # bytes of what is said of an image
_SECRETS: Final = ("password", "application_credential_secret")


@dataclasses.dataclass(frozen=True, slots=True)
class Remote:
    """An image of another region, open: `expected`, the digest that its data has there; `properties`: those to copy."""

    resource: Resource
    expected: tuple[Expected, ...]
    properties: Mapping[str, str]


def require(details: Mapping[str, Any]) -> None:
    """`BadRequest` for details of which no image can be found."""
    for name in ("glance_region", "glance_image_id"):
        if not details.get(name):
            raise BadRequest(f"The method glance-download needs '{name}'.")
    try:
        uuid.UUID(details["glance_image_id"])
    except ValueError:
        # clients look for these words
        raise BadRequest("'glance_image_id': image id does not look like a UUID.") from None


async def service(runtime: Runtime, ctx: Context, details: Mapping[str, Any]) -> str:
    """The URL of the image service of the region. `BadRequest`: the caller's catalogue has none, or it is refused."""
    keystone = _keystone(runtime)
    interface = details.get("glance_service_interface", "public")
    if interface not in _INTERFACES:
        raise BadRequest(f"'glance_service_interface' is one of {', '.join(_INTERFACES)}.")
    catalogue = Catalogue("image", interface, details["glance_region"], None, "name another one")
    web = Web("of Keystone", ca_file=keystone.cafile, insecure=keystone.insecure, idle=keystone.http_connect_timeout)
    try:
        status, _, body = await ask_keystone(
            web, "GET", f"{identity_url(keystone.auth.get('auth_url', ''))}/auth/catalog", token=ctx.token
        )
        if status != 200:
            raise BadRequest(f"The identity service does not say where other regions are: it answers {status}.")
        found = catalogue.find((body or {}).get("catalog"), ctx.project or "")
    except StoreRefused as error:
        raise BadRequest(f"{error.message[:1].upper()}{error.message[1:]}.") from None
    except StoreUnavailable as error:
        raise Unavailable(error.message) from None
    finally:
        await web.aclose()
    found = re.sub(r"/v\d+(\.\d+)?\Z", "", found.rstrip("/"))
    async with fetcher(runtime) as way:
        way.require(found, trusted=True)
    return found


def fetcher(runtime: Runtime) -> Fetcher:
    """The way to other regions; enter it. Their certificates are those of Keystone."""
    keystone = _keystone(runtime)
    return fetching.fetcher(runtime, ca_file=keystone.cafile, insecure=keystone.insecure)


def sealed(runtime: Runtime, job_id: str, token: str | None) -> str:
    """The caller's token as it is kept in the job."""
    seal, name, key = _seal(runtime, job_id)
    return base64.b64encode(seal.close(name, key, (token or "").encode())).decode()


def _token(runtime: Runtime, job: Job) -> str:
    seal, name, key = _seal(runtime, job.id)
    token = seal.open(name, key, base64.b64decode(job.request["token"]))
    if token is None:
        raise Conflict("The password of the service was changed since this import was asked for; ask for it again.")
    return token.decode()


def _seal(runtime: Runtime, job_id: str) -> tuple[Seal, bytes, bytes]:
    auth = _keystone(runtime).auth
    secret = next((auth[name] for name in _SECRETS if auth.get(name)), None)
    if secret is None:
        raise Conflict("glance-download is not possible here: the service has no password of its own in Keystone.")
    seal = Seal("ENCRYPT", secret)
    return seal, *seal.keys(f"job {job_id}")


def _keystone(runtime: Runtime) -> KeystoneSettings:
    found = runtime.settings.auth.keystone
    if found is None:
        raise Conflict("glance-download is not possible here: logins are not Keystone's.")
    return found


def _is_ours(name: str) -> bool:
    """Whether no client may give an image a property of this name."""
    return name in BASE or name in READ_ONLY or name in RESERVED or name.startswith(RESERVED_PREFIX)


@asynccontextmanager
async def opened(runtime: Runtime, job: Job) -> AsyncIterator[Remote]:
    """The image that a job imports. What the fetcher raises; `SourceRefused` when it is no image with data."""
    details = job.request["details"]
    if job.request["service"] is None:
        raise SourceRefused(job.request["why"])
    url = f"{job.request['service']}/v2/images/{uuid.UUID(details['glance_image_id'])}"
    headers = {"X-Auth-Token": _token(runtime, job)}
    async with fetcher(runtime) as way:
        async with way.open(url, trusted=True, plain=True, most=_IMAGE, headers=headers) as shown:
            said = b"".join([chunk async for chunk in shown.chunks()])
        try:
            image = orjson.loads(said)
            status, algorithm, value = image["status"], image.get("os_hash_algo"), image.get("os_hash_value")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SourceRefused("what the service of the region says is no image") from None
        if status != "active":
            raise SourceRefused("the image of the region is not active")
        try:
            expected = (Expected(algorithm, value),) if algorithm and value else ()
        except BadRequest:
            raise SourceRefused("what the service of the region says is no image") from None
        prefixes = runtime.settings.imports.download_properties
        copied = {
            name: text
            for name, text in image.items()
            if isinstance(text, str) and any(name.startswith(prefix) for prefix in prefixes) and not _is_ours(name)
        }
        async with way.open(f"{url}/file", trusted=True, plain=job.attempts > 1, headers=headers) as resource:
            yield Remote(resource, expected, storable(copied))

"""Keystone, for backends of services that take its tokens: its address, and one question. Which token, and for whom, is
the backend's business; who may call this service is `identity`'s.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from xloud_image.errors import StoreUnavailable
from xloud_image.stores.kit.web import Web


def identity_url(address: str) -> str:
    """Keystone's URL with version 3, whichever version or none was written."""
    address = address.strip().rstrip("/")
    if "://" not in address:
        address = f"https://{address}"
    base = re.sub(r"/v(2[.]0|3)\Z", "", address)
    return f"{base}/v3"


async def ask_keystone(
    web: Web, method: str, url: str, body: Any = None, *, token: str | None = None
) -> tuple[int, Mapping[str, str], Any]:
    """(status, headers, decoded body); `StoreUnavailable` naming the identity service when it does not answer."""
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token is not None:
        headers["X-Auth-Token"] = token
    data = None if body is None else json.dumps(body).encode()
    try:
        async with asyncio.timeout(web.idle), web.request(method, url, headers=headers, data=data) as response:
            text = await response.read()
            decoded = json.loads(text) if text and response.status < 300 else {}
            return response.status, response.headers, decoded
    except (StoreUnavailable, TimeoutError) as error:
        why = error.message.rpartition(": ")[2] if isinstance(error, StoreUnavailable) else "no answer in time"
        raise StoreUnavailable(f"store {web.name}: its identity service does not answer: {why}") from error
    except ValueError as error:
        raise StoreUnavailable(f"store {web.name}: what answers as identity service is none") from error


def seconds(when: str) -> float:
    """A time as tokens have it, as Unix time."""
    return datetime.fromisoformat(when).timestamp()

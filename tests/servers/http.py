"""Plain HTTP requests for tests, as a simple client would send them. No waiting in an event loop here."""

import http.client
import json as json_module
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """`headers` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json_module.loads(self.body)


def request(
    method: str,
    url: str,
    *,
    json: Any = None,
    body: bytes | Iterable[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 60,
) -> Answer:
    """One request on a connection of its own; any status is an answer.

    `body`: an iterable is sent chunked. `json` is sent as application/json unless a header says otherwise.
    """
    sent = {name.lower(): value for name, value in (headers or {}).items()}
    if json is not None:
        body = json_module.dumps(json).encode()
        sent.setdefault("content-type", "application/json")
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=seconds)
    try:
        target = parts.path or "/"
        chunked = body is not None and not isinstance(body, bytes) and "content-length" not in sent
        if chunked:
            sent["transfer-encoding"] = "chunked"
        connection.request(
            method,
            f"{target}?{parts.query}" if parts.query else target,
            body=body,
            headers=sent,
            encode_chunked=chunked,
        )
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()

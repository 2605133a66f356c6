"""What bad, broken and hostile requests get: an answer of 4xx with a sentence, soon, and nothing is left of them.

Against the real service, by raw sockets and by the real clients.
"""

from typing import Any

from tests.api import raw
from tests.servers.service import Service

OCTETS = "Content-Type: application/octet-stream"
CLOSE = "Connection: close"
STALL = 2  # client_socket_timeout of the service of these tests, seconds


def new(service: Service, disk_format: str = "raw", **fields: Any) -> str:
    """The id of a queued image."""
    body = {"disk_format": disk_format, "container_format": "bare", **fields}
    answer = service.request("POST", "/v2/images", json=body)
    assert answer.status == 201, answer.body
    return str(answer.json()["id"])


def upload(service: Service, image: str, *headers: str, close: bool = True) -> bytes:
    """The head of an upload."""
    return raw.head("PUT", f"/v2/images/{image}/file", OCTETS, *headers, *([CLOSE] if close else []))

"""Reading a certificate from a key manager: the two calls, whose token goes along, and what each answer means. The
server is an imitation of these two calls of Barbican, which answers as told."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from xloud_image.config.settings import BarbicanSettings, KeystoneSettings
from xloud_image.errors import BadRequest, Unavailable
from xloud_image.identity.barbican import Barbican

PAYLOAD = b"-----BEGIN CERTIFICATE-----\n"
KEYSTONE = KeystoneSettings(auth={"auth_url": "http://127.0.0.1:9/v3", "username": "a", "password": "a"})


class Imitation:
    """`kind`: the content type of the secret; `status`: of every answer but the good ones."""

    def __init__(self) -> None:
        self.kind, self.status, self.url, self.payload = "application/octet-stream", 200, "", PAYLOAD
        self.asked: list[tuple[str, str | None, str | None]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("X-Auth-Token"), request.headers.get("Accept")))
        if self.status != 200:
            return web.Response(status=self.status, headers={"Location": "http://127.0.0.1:9/"})
        if request.path.endswith("/payload"):
            if request.headers["Accept"] != self.kind:
                return web.Response(status=406)
            return web.Response(body=self.payload, content_type=self.kind)
        kinds: dict[str, Any] = {"content_types": {"default": self.kind}}
        return web.json_response(kinds)


@pytest.fixture
async def server() -> AsyncIterator[Imitation]:
    imitation = Imitation()
    app = web.Application()
    app.router.add_get("/{path:.*}", imitation.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    imitation.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    yield imitation
    await runner.cleanup()


@pytest.fixture
async def barbican(server: Imitation) -> AsyncIterator[Barbican]:
    made = Barbican(BarbicanSettings(barbican_endpoint=server.url), KEYSTONE)
    yield made
    await made.aclose()


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain"])
async def test_the_payload(server: Imitation, barbican: Barbican, kind: str) -> None:
    server.kind = kind
    assert await barbican.certificate("c1", "users") == PAYLOAD
    assert server.asked == [
        ("/v1/secrets/c1", "users", "application/json"),
        ("/v1/secrets/c1/payload", "users", kind),
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406])
async def test_what_may_not_be_read(server: Imitation, barbican: Barbican, status: int) -> None:
    server.status = status
    with pytest.raises(BadRequest, match="no certificate of this id"):
        await barbican.certificate("c1", "users")


@pytest.mark.parametrize("status", [302, 500, 503])
async def test_what_fails_now(server: Imitation, barbican: Barbican, status: int) -> None:
    server.status = status
    with pytest.raises(Unavailable):
        await barbican.certificate("c1", "users")
    assert len(server.asked) == 1


async def test_a_secret_that_is_no_certificate(server: Imitation, barbican: Barbican) -> None:
    server.payload = bytes(65537)
    with pytest.raises(BadRequest, match="is no certificate"):
        await barbican.certificate("c1", "users")


async def test_away() -> None:
    barbican = Barbican(BarbicanSettings(barbican_endpoint="http://127.0.0.1:9"), KEYSTONE)
    with pytest.raises(Unavailable, match=r"it does not answer; try again\.") as told:
        await barbican.certificate("c1", "users")
    assert "users" not in str(told.value)
    await barbican.aclose()

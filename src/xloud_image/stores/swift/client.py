"""Requests to Swift with a token that is renewed, bounded in time, and its refusals as the errors of the contract.

A body is announced (`Expect: 100-continue`), so a refusal comes before its first byte: a token that has just ended
costs one more question and no byte of a source that cannot be rewound.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from xloud_image.errors import ImageServiceError, StoreFull, StoreRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.kit.keystone import Grant
from xloud_image.stores.kit.sentences import no_data
from xloud_image.stores.kit.web import Outgoing, Web, wind
from xloud_image.stores.swift.accounts import Access

_SMALL: Final = 8 << 20  # bytes of an answer that is no image: a listing of `PAGE` names is under 4 MiB
PAGE: Final = 1000  # names of a listing asked for at once
_OLD_SEGMENT: Final = re.compile(r"-[0-9]{5}\Z")
_NEVER: Final = frozenset({400, 405, 411, 414, 431, 501, 505})  # what stays refused however often it is asked
_AT_ONCE: Final = 8  # small requests of one operation under way


class Body(Outgoing):
    """A source as the body of a request. While Swift is waited for, `limit` runs; while the source is, it does not.

    One chunk is held back: the last one goes out only when the source has ended well, so a body that is too long is
    never sent whole. `begun`: the source was asked; `ended`: it has ended well.
    """

    begun = False
    ended = False
    limit: asyncio.Timeout | None = None
    idle: float = 60.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        wind(self.limit, None)
        held = b""
        async for chunk in super().__aiter__():
            if held:
                wind(self.limit, self.idle)
                yield held
                wind(self.limit, None)
            held = chunk
        self.ended = True
        wind(self.limit, self.idle)
        if held:
            yield held


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A whole small answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def ok(self) -> bool:
        return self.status < 300

    def json(self) -> Any:
        return json.loads(self.body)


class Container:
    """A container in the account of `access`, over the connections of one store; `name` "": the account itself.
    Containers and objects are named as they are, not percent-encoded."""

    def __init__(self, web: Web, access: Access, name: str) -> None:
        self.store, self.access, self.name = web.name, access, name
        self._web = web

    def beside(self, name: str) -> Container:
        """Another container of the account."""
        return Container(self._web, self.access, name)

    @contextlib.asynccontextmanager
    async def answer(
        self,
        method: str,
        name: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | Body | None = None,
        patience: float | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status, for handing on. After a 401 once more with a new token. `patience`: seconds
        for the server to say something, the store's own when None."""
        grant = await self.access.grant()
        one = functools.partial(self._one, method, name, query, headers, data, patience)
        async with contextlib.AsyncExitStack() as stack:
            response = await stack.enter_async_context(one(grant))
            begun = isinstance(data, Body) and data.begun
            if response.status == 401 and not begun:
                await stack.aclose()
                response = await stack.enter_async_context(one(await self.access.grant(grant)))
            yield response

    @contextlib.asynccontextmanager
    async def _one(
        self,
        method: str,
        name: str | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        data: bytes | Body | None,
        patience: float | None,
        grant: Grant,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        sent = {"Accept": "application/json", **(headers or {})}
        if grant.token:
            sent["X-Auth-Token"] = grant.token
        limit = asyncio.timeout(patience or self._web.idle)
        more: dict[str, Any] = {}
        if isinstance(data, Body):
            data.limit, data.idle, more["expect100"] = limit, patience or self._web.idle, True
            sent.setdefault("Content-Type", "application/octet-stream")
        url = address(grant.url, self.name, name, query)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with limit:
                    response = await stack.enter_async_context(
                        self._web.answer(method, url, headers=sent, data=data, **more)
                    )
            except TimeoutError:
                raise StoreUnavailable("it does not answer: no answer in time") from None
            finally:
                if isinstance(data, Body):
                    data.limit = None
            yield response

    async def ask(self, method: str, name: str | None = None, **more: Any) -> Answer:
        """The whole answer, whatever its status."""
        async with self.answer(method, name, **more) as response:
            try:
                async with asyncio.timeout(more.get("patience") or self._web.idle):
                    body = bytearray()
                    async for chunk in self._web.chunks(response):
                        body += chunk
                        if len(body) > _SMALL:
                            raise StoreUnavailable("an answer of Swift is too long")
            except TimeoutError:
                raise StoreUnavailable("it does not answer: no answer in time") from None
            return Answer(response.status, response.headers, bytes(body))

    async def done(self, method: str, name: str | None = None, **more: Any) -> Answer:
        """As `ask`; a status that is none of success is raised as `failure` has it."""
        answer = await self.ask(method, name, **more)
        if not answer.ok:
            raise self.failure(answer.status)
        return answer

    async def names(self, prefix: str, *, delimiter: str | None = None) -> AsyncIterator[str]:
        """Objects (of the account: containers) whose names begin so and hold no `delimiter` after it; none when the
        container is missing."""
        marker = ""
        query = {"format": "json", "prefix": prefix, "limit": str(PAGE)}
        if delimiter:
            query["delimiter"] = delimiter
        while True:
            found = await self.ask("GET", query={**query, "marker": marker}, headers={"X-Newest": "true"})
            if found.status == 404:
                return
            if not found.ok:
                raise self.failure(found.status)
            page = found.json()
            for entry in page:
                if "name" in entry:
                    yield str(entry["name"])
            if len(page) < PAGE:
                return
            marker = str(page[-1].get("name") or page[-1]["subdir"])

    async def remove(self, names: Iterable[str]) -> None:
        """Delete plain objects, several at once; missing ones are fine. Raises the first failure, at the end."""
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> ImageServiceError | None:
            async with slots:
                try:
                    answer = await self.ask("DELETE", name)
                except ImageServiceError as error:
                    return error
                return None if answer.ok or answer.status == 404 else self.failure(answer.status)

        failures = [error for error in await asyncio.gather(*map(one, names)) if error is not None]
        if failures:
            raise failures[0]

    def failure(self, status: int) -> ImageServiceError:
        """What a status means that the caller of a request did not expect."""
        if status in (401, 403):
            return StoreRefused(
                f"Swift does not allow it ({status}): the account needs a role of Swift's"
                " operator_roles in its project, or an ACL of the container"
            )
        if status == 404:
            return no_data()
        if status in (413, 507):
            return StoreFull(
                "it takes no more data"
                + (": a quota of the account or container is used up, or the object is too large" * (status == 413))
            )
        if status in _NEVER:
            return StoreRefused(
                f"Swift, or what stands before it, does not take this request ({status}): asking"
                " again cannot help; see its log"
            )
        return StoreUnavailable(f"Swift fails now ({status})")

    def denied(self) -> WriteDenied:
        """The container is missing and may not be made."""
        return WriteDenied(
            f"the container {self.name} is missing: make it, or set swift_store_create_container_on_put = True"
        )


def address(storage: str, container: str, name: str | None, query: Mapping[str, str] | None) -> URL:
    """The URL of a request; container "" is the account."""
    url = URL(storage, encoded=True)
    for part in (container, name):
        if part:
            # one segment at a time, but names of segments hold slashes
            url = url.joinpath(*part.split("/"), encoded=False)
    return url.with_query(dict(query)) if query else url

"""A connection between a store and its real server that a test can cut. In the event loop of the test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit


class Cutter:
    """Forwards to `upstream` (an http URL). `up`, `down`: bytes of one connection after which it is cut, None never.
    `times`: how many connections are cut, then they are let through."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self.up: int | None = None
        self.down: int | None = None
        self.times = 1
        self.cuts = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        """Listen, at the same port as before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Nobody listens any more, and what was open is cut."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, answers = await asyncio.open_connection(self._host, self._port)
        both = {writer, answers}
        self._writers |= both
        try:
            await asyncio.gather(self._pump(reader, answers, both, "up"), self._pump(there, writer, both, "down"))
        finally:
            self._writers -= both
            for one in both:
                one.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        way: str,
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                limit = self.up if way == "up" else self.down
                if limit is not None and passed + len(chunk) > limit and self.cuts < self.times:
                    writer.write(chunk[: limit - passed])
                    await writer.drain()
                    self.cuts += 1
                    for one in both:
                        one.transport.abort()
                    return
                passed += len(chunk)
                writer.write(chunk)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


@contextlib.asynccontextmanager
async def cutter(upstream: str) -> AsyncIterator[Cutter]:
    """One that listens."""
    one = Cutter(upstream)
    await one.open()
    try:
        yield one
    finally:
        await one.close()

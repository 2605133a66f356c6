"""A way to a real HTTP server that spoils chosen requests: not sent on, answer lost, damaged, broken off."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from types import TracebackType

from tests.servers.place import HOST


class Meddler:
    """Listens on `port` of the test host and hands each request to the server behind, on a connection of its own.

    `fate(number, line)` is asked for each, with its number from 1 and its first line: "pass"; "refuse": closed
    unsent; "lose": sent on, the answer is not handed back; "damage": one byte of the body is changed;
    "break:N": closed after N bytes of the answer; "stall": no answer until the end; "status:N": answered with that
    status, unsent; "whole": sent on without its range; "part": as "whole", and the answer called 206 without saying
    of what; "called200": the answer to a range called 200. `lines` is what came.
    """

    def __init__(self, port: int, tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None) -> None:
        """`tls`: contexts as a server and as a client of the one behind; None: both sides are plain."""
        self._behind = port
        self._here, self._there = tls or (None, None)
        self.fate: Callable[[int, str], str] = lambda number, line: "pass"
        self.lines: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    async def __aenter__(self) -> "Meddler":
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=1 << 20, ssl=self._here)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._one(reader, writer)
        writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").rstrip().split("\r\n")
        self.lines.append(line)
        fate = self.fate(len(self.lines), line)
        length = next((int(h.partition(":")[2]) for h in headers if h.lower().startswith("content-length:")), 0)
        if any(header.lower().startswith("expect:") for header in headers):
            headers = [header for header in headers if not header.lower().startswith("expect:")]
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
        body = bytearray(await reader.readexactly(length))
        if fate == "refuse":
            return
        if fate.startswith("status:"):
            status = fate.removeprefix("status:")
            writer.write(f"HTTP/1.1 {status} Odd\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            return
        if fate in ("whole", "part"):
            headers = [header for header in headers if not header.lower().startswith("range:")]
        if fate == "damage" and body:
            body[len(body) // 2] ^= 1
        behind, into = await asyncio.open_connection(HOST, self._behind, ssl=self._there)
        try:
            kept = [header for header in headers if not header.lower().startswith("connection:")]
            into.write("\r\n".join([line, *kept, "Connection: close", "", ""]).encode("latin-1") + body)
            await into.drain()
            left = int(fate.removeprefix("break:")) if fate.startswith("break:") else 1 << 62
            while left and (data := await behind.read(65536)):
                if fate == "lose":
                    continue
                if fate == "stall":
                    await asyncio.sleep(3600)
                if fate == "called200":
                    data, fate = data.replace(b" 206 ", b" 200 ", 1), "pass"
                if fate == "part":
                    data, fate = data.replace(b" 200 ", b" 206 ", 1), "whole"
                writer.write(data[:left])
                left -= min(left, len(data))
                await writer.drain()
            if left and writer.can_write_eof():
                writer.write_eof()
            elif left:
                writer.close()
                await writer.wait_closed()
        finally:
            into.transport.abort()

"""A web server that answers each path `/MODE/…` in the way that its mode says: what servers out there do to clients.

It speaks in bytes, without an HTTP library that would keep it from being odd. A mode is a method of `OddWeb`.
"""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Mapping
from email.message import Message
from email.parser import BytesParser

from tests.servers.place import private_address

TAG = b'"one"'
CHANGED = b"Wed, 21 Oct 2015 07:28:00 GMT"


class OddWeb:
    """Gives `data`. `seen`: the requests, as (mode, method, headers). `sent`: bytes of the latest endless answer."""

    def __init__(self, data: bytes, *, host: str | None = None, pause: float = 0.3) -> None:
        self.data = data
        self.host = host or private_address()
        self.seen: list[tuple[str, str, Message]] = []
        self.sent = 0
        self._pause = pause
        self._count = 0
        self._listener = socket.create_server(
            (self.host, 0), family=socket.AF_INET6 if ":" in self.host else socket.AF_INET, backlog=64
        )
        self.port: int = self._listener.getsockname()[1]
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def origin(self) -> str:
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"

    def url(self, mode: str, name: str = "image.raw") -> str:
        """Where the file lies in a mode."""
        return f"{self.origin}/{mode}/{name}"

    def asked(self, mode: str) -> list[str]:
        """The methods of the requests so far in a mode, `GET-range` with a range."""
        return [
            f"{method}-range" if "Range" in headers else method for name, method, headers in self.seen if name == mode
        ]

    def close(self) -> None:
        """Listen no more."""
        self._closing = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(30)
            head = b""
            while b"\r\n\r\n" not in head:
                got = connection.recv(65536)
                if not got:
                    return
                head += got
            line, _, rest = head.partition(b"\r\n")
            method, path, _ = line.decode().split(" ")
            headers = BytesParser().parsebytes(rest, headersonly=True)
            mode = path.split("/")[1]
            self.seen.append((mode, method, headers))
            getattr(self, mode)(connection, method, headers, path)

    def _answer(
        self,
        connection: socket.socket,
        method: str,
        status: str,
        headers: Mapping[str, object] | None = None,
        body: bytes = b"",
        *,
        first: str = "HTTP/1.1",
        length: bool = True,
    ) -> None:
        lines = [f"{first} {status}".encode(), b"Connection: close"]
        if length and "Content-Length" not in (headers or {}):
            lines.append(f"Content-Length: {len(body)}".encode())
        for name, value in (headers or {}).items():
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else str(value).encode()))
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if method == "HEAD" else body))

    def _good(
        self, connection: socket.socket, method: str, headers: Message, extra: Mapping[str, object] | None = None
    ) -> None:
        """As a server should: HEAD, GET, ranges."""
        told: dict[str, object] = {"ETag": TAG, "Last-Modified": CHANGED, "Accept-Ranges": "bytes", **(extra or {})}
        wanted = headers.get("Range")
        if wanted is None or method == "HEAD":
            self._answer(connection, method, "200 OK", told, self.data)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(self.data)), len(self.data) - 1)
        if start >= len(self.data):
            told["Content-Range"] = f"bytes */{len(self.data)}"
            self._answer(connection, method, "416 Range Not Satisfiable", told)
            return
        told["Content-Range"] = f"bytes {start}-{end}/{len(self.data)}"
        self._answer(connection, method, "206 Partial Content", told, self.data[start : end + 1])

    # the modes

    def good(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._good(connection, method, headers)

    def _head(self, status: str, connection: socket.socket, method: str, headers: Message) -> None:
        if method == "HEAD":
            self._answer(connection, method, status)
        else:
            self._good(connection, method, headers)

    def head403(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._head("403 Forbidden", connection, method, headers)  # an address that was signed for GET

    def head404(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._head("404 Not Found", connection, method, headers)

    def head405(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._head("405 Method Not Allowed", connection, method, headers)

    def head500(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._head("500 Internal Server Error", connection, method, headers)

    def headcut(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if method != "HEAD":
            self._good(connection, method, headers)

    def r206none(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" in headers and method == "GET":
            self._answer(connection, method, "206 Partial Content", {"ETag": TAG}, self.data)
        else:
            self._good(connection, method, headers)

    def r200part(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" not in headers or method != "GET":
            self._good(connection, method, headers)
            return
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(self.data)), len(self.data) - 1)
        told = {"ETag": TAG, "Content-Range": f"bytes {start}-{end}/{len(self.data)}"}
        self._answer(connection, method, "200 OK", told, self.data[start : end + 1])

    def r416(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" in headers:
            self._answer(connection, method, "416 Range Not Satisfiable")
        else:
            self._good(connection, method, headers)

    def r416told(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" in headers:
            told = {"Content-Range": f"bytes */{len(self.data)}"}
            self._answer(connection, method, "416 Range Not Satisfiable", told)
        else:
            self._good(connection, method, headers)

    def r501(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" in headers:
            self._answer(connection, method, "501 Not Implemented")
        else:
            self._good(connection, method, headers)

    def rangeignored(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"ETag": TAG}, self.data)

    def wrongstart(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" in headers:
            told = {"Content-Range": f"bytes 1-{len(self.data) - 1}/{len(self.data)}"}
            self._answer(connection, method, "206 Partial Content", told, self.data[1:])
        else:
            self._good(connection, method, headers)

    def multipart(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Range" in headers:
            part = b"--x\r\nContent-Range: bytes 0-1/10\r\n\r\n..\r\n--x--\r\n"
            self._answer(
                connection, method, "206 Partial Content", {"Content-Type": "multipart/byteranges; boundary=x"}, part
            )
        else:
            self._good(connection, method, headers)

    def parts(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        """A part although the whole was asked for."""
        told = {"Content-Range": f"bytes 0-9/{len(self.data)}"}
        self._answer(connection, method, "206 Partial Content", told, self.data[:10])

    def tag(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._good(connection, method, headers, {"ETag": b'"\xff\xfe"'})

    def changed(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Last-Modified": b"\xc3\x28\xff"}, self.data)

    def longtag(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._good(connection, method, headers, {"ETag": b'"' + b"\xff" * 8000 + b'"'})

    def weak(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._good(connection, method, headers, {"ETag": b'W/"one"'})

    def changing(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._count += 1
        self._good(connection, method, headers, {"ETag": f'"{self._count}"'})

    def chunked(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (self.data[:7], self.data[7:]) if part)
        told = {"Transfer-Encoding": "chunked"}
        self._answer(connection, method, "200 OK", told, body + b"0\r\n\r\n", length=False)

    def http10(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {}, self.data, first="HTTP/1.0", length=False)

    def packed(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Encoding": "gzip"}, gzip.compress(self.data))

    def page(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        told = {"Content-Type": "text/html; charset=utf-8"}
        self._answer(connection, method, "200 OK", told, b"<html>Sorry, this file is not here any more.</html>")

    def _redirect(self, connection: socket.socket, method: str, place: str) -> None:
        self._answer(connection, method, "302 Found", {"Location": place})

    def chain(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        left = int(path.split("/")[2][:1]) if path.split("/")[2][:1].isdigit() else 5
        self._redirect(connection, method, f"/chain/{left - 1}" if left > 1 else "/good/image.raw")

    def loop(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._redirect(connection, method, path)

    def tofile(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._redirect(connection, method, "file:///etc/passwd")

    def tonode(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._redirect(connection, method, "http://127.0.0.1:1/")

    def tometadata(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._redirect(connection, method, "http://169.254.169.254/latest/meta-data/")

    def toblank(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._redirect(connection, method, "/blank/an image.raw")

    def blank(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if path == "/blank/an%20image.raw":
            self._good(connection, method, headers)
        else:
            self._answer(connection, method, "404 Not Found")

    def cookies(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        if "Cookie" in headers:
            self._good(connection, method, headers)
        else:
            self._answer(connection, method, "302 Found", {"Location": path, "Set-Cookie": "seen=1"})

    def slowheaders(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        """A line now and then, and never the last one."""
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not self._closing:
            time.sleep(self._pause)
            connection.sendall(b"X-Slow: yes\r\n")

    def slowbody(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Length": len(self.data)}, b"x")
        while method == "GET" and not self._closing:
            time.sleep(self._pause)
            connection.sendall(b"x")

    def _endless(self, connection: socket.socket, start: bytes, piece: bytes) -> None:
        self.sent = 0
        connection.sendall(start)
        while self.sent < 3 << 30:
            connection.sendall(piece)
            self.sent += len(piece)

    def endlessheaders(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._endless(
            connection, b"HTTP/1.1 200 OK\r\n", b"".join(b"X-%d: %s\r\n" % (n, b"x" * 4000) for n in range(8))
        )

    def endlessline(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._endless(connection, b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536)

    def endlessstatus(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._endless(connection, b"HTTP/1.1 200 ", b"x" * 65536)

    def endlesshints(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        """Interim answers without end."""
        self._endless(connection, b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 1000)

    def cut(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        """Hangs up without a word."""

    def notext(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x16 hello\r\n\r\n")

    def less(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Length": len(self.data) + 10}, self.data)

    def more(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Length": len(self.data) - 10}, self.data)

    def huge(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Length": 10**18 * 9_500 // 1000}, self.data)

    def astronomic(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Length": "9" * 60}, self.data)

    def twolengths(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "200 OK", {"Content-Length": 5, "content-length": 7}, self.data)

    def nothing(self, connection: socket.socket, method: str, headers: Message, path: str) -> None:
        self._answer(connection, method, "204 No Content", length=False)

"""A way to a real S3 server on which one thing is odd, as its mode says: what servers and proxies were seen to do.

Requests are signed anew for the server behind, so that they can be changed. Every mode stands in `MODES`.
"""

import collections
import gzip
import http.client
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from tests.servers.place import HOST
from xloud_image.stores.s3.signing import Keys, signed


class Behind(Protocol):
    """What a server behind must tell."""

    @property
    def url(self) -> str: ...

    access: str
    secret: str


class Request(NamedTuple):
    """`headers` by lower-case name. `again`: how often this method and URL came before."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    again: int

    @property
    def parts(self) -> bool:
        """Whether it begins an upload in parts."""
        return self.method == "POST" and self.query.startswith("uploads")

    @property
    def listing(self) -> bool:
        """Whether it asks for the unfinished uploads."""
        return self.method == "GET" and "uploads=" in self.query

    @property
    def conditional(self) -> bool:
        return self.method == "PUT" and ("if-match" in self.headers or "if-none-match" in self.headers)

    @property
    def of_object(self) -> bool:
        return self.method == "GET" and self.path.count("/") > 1 and "uploadId" not in self.query


class Reply(NamedTuple):
    """`how`: "" as it is; "chunked": without a length; "cut": broken off in the middle; "short": half of it, closed
    without a length; "continue": after 100 Continue."""

    status: int
    headers: dict[str, str]
    body: bytes
    how: str = ""

    def but(self, **changed: str | None) -> "Reply":
        """With other headers (`_` for `-`); None removes one."""
        headers = dict(self.headers)
        for name, value in changed.items():
            headers.pop(name.replace("_", "-"), None)
            if value is not None:
                headers[name.replace("_", "-")] = value
        return self._replace(headers=headers)


def error(status: int, code: str, message: str = "no", **headers: str) -> Reply:
    """As S3 says it."""
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'.encode()
    return Reply(status, {"content-type": "application/xml", **headers}, body)


Ask = Callable[[Request], Reply]
Mode = Callable[[Request, Ask], Reply]
MODES: dict[str, Mode] = {}


def mode(function: Mode) -> Mode:
    MODES[function.__name__] = function
    return function


def _without(request: Request, *names: str) -> Request:
    return request._replace(headers={name: value for name, value in request.headers.items() if name not in names})


# what servers lack


@mode
def plain(request: Request, ask: Ask) -> Reply:
    """Nothing is odd."""
    return ask(request)


@mode
def cond501(request: Request, ask: Ask) -> Reply:
    return error(501, "NotImplemented") if request.conditional else ask(request)


@mode
def cond400(request: Request, ask: Ask) -> Reply:
    return error(400, "InvalidArgument") if request.conditional else ask(request)


@mode
def condignored(request: Request, ask: Ask) -> Reply:
    return ask(_without(request, "if-match", "if-none-match") if request.method == "PUT" else request)


@mode
def ifmatch501(request: Request, ask: Ask) -> Reply:
    return error(501, "NotImplemented") if request.method == "PUT" and "if-match" in request.headers else ask(request)


@mode
def getmatch412(request: Request, ask: Ask) -> Reply:
    return (
        error(412, "PreconditionFailed") if request.method == "GET" and "if-match" in request.headers else ask(request)
    )


@mode
def norange(request: Request, ask: Ask) -> Reply:
    return ask(_without(request, "range"))


@mode
def range200(request: Request, ask: Ask) -> Reply:
    """The right bytes and Content-Range under the wrong status."""
    reply = ask(request)
    return reply._replace(status=200) if reply.status == 206 else reply


@mode
def range200silent(request: Request, ask: Ask) -> Reply:
    """A part that looks like the whole."""
    reply = ask(request)
    return reply._replace(status=200).but(content_range=None) if reply.status == 206 else reply


@mode
def range206silent(request: Request, ask: Ask) -> Reply:
    return ask(request).but(content_range=None)


@mode
def range416(request: Request, ask: Ask) -> Reply:
    return error(416, "InvalidRange") if "range" in request.headers else ask(request)


@mode
def range501(request: Request, ask: Ask) -> Reply:
    return error(501, "NotImplemented") if "range" in request.headers else ask(request)


@mode
def nometa(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(headers={k: v for k, v in reply.headers.items() if not k.startswith("x-amz-meta-")})


@mode
def nolist501(request: Request, ask: Ask) -> Reply:
    return error(501, "NotImplemented") if request.listing else ask(request)


@mode
def nolistbucket(request: Request, ask: Ask) -> Reply:
    """A server that does not know what "uploads" means lists the objects instead."""
    return ask(request._replace(query="max-keys=5") if request.listing else request)


@mode
def mpunsupported(request: Request, ask: Ask) -> Reply:
    return error(501, "NotImplemented") if request.parts else ask(request)


@mode
def weak(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply.but(etag=f"W/{reply.headers['etag']}") if "etag" in reply.headers else reply


@mode
def noetag(request: Request, ask: Ask) -> Reply:
    """None in any header, and none in the list of parts."""
    reply = ask(request).but(etag=None)
    return reply._replace(body=re.sub(rb"<ETag>.*?</ETag>", b"", reply.body)) if "uploadId" in request.query else reply


@mode
def noetagput(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply.but(etag=None) if request.method == "PUT" else reply


@mode
def headless(request: Request, ask: Ask) -> Reply:
    """HEAD does not say how long."""
    return ask(request)._replace(how="unsaid") if request.method == "HEAD" else ask(request)


@mode
def md5(request: Request, ask: Ask) -> Reply:
    if request.method == "PUT" and request.body and "content-md5" not in request.headers:
        return error(400, "InvalidRequest", "Missing required header for this request: Content-MD5")
    return ask(request)


@mode
def nometaparts(request: Request, ask: Ask) -> Reply:
    """Metadata are kept of a PUT, and dropped where an upload in parts begins."""
    kept = {name: value for name, value in request.headers.items() if not name.startswith("x-amz-meta-")}
    return ask(request._replace(headers=kept) if request.parts else request)


@mode
def nolist403(request: Request, ask: Ask) -> Reply:
    """Keys without s3:ListBucketMultipartUploads."""
    return error(403, "AccessDenied") if request.listing else ask(request)


# what was refused once, and is there


@mode
def parts405once(request: Request, ask: Ask) -> Reply:
    return error(405, "MethodNotAllowed") if request.parts and not request.again else ask(request)


@mode
def parts405page(request: Request, ask: Ask) -> Reply:
    page = Reply(405, {"content-type": "text/html"}, b"<html><h1>405 Not Allowed</h1></html>")
    return page if request.parts and not request.again else ask(request)


@mode
def range400once(request: Request, ask: Ask) -> Reply:
    refused = "range" in request.headers and not request.again
    return error(400, "InvalidArgument") if refused else ask(request)


_refused: set[str] = set()  # buckets


@mode
def cond501once(request: Request, ask: Ask) -> Reply:
    """A bucket's first request with a condition."""
    bucket = request.path.split("/")[1]
    if not request.conditional or bucket in _refused:
        return ask(request)
    _refused.add(bucket)
    return error(501, "NotImplemented")


_complete: set[str] = set()  # paths whose uploads in parts are complete and were not looked at since


def _unseen(request: Request, ask: Ask, status: int) -> Reply:
    if request.method == "HEAD" and request.path in _complete:
        _complete.discard(request.path)
        return Reply(status, {}, b"")
    reply = ask(request)
    if request.method == "POST" and "uploadId" in request.query and reply.status == 200:
        _complete.add(request.path)
    return reply


@mode
def seen403(request: Request, ask: Ask) -> Reply:
    """The first look at what was completed is refused."""
    return _unseen(request, ask, 403)


@mode
def seen404(request: Request, ask: Ask) -> Reply:
    """What was completed is there a moment later."""
    return _unseen(request, ask, 404)


# servers that are busy


@mode
def slow(request: Request, ask: Ask) -> Reply:
    return error(503, "SlowDown") if request.again < 2 else ask(request)


@mode
def slow2(request: Request, ask: Ask) -> Reply:
    return error(503, "SlowDown") if (request.parts or request.listing) and not request.again else ask(request)


@mode
def slow429(request: Request, ask: Ask) -> Reply:
    return error(429, "TooManyRequests") if not request.again else ask(request)


@mode
def internal(request: Request, ask: Ask) -> Reply:
    return error(500, "InternalError") if not request.again else ask(request)


@mode
def html502(request: Request, ask: Ask) -> Reply:
    page = Reply(502, {"content-type": "text/html"}, b"<html><body><h1>Bad Gateway</h1></body></html>")
    return page if not request.again else ask(request)


@mode
def empty503(request: Request, ask: Ask) -> Reply:
    return Reply(503, {}, b"") if not request.again else ask(request)


# what stands in between


@mode
def redir307(request: Request, ask: Ask) -> Reply:
    where = f"http://{request.headers['host']}{request.path}{'?' if request.query else ''}{request.query}"
    return error(307, "TemporaryRedirect", location=where) if not request.again else ask(request)


@mode
def chunked(request: Request, ask: Ask) -> Reply:
    return ask(request)._replace(how="chunked" if request.method != "HEAD" else "")


@mode
def cut(request: Request, ask: Ask) -> Reply:
    """Every first answer breaks off in its middle."""
    return ask(request)._replace(how="" if request.again else "cut")


@mode
def short(request: Request, ask: Ask) -> Reply:
    """Every first answer with XML is half of it, and nothing says that it is not all."""
    reply = ask(request)
    xml = reply.body.lstrip()[:1] == b"<" and not request.again
    return reply._replace(how="short") if xml else reply


@mode
def doubled(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(body=reply.body * 2) if reply.body.startswith(b"<?xml") else reply


@mode
def blanks(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(body=b"  \n" + reply.body) if reply.body.startswith(b"<?xml") else reply


@mode
def gzipped(request: Request, ask: Ask) -> Reply:
    """Compresses what it hands on, as web servers do: no ranges, no length, weak ETags."""
    reply = ask(_without(request, "range"))
    if request.method != "GET" or not reply.body:
        return reply
    squeezed = reply.but(content_encoding="gzip", etag=f"W/{reply.headers.get('etag', '')}", accept_ranges=None)
    return squeezed._replace(body=gzip.compress(reply.body, 1), how="chunked")


@mode
def brotli(request: Request, ask: Ask) -> Reply:
    reply = ask(_without(request, "range"))
    return reply.but(content_encoding="br")._replace(how="chunked") if request.of_object else reply


@mode
def hundred(request: Request, ask: Ask) -> Reply:
    """100 Continue, though nobody expects it."""
    return ask(request)._replace(how="continue")


@mode
def lowercase(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(headers={name.lower(): value for name, value in reply.headers.items()})


@mode
def uppercase(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(headers={name.upper(): value for name, value in reply.headers.items()})


@mode
def emptyerrors(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(body=b"") if reply.status >= 400 else reply


@mode
def closing(request: Request, ask: Ask) -> Reply:
    """No connection is used twice, and no answer says so."""
    return ask(request)._replace(how="close")


# what no store can live with: it has to say so


@mode
def http413(request: Request, ask: Ask) -> Reply:
    page = Reply(413, {"content-type": "text/html"}, b"<html><h1>413 Request Entity Too Large</h1></html>")
    return page if len(request.body) > 1 << 20 else ask(request)


@mode
def r301(request: Request, ask: Ask) -> Reply:
    return error(301, "PermanentRedirect", **{"x-amz-bucket-region": "eu-west-3"})


@mode
def skewed(request: Request, ask: Ask) -> Reply:
    return error(403, "RequestTimeTooSkewed")


@mode
def noget(request: Request, ask: Ask) -> Reply:
    """A user who may write and not read."""
    return error(403, "AccessDenied") if request.of_object else ask(request)


@mode
def wrongbytes(request: Request, ask: Ask) -> Reply:
    reply = ask(request)
    return reply._replace(body=bytes(len(reply.body))) if request.of_object and reply.status < 300 else reply


class Odd:
    """Between a store and `behind`; `mode` may be changed at any time. `seen` is what came, as "METHOD path?query"."""

    def __init__(self, behind: Behind, mode: str = "plain") -> None:
        self.behind, self.mode = behind, mode
        self.seen: list[str] = []
        self._counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
        odd = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words: Any) -> None:
                pass

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def answer(self) -> None:
                odd._answer(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - their names in the library

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server((HOST, 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def access(self) -> str:
        return self.behind.access

    @property
    def secret(self) -> str:
        return self.behind.secret

    def be(self, mode: str) -> None:
        """Another mode; what came before is forgotten."""
        self.mode = mode
        self.seen.clear()
        self._counts.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", "0")))
        self.seen.append(f"{handler.command} {handler.path}")
        counted = (handler.command, path, query)
        request = Request(handler.command, path, query, headers, body, self._counts[counted])
        self._counts[counted] += 1
        _send(handler, MODES[self.mode](request, self._ask))

    def _ask(self, request: Request) -> Reply:
        left_out = ("authorization", "x-amz-date", "x-amz-content-sha256", "connection", "accept", "user-agent")
        headers = {name: value for name, value in request.headers.items() if name not in (*left_out, "accept-encoding")}
        where = urlsplit(self.behind.url)
        headers["host"] = where.netloc
        if request.method in ("PUT", "POST"):
            headers["content-length"] = str(len(request.body))
        keys = Keys(self.behind.access, self.behind.secret)
        payload = request.headers["x-amz-content-sha256"]
        sent = signed(keys, "us-east-1", request.method, request.path, request.query, headers, payload)
        connection = http.client.HTTPConnection(where.netloc, timeout=60)
        try:
            query = f"?{request.query}" if request.query else ""
            connection.putrequest(request.method, request.path + query, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(request.body or None)
            answer = connection.getresponse()
            kept = {name.lower(): value for name, value in answer.getheaders()}
            for name in ("connection", "keep-alive", "transfer-encoding"):
                kept.pop(name, None)
            return Reply(answer.status, kept, answer.read())
        finally:
            connection.close()


def _send(handler: http.server.BaseHTTPRequestHandler, reply: Reply) -> None:
    said = {name.lower(): value for name, value in reply.headers.items()}.get("content-length", "0")
    length = said if handler.command == "HEAD" else str(len(reply.body))
    if reply.how == "continue":
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    handler.send_response_only(reply.status)
    for name, value in reply.headers.items():
        if name.lower() != "content-length":
            handler.send_header(name, value)
    empty = handler.command == "HEAD" or reply.status == 204
    if reply.how == "chunked" and not empty:
        handler.send_header("transfer-encoding", "chunked")
    elif reply.how not in ("unsaid", "short"):
        handler.send_header("content-length", length)
    handler.end_headers()
    handler.close_connection = reply.how in ("cut", "short", "close")
    if empty:
        return
    for piece in _pieces(reply.body[: len(reply.body) // 2] if reply.how in ("cut", "short") else reply.body):
        if reply.how == "chunked":
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        else:
            handler.wfile.write(piece)
    if reply.how == "chunked":
        handler.wfile.write(b"0\r\n\r\n")


def _pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]

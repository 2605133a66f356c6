"""The http store against nginx, over http and https, and against servers that lie."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.load import quiet
from tests.servers.certificates import Authority, Certificate, authority
from tests.servers.nginx import Nginx
from tests.servers.place import HOST, free_port
from xloud_image.errors import (
    BadRange,
    BadRequest,
    BlobError,
    BlobNotFound,
    ConfigError,
    ImageServiceError,
    StoreUnavailable,
    Unsupported,
)
from xloud_image.stores.base import Caller, Store
from xloud_image.stores.http import store as http
from xloud_image.stores.http.store import HttpStore
from xloud_image.stores.layers import wrap
from xloud_image.stores.suite import ReadOnlySuite, collect, noise

STRANGER = Caller(trusted=False)
DATA = noise(200_000)


def options(**given: Any) -> dict[str, Any]:
    defaults = {option.dest: option.default for option in HttpStore.TYPE.options}
    assert set(given) <= set(defaults)
    return defaults | given


class Folder(Nginx):
    """An nginx that serves a folder of its own; `www` with a file is there for everybody."""

    def __init__(self, www: Path, **how: Any) -> None:
        super().__init__(files=www, **how)
        self.www = www


# what real servers do to clients, each at a place of its own
ODD = """
    location /no-head/ { alias {www}/; if ($request_method = HEAD) { return 405; } }
    location /head-501/ { alias {www}/; if ($request_method = HEAD) { return 501; } }
    location /no-ranges/ { alias {www}/; max_ranges 0; }
    location /no-tag/ { alias {www}/; etag off; }
    location /slow/ { alias {www}/; limit_rate 20k; }
    location /hidden/ { return 403; }
    location /gone/ { return 410; }
    location /ill/ { return 500; }
    location /busy/ { return 429; }
    location /nothing/ { return 204; }
    location /301/ { return 301 /$arg_to; }
    location /302/ { return 302 /$arg_to; }
    location /303/ { return 303 /$arg_to; }
    location /307/ { return 307 /$arg_to; }
    location /308/ { return 308 /$arg_to; }
    location /to { return 302 $arg_url; }
    location /loop { return 302 /loop; }
    location = /down-6 { return 302 /down-5; }
    location = /down-5 { return 302 /down-4; }
    location = /down-4 { return 302 /down-3; }
    location = /down-3 { return 302 /down-2; }
    location = /down-2 { return 302 /down-1; }
    location = /down-1 { return 302 /file; }
    location /seen { add_header ETag '"$server_addr"'; return 200 $server_addr; }
    location /login { if ($http_authorization = "") { return 401; } return 200 $http_authorization; }
"""


@pytest.fixture(scope="module")
def www(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("www")
    folder.parent.chmod(0o755)
    folder.chmod(0o755)
    (folder / "file").write_bytes(DATA)
    (folder / "empty").write_bytes(b"")
    return folder


@contextlib.contextmanager
def running(server: Folder) -> Iterator[Folder]:
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def plain(www: Path) -> Iterator[Folder]:
    with running(Folder(www, server=ODD.replace("{www}", str(www)))) as server:
        yield server


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    return authority().issue()


@pytest.fixture(scope="module")
def secure(www: Path, certificate: Certificate, plain: Folder) -> Iterator[Folder]:
    with running(Folder(www, certificate=tuple(certificate), server="location /to { return 302 $arg_url; }")) as server:
        yield server


@pytest.fixture
async def store() -> AsyncIterator[HttpStore]:
    made = HttpStore("web", options(https_ca_certificates_file=str(authority().ca)), connect=2, idle=2)
    yield made
    await made.aclose()


async def read(store: Store, url: str, **how: Any) -> bytes:
    async with store.open(url, **how) as reader:
        return await collect(reader)


# the promises of the contract


class OnNginx(ReadOnlySuite):
    NOT_APPLICABLE: ClassVar[dict[str, str]] = {
        "test_a_hanging_store_answers_in_time": "there is no server of the store's own that `check` could wait for; "
        "stat and open of a server that hangs: test_a_server_that_hangs"
    }
    server: Folder

    @pytest.fixture
    def prepared(self, plain: Folder) -> None:
        self.server = plain

    async def make(self) -> Store:
        return HttpStore("web", options())

    async def put_behind(self, key: str, data: bytes) -> str:
        (self.server.www / key).write_bytes(data)
        return f"{self.server.url}/{key}"


class TestHttp(OnNginx):
    pass


class TestHttpInLayers(OnNginx):
    async def make(self) -> Store:
        return wrap(HttpStore("web", options()))


class Patient(HttpStore):
    """A connection with TLS ends when the server has said goodbye as well; a busy one does later than the test ends."""

    port = 0

    async def aclose(self) -> None:
        await super().aclose()
        async with asyncio.timeout(30):
            while self._is_connected():
                await asyncio.sleep(0.01)

    def _is_connected(self) -> bool:
        rows = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
        # column 2: the other side; 9: the inode, 0 once no process has it
        return any(int(row[2].rpartition(":")[2], 16) == self.port and row[9] != "0" for row in rows)


class TestHttps(OnNginx):
    @pytest.fixture
    def prepared(self, secure: Folder) -> None:
        self.server = secure

    async def make(self) -> Store:
        store = Patient("web", options(https_ca_certificates_file=str(authority().ca)))
        store.port = self.server.port
        return store

    def handles(self) -> int:
        """Connections in use. The socket of an answer that was read to its end stays until nginx has said goodbye, too,
        a moment that open files would be counted in."""
        store = getattr(self, "store", None)
        if not isinstance(store, HttpStore):
            return 0
        sessions = [web._session for web in store._guarded._webs.values() if web._session is not None]
        return sum(len(session.connector._acquired) for session in sessions if session.connector is not None)


class TestWithoutRanges(OnNginx):
    async def put_behind(self, key: str, data: bytes) -> str:
        return (await super().put_behind(key, data)).replace(self.server.url, f"{self.server.url}/no-ranges")


# sizes and versions


@pytest.mark.parametrize("place", ["", "no-head/", "head-501/", "no-ranges/", "no-tag/"])
async def test_the_size_however_it_is_told(store: HttpStore, plain: Folder, place: str) -> None:
    found = await store.stat(f"{plain.url}/{place}file")
    assert (found.size, bool(found.version)) == (len(DATA), True)
    async with store.open(f"{plain.url}/{place}file", offset=5, length=10) as reader:
        assert (reader.size, reader.version) == (found.size, found.version)
        assert await collect(reader) == DATA[5:15]


@pytest.mark.parametrize("place", ["", "no-head/", "no-ranges/"])
async def test_an_empty_file(store: HttpStore, plain: Folder, place: str) -> None:
    assert (await store.stat(f"{plain.url}/{place}empty")).size == 0
    assert await read(store, f"{plain.url}/{place}empty") == b""
    assert await read(store, f"{plain.url}/{place}empty", length=7) == b""


@pytest.mark.parametrize("place", ["", "no-tag/"])
async def test_the_version_changes_with_the_file(store: HttpStore, plain: Folder, place: str) -> None:
    url = f"{plain.url}/{place}changing"
    (plain.www / "changing").write_bytes(b"one")
    before = (await store.stat(url)).version
    assert (await store.stat(url)).version == before
    (plain.www / "changing").write_bytes(b"two")
    os.utime(plain.www / "changing", (1_700_000_000, 1_700_000_000))
    after = (await store.stat(url)).version
    assert after not in (None, before)
    async with store.open(url) as reader:
        assert reader.version == after


async def test_the_version_of_a_mirror_is_not_its_etag(store: HttpStore, plain: Folder) -> None:
    direct = await store.stat(f"{plain.url}/file")
    other = f"http://localhost:{plain.port}/file"
    mirrored = await store.stat(f"{plain.url}/to?url={other}")
    assert mirrored.size == direct.size
    assert mirrored.version not in (None, direct.version)
    assert mirrored.version is not None
    assert mirrored.version.endswith(f"; {len(DATA)} bytes")
    assert (await store.stat(f"{plain.url}/301/?to=file")).version == direct.version, "the same host"


# what goes wrong


@pytest.mark.parametrize(
    ("place", "error", "temporary"),
    [
        ("absent", BlobNotFound, False),
        ("gone/", BlobNotFound, False),
        ("hidden/", BadRequest, False),
        ("ill/", StoreUnavailable, True),
        ("busy/", StoreUnavailable, True),
        ("nothing/", BadRequest, False),
        ("to?url=file:///etc/passwd", BadRequest, False),
        ("to?url=ftp://example.org/x", BadRequest, False),
        ("to?url=", BadRequest, False),
        ("loop", BadRequest, False),
    ],
)
async def test_errors(
    store: HttpStore, plain: Folder, place: str, error: type[ImageServiceError], temporary: bool
) -> None:
    for call in (store.stat(f"{plain.url}/{place}"), read(store, f"{plain.url}/{place}")):
        with pytest.raises(error) as caught:
            await call
        assert caught.value.temporary is temporary
        assert str(plain.port) not in caught.value.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects(store: HttpStore, plain: Folder, status: int) -> None:
    url = f"{plain.url}/{status}/?to=file"
    assert (await store.stat(url)).size == len(DATA)
    assert await read(store, url, offset=1000, length=50) == DATA[1000:1050]


async def test_five_redirects_and_no_more(store: HttpStore, plain: Folder) -> None:
    assert await read(store, f"{plain.url}/down-5") == DATA
    with pytest.raises(BadRequest, match="more than 5 times"):
        await read(store, f"{plain.url}/down-6")


async def test_a_redirect_from_https_to_http_is_refused(store: HttpStore, secure: Folder, plain: Folder) -> None:
    url = f"{secure.url}/to?url={plain.url}/file"
    with pytest.raises(BadRequest, match="from https to http"):
        await store.stat(url)
    assert await read(store, f"{plain.url}/to?url={secure.url}/file") == DATA, "the other way is fine"
    careless = HttpStore("web", options(https_insecure=True))
    assert await read(careless, url) == DATA
    await careless.aclose()


async def test_tls_is_verified(secure: Folder) -> None:
    for given, good in (({}, False), ({"https_insecure": True}, True)):
        made = HttpStore("web", options(**given))
        if good:
            assert await read(made, f"{secure.url}/file") == DATA
        else:
            with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
                await made.stat(f"{secure.url}/file")
        await made.aclose()


async def test_a_ca_file_wins_over_insecure(secure: Folder, tmp_path: Path) -> None:
    for ca_file, good in ((authority().ca, True), (Authority("another").ca, False)):
        made = HttpStore("web", options(https_insecure=True, https_ca_certificates_file=str(ca_file)))
        if good:
            assert (await made.stat(f"{secure.url}/file")).size == len(DATA)
        else:
            with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
                await made.stat(f"{secure.url}/file")
        await made.aclose()
    with pytest.raises(ConfigError, match="CA file"):
        HttpStore("web", options(https_ca_certificates_file=str(tmp_path / "absent")))


async def test_credentials_in_a_url_work_and_stay_with_their_server(store: HttpStore, plain: Folder) -> None:
    login = plain.url.replace("://", "://me:hunter2@")
    assert await read(store, f"{login}/login") == b"Basic bWU6aHVudGVyMg=="
    assert await read(store, f"{login}/301/?to=login") == b"Basic bWU6aHVudGVyMg==", "the same server"
    with pytest.raises(BadRequest, match="401") as caught:
        await read(store, f"{login}/to?url=http://localhost:{plain.port}/login")
    assert "hunter2" not in str(caught.value)


async def test_a_range_of_a_server_without_ranges_is_bounded(
    store: HttpStore, plain: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{plain.url}/no-ranges/file"
    for _ in range(3):
        assert await read(store, url, offset=150_000) == DATA[150_000:]
    assert caplog.text.count("knows no ranges") == 1
    monkeypatch.setattr(http, "SKIP", 1000)
    assert await read(store, url, offset=1000, length=1) == DATA[1000:1001]
    with pytest.raises(Unsupported, match="no ranges"):
        await read(store, url, offset=1001)


async def test_a_server_that_hangs(www: Path) -> None:
    store = HttpStore("web", options(), connect=2, idle=2)
    wrapped = wrap(store)
    with running(Folder(www)) as server:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        pids = [server.pid, *map(int, children)]
        assert len(pids) == 2, "nginx and its worker"
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            begun = time.monotonic()
            calls = [store.stat(f"{server.url}/file"), read(store, f"{server.url}/file")]
            calls.append(wrapped.stat(f"{server.url}/file"))  # type: ignore[arg-type]
            for error in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(error, StoreUnavailable)
            assert time.monotonic() - begun < quiet(10)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert await read(store, f"{server.url}/file") == DATA
    with pytest.raises(StoreUnavailable):
        await store.stat(f"{server.url}/file")
    await store.aclose()


async def test_a_server_that_hangs_in_the_middle(www: Path) -> None:
    store = HttpStore("web", options(), connect=2, idle=2)
    (www / "large").write_bytes(bytes(30_000_000))
    with running(Folder(www)) as server:
        worker = int(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text())
        begun = time.monotonic()
        try:
            async with store.open(f"{server.url}/large") as reader:
                await anext(reader.chunks)
                os.kill(worker, signal.SIGSTOP)
                with pytest.raises(StoreUnavailable, match="broke off"):
                    await collect(reader)
            assert time.monotonic() - begun < quiet(10)
        finally:
            os.kill(worker, signal.SIGCONT)
    await store.aclose()


async def test_data_that_comes_too_slowly_is_cut(
    store: HttpStore, plain: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PACE", 1.0)
    with pytest.raises(StoreUnavailable, match="too slowly"):
        await read(store, f"{plain.url}/slow/file")
    monkeypatch.setattr(http, "PACE_BYTES", 5000)
    assert await read(store, f"{plain.url}/slow/file", length=60_000) == DATA[:60_000]


# servers that lie


@contextlib.asynccontextmanager
async def answering(*lines: str, body: bytes = b"", hold: bool = False) -> AsyncIterator[str]:
    """A server that gives every request the same answer; its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join(("HTTP/1.1 " + lines[0], *lines[1:], "", "")).encode())
        if not head.startswith(b"HEAD"):
            writer.write(body)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            if hold:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()


async def test_less_than_its_content_length(store: HttpStore) -> None:
    async with answering("200 OK", "Content-Length: 10", body=b"12345") as url:
        assert (await store.stat(url)).size == 10
        with pytest.raises(StoreUnavailable, match="too early"):
            await read(store, url)


async def test_no_size_is_refused_at_registering_and_read_all_the_same(store: HttpStore) -> None:
    async with answering("200 OK", "Connection: close", body=b"12345") as url:
        with pytest.raises(BadRequest, match="does not tell the size"):
            await store.stat(url)
        async with store.open(url) as reader:
            assert reader.size is None
            assert await collect(reader) == b"12345"
        assert await read(store, url, offset=3) == b"45"
        for offset in (5, 9):
            with pytest.raises(BadRange):
                await read(store, url, offset=offset)


@pytest.mark.parametrize(
    "told", ["bytes 0-4/10", "bytes 2-9/10", "bytes 3-2/10", "bytes 2-4/4", "bytes 2-x/10", "", "items 2-4/10"]
)
async def test_another_range_than_asked_for(store: HttpStore, told: str) -> None:
    async with answering("206 Partial Content", f"Content-Range: {told}", "Content-Length: 3", body=b"123") as url:
        with pytest.raises(BlobError):
            await read(store, url, offset=2, length=3)


@pytest.mark.parametrize("told", ["bytes 0-4/10", "bytes 2-9/10", "bytes 3-2/10", "bytes 2-4/4", "", "items 2-4/10"])
async def test_another_range_in_an_answer_that_calls_itself_whole(store: HttpStore, told: str) -> None:
    async with answering("200 OK", f"Content-Range: {told}", "Content-Length: 3", body=b"123") as url:
        for how in ({"offset": 2, "length": 3}, {"offset": 2}, {}):
            with pytest.raises((BlobError, StoreUnavailable)):
                await read(store, url, **how)
        with pytest.raises(BadRequest):
            await store.stat(url)


async def test_the_range_asked_for_in_an_answer_that_calls_itself_whole(store: HttpStore) -> None:
    async with answering("200 OK", "Content-Range: bytes 2-4/10", "Content-Length: 3", body=b"123") as url:
        assert await read(store, url, offset=2, length=3) == b"123"
    async with answering("200 OK", "Content-Range: bytes 0-2/3", "Content-Length: 3", body=b"123") as url:
        assert await read(store, url) == b"123"
        assert await read(store, url, offset=1) == b"23"
        assert (await store.stat(url)).size == 3


@pytest.mark.parametrize("told", ["bytes 2-4/10", "bytes 2-4/*"])
async def test_the_range_asked_for(store: HttpStore, told: str) -> None:
    async with answering("206 Partial Content", f"Content-Range: {told}", "Content-Length: 3", body=b"123") as url:
        assert await read(store, url, offset=2, length=3) == b"123"


@pytest.mark.parametrize("place", ["", "http://", "\r\nX: y", "http://[::1", "http://h:99999/", "javascript:alert(1)"])
async def test_redirects_to_nowhere(store: HttpStore, place: str) -> None:
    async with answering("302 Found", f"Location: {place}", "Content-Length: 0") as url:
        with pytest.raises(BadRequest, match="redirects"):
            await read(store, url)


async def test_no_http_at_all(store: HttpStore) -> None:
    async with answering("hello", "", body=b"\x00" * 100) as url:
        with pytest.raises(StoreUnavailable):
            await read(store, url)
    async with answering("200 OK", f"X: {'x' * 100_000}", "Content-Length: 0") as url:
        with pytest.raises(StoreUnavailable):
            await read(store, url)


async def test_an_error_of_the_reader_is_not_the_stores(store: HttpStore, plain: Folder) -> None:
    """A client that left is no sick store."""
    with pytest.raises(ConnectionResetError):
        async with store.open(f"{plain.url}/file"):
            raise ConnectionResetError


# proxies


async def test_a_proxy_per_scheme(plain: Folder, www: Path) -> None:
    """nginx as a forward proxy: it asks whatever server the request names."""
    line = "location / { proxy_pass http://$http_host$request_uri; add_header X-Proxy yes always; }"
    proxy = Nginx(server=line.replace("$http_host", f"{HOST}:{plain.port}"))
    try:
        proxy.start()
        store = HttpStore("web", options(http_proxy_information={"http": f"{HOST}:{proxy.port}"}))
        name = "http://images.invalid/file"
        assert (await store.check()).detail.endswith("own")
        assert (await store.stat(name)).size == len(DATA)
        assert await read(store, name, caller=STRANGER) == DATA, "the proxy decides what a name means"
        for address in ("http://127.0.0.1/file", "http://[::1]/", "http://0x7f.1/"):
            with pytest.raises(BadRequest):
                await read(store, address, caller=STRANGER)
    finally:
        proxy.close()
    with pytest.raises(StoreUnavailable):
        await store.stat(name)
    with pytest.raises(StoreUnavailable, match="http_proxy_information"):
        await store.check()
    await store.aclose()


@pytest.mark.parametrize("given", [{"ftp": "h:1"}, {"http": "socks5://h:1"}, {"http": ""}, {"https": "h:0"}])
def test_proxies_that_make_no_sense(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="http_proxy_information"):
        HttpStore("web", options(http_proxy_information=given))


# URLs


@pytest.mark.parametrize(
    ("url", "owned"),
    [
        ("http://h/x", True),
        ("HTTPS://H:8443/x?y=z#f", True),
        ("https://user:pw@h/x", True),
        ("http://[2001:db8::1]/x", True),
        ("http://b\xfccher.example/\xfc", True),
        ("http://h/a%2Fb|c", True),
        ("http://", False),
        ("http:///x", False),
        ("http:h", False),
        ("http://h:0/", False),
        ("http://h:x/", False),
        ("http://h/a b", True),  # as old rows have it
        ("http://h/x?a b", True),
        ("http://h h/x", False),
        ("http://h /x", False),
        (" http://h/x", False),
        ("http://h/x ", False),
        ("http://h/a\tb", False),
        ("http://h\\@g/", False),
        ("http://h/\n", False),
        ("swift+https://h/x", False),
        ("file:///etc/passwd", False),
    ],
)
def test_owns(url: str, owned: bool) -> None:
    assert HttpStore("web", options()).owns(url) is owned


async def test_encodings_of_a_url_reach_the_server_as_they_are(store: HttpStore) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    base = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    for path in ("/a%2Fb%7e?X-Signature=a%2Bb+c", "/%E2%82%AC", "/a//b/../c"):
        assert await read(store, base + path) == b"1"
        assert seen[-1] == path.encode()
    server.close()


async def test_nobody_listens(store: HttpStore) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await store.stat(f"http://{HOST}:{free_port()}/x")
    assert caught.value.temporary

"""Clients that go round through a balancer while something happens to the nodes behind it, and what came of each call.

A client here repeats nothing: whatever is no answer of the right status with the right bytes is a failure. Transfers of
the slow kind are held open until a node has gone away since they began and some seconds more, or until all is to end.
"""

import contextlib
import functools
import hashlib
import http.client
import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from tests.servers.place import HOST

MIB = 1 << 20
HELD = 8.0  # seconds that a slow transfer goes on after a node was found to be away
LONGEST = 800.0  # seconds after which every client ends, whatever happens; a busy machine takes minutes for a run
PATIENCE = 120.0  # seconds for an answer
JSON = "application/json"
PATCH = "application/openstack-images-v2.1-json-patch"
BYTES = "application/octet-stream"


class Failed(Exception):
    """A call that did not end as it ought to."""


class Transfer(NamedTuple):
    """A slow one that ended well; seconds since 1970."""

    kind: str
    store: str
    began: float
    ended: float


class Client:
    """Calls with a token. `keep`: on one connection, as long as the other side keeps it; else each on its own."""

    def __init__(self, port: int, token: str, *, keep: bool = False) -> None:
        self._keep, self._headers = keep, {"X-Auth-Token": token}
        self._connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE)

    def close(self) -> None:
        """The end of a kept connection."""
        self._connection.close()

    @contextlib.contextmanager
    def call(
        self,
        method: str,
        path: str,
        want: int,
        body: bytes | Iterator[bytes] | None = None,
        kind: str = JSON,
        store: str = "",
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer, whose body is to be read within. `Failed`: another status, or less than all of it."""
        headers = {**self._headers, **({} if body is None else {"Content-Type": kind})}
        headers |= {"X-Image-Meta-Store": store} if store else {}
        chunked = body is not None and not isinstance(body, bytes)
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        whole = False
        try:
            self._connection.request(method, path, body, headers, encode_chunked=chunked)
            with self._connection.getresponse() as answer:
                if answer.status != want:
                    raise Failed(f"{method} {path}: {answer.status} {answer.read()[:300]!r}")
                yield answer
            whole = True
        except (OSError, http.client.HTTPException) as error:
            raise Failed(f"{method} {path}: {error!r}") from error
        finally:
            if not (self._keep and whole):
                self._connection.close()

    def data(self, method: str, path: str, want: int, value: Any = None, kind: str = JSON) -> Any:
        """The decoded answer to a call with JSON."""
        body = None if value is None else json.dumps(value).encode()
        with self.call(method, path, want, body, kind) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def create(self, name: str) -> str:
        """A new image without data; its id."""
        made = self.data("POST", "/v2/images", 201, {"name": name, "disk_format": "raw", "container_format": "bare"})
        return str(made["id"])

    def upload(self, image: str, body: bytes | Iterator[bytes], store: str) -> None:
        """Its data."""
        with self.call("PUT", f"/v2/images/{image}/file", 204, body, BYTES, store) as answer:
            answer.read()

    def download(self, image: str, each: Callable[[], None] = lambda: None) -> str:
        """The digest of its data. `each`: called after every 64 KiB."""
        digest = hashlib.sha256()
        with self.call("GET", f"/v2/images/{image}/file", 200) as answer:
            while block := answer.read(64 * 1024):
                digest.update(block)
                each()
            if answer.length:
                raise Failed(f"GET {image}: {answer.length} bytes are missing")
        return digest.hexdigest()


class Traffic:
    """Each kind of transfer to and from each of `stores`. `away`: when nodes were found to be away, so far. `counts` by
    kind of call, `failures` as sentences, `slow` the transfers that were held, `digests` of every upload that ended, by
    image."""

    def __init__(self, port: int, token: str, stores: Sequence[str], away: Callable[[], list[float]]) -> None:
        self._port, self._token, self._stores, self._away = port, token, stores, away
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slow: list[Transfer] = []
        self.digests: dict[str, str] = {}
        self._stop = threading.Event()
        self._begun = threading.Semaphore(0)
        self._ends: list[float] = []
        self._deadline = time.monotonic() + LONGEST

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Everybody is at work within; on leaving, each ends what it has begun."""
        client = Client(self._port, self._token)
        data = os.urandom(32 * MIB)
        digest = hashlib.sha256(data).hexdigest()
        images = {store: client.create("downloaded") for store in self._stores}
        for store, image in images.items():
            client.upload(image, data, store)
        held: list[Callable[[], None]] = [
            functools.partial(self._download_slowly, store, image, digest) for store, image in images.items()
        ]
        held += [functools.partial(self._upload_slowly, store) for store in self._stores for _ in range(2)]
        kept = Client(self._port, self._token, keep=True)
        quick: list[Callable[[], None]] = [lambda: self._metadata(kept), lambda: self._metadata(client)]
        for store, image in images.items():
            quick += [functools.partial(self._download, image, digest), functools.partial(self._upload, store)]
        threads = [threading.Thread(target=self._loop, args=(work,)) for work in (*held, *quick)]
        watch = threading.Thread(target=self._watch)
        watch.start()
        try:
            for number, thread in enumerate(threads):
                thread.start()
                if number < len(held):  # one after the other: each meets the node with the fewest
                    assert self._begun.acquire(timeout=PATIENCE), self.failures
            yield
        finally:
            self._stop.set()
            for thread in (*threads, watch):
                if thread.ident is not None:
                    thread.join(PATIENCE)
            kept.close()
        assert not any(thread.is_alive() for thread in threads), "a call hangs"

    def _loop(self, work: Callable[[], None]) -> None:
        while not self._ended():
            try:
                work()
            except Failed as error:
                self.failures.append(f"{time.time():.3f} {error}")
                time.sleep(0.2)

    def _ended(self) -> bool:
        return self._stop.is_set() or time.monotonic() > self._deadline

    def _watch(self) -> None:
        while not self._ended():
            self._ends = [when + HELD for when in self._away()]
            self._stop.wait(0.25)

    def _is_held(self, began: float) -> bool:
        return not self._ended() and not any(began < end - HELD and end < time.time() for end in self._ends)

    def _metadata(self, client: Client) -> None:
        image = client.create("changed")
        path = f"/v2/images/{image}"
        for _ in range(20):
            name = uuid.uuid4().hex
            change = [{"op": "replace", "path": "/name", "value": name}]
            for call in (
                lambda: client.data("PATCH", path, 200, change, PATCH)["name"] == name,
                lambda: client.data("GET", path, 200)["name"] == name,
                lambda: len(client.data("GET", "/v2/images?limit=2", 200)["images"]) == 2,
            ):
                if not call():
                    raise Failed(f"{path}: the answer is wrong")
                self.counts["metadata"] += 1
                time.sleep(0.05)
            if self._ended():
                break
        client.data("DELETE", path, 204)
        self.counts["metadata"] += 2

    def _download(self, image: str, digest: str) -> None:
        if (found := Client(self._port, self._token).download(image)) != digest:
            raise Failed(f"download: the digest is {found}")
        self.counts["download"] += 1
        self._stop.wait(1)

    def _download_slowly(self, store: str, image: str, digest: str) -> None:
        began, blocks = time.time(), 0

        def each() -> None:
            nonlocal blocks
            blocks += 1
            if blocks == 1:
                self._begun.release()
            if self._is_held(began):  # of 512 the last ones are made to last
                time.sleep(0.25 if blocks < 256 else 2.5)

        if (found := Client(self._port, self._token).download(image, each)) != digest:
            raise Failed(f"slow download: the digest is {found}")
        self.slow.append(Transfer("download", store, began, time.time()))

    def _upload(self, store: str) -> None:
        client, data = Client(self._port, self._token), os.urandom(MIB)
        image = client.create("uploaded")
        client.upload(image, data, store)
        self.digests[image] = hashlib.sha256(data).hexdigest()
        self.counts["upload"] += 1
        self._stop.wait(1)

    def _upload_slowly(self, store: str) -> None:
        client, digest, began = Client(self._port, self._token), hashlib.sha256(), time.time()

        def blocks() -> Iterator[bytes]:
            for number in range(int(LONGEST / 0.25)):
                block = os.urandom(32 * 1024)
                digest.update(block)
                yield block
                if number == 4:
                    self._begun.release()
                if number > 4 and not self._is_held(began):
                    return
                time.sleep(0.25)

        image = client.create("uploaded slowly")
        client.upload(image, blocks(), store)
        self.digests[image] = digest.hexdigest()
        self.slow.append(Transfer("upload", store, began, time.time()))

"""A client that writes into the ledger before it asks and after it was answered. Each call is one request."""

import http.client
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tests.crash.ledger import Data, Ledger, Record
from tests.servers.http import Answer, request

OCTETS = "application/octet-stream"
PATCH = "application/openstack-images-v2.1-json-patch"


class NoAnswer(Exception):
    """The connection broke: nobody knows whether it was done."""


class Client:
    """`seed` decides all that it does."""

    def __init__(self, url: str, ledger: Ledger, seed: str) -> None:
        self.url = url
        self.ledger = ledger
        self.random = random.Random(seed)
        self.mine: list[Record] = []
        self.surprises: list[str] = []
        self.answered = 0

    def ask(self, method: str, path: str, **how: Any) -> Answer:
        """Raises `NoAnswer`. A status from 500 is as good as none, but for the 503 of somebody else's turn."""
        try:
            answer = request(method, self.url + path, seconds=30, **how)
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{method} {path}: {error!r}") from error
        self.answered += 1
        if answer.status >= 500:
            self.surprises.append(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
            raise NoAnswer(f"{method} {path}: {answer.status}")
        return answer

    def create(self) -> Record:
        record = self.ledger.open(str(uuid.UUID(int=self.random.getrandbits(128), version=4)))
        self.mine.append(record)
        body = {
            "id": record.id,
            "name": "crash",
            "disk_format": "raw",
            "container_format": "bare",
            "visibility": "shared",
        }
        self._expect(self.ask("POST", "/v2/images", json=body), 201)
        record.created = True
        return record

    def upload(self, record: Record, size: int, *, chunked: bool = False) -> int:
        data = Data.new(f"{record.id} {self.random.random()}", size)
        record.maybe_data = data
        body: Any = _pieces(data.bytes()) if chunked else data.bytes()
        answer = self.ask("PUT", f"/v2/images/{record.id}/file", body=body, headers={"Content-Type": OCTETS})
        if answer.status == 204:
            record.data = data
        self._expect(answer, 204, 409)  # 409: what an earlier attempt left is being cleaned up
        record.maybe_data = None
        return answer.status

    def upload_too_little(self, record: Record, size: int) -> None:
        """Announces one byte more than it sends; refused, and the image is as it was."""
        data = Data.new(record.id, size)
        headers = {"Content-Type": OCTETS, "x-openstack-image-size": str(size + 1)}
        path = f"/v2/images/{record.id}/file"
        self._expect(self.ask("PUT", path, body=_pieces(data.bytes()), headers=headers), 400, 409)

    def patch(self, record: Record) -> None:
        mark = self.random.getrandbits(30) + 1
        record.maybe_mark = mark
        body = [{"op": "add", "path": path, "value": str(mark)} for path in ("/mark_one", "/mark_two")]
        answer = self.ask("PATCH", f"/v2/images/{record.id}", json=body, headers={"Content-Type": PATCH})
        self._expect(answer, 200)
        record.mark, record.maybe_mark = mark, None

    def share(self, record: Record, project: str) -> None:
        record.maybe_members |= {project}
        self._expect(self.ask("POST", f"/v2/images/{record.id}/members", json={"member": project}), 200)
        record.members |= {project}
        record.maybe_members -= {project}

    def delete(self, record: Record) -> None:
        record.maybe_deleted = True
        self._expect(self.ask("DELETE", f"/v2/images/{record.id}"), 204)
        record.deleted, record.maybe_deleted = True, False

    def _expect(self, answer: Answer, *statuses: int) -> None:
        if answer.status not in statuses:
            self.surprises.append(f"{answer.status} instead of {statuses}: {answer.body[:300]!r}")

    def work(self, stop: threading.Event) -> None:
        """All kinds of requests until told to stop, or until the service is gone."""
        try:
            while not stop.is_set():
                self._something()
        except NoAnswer:
            return

    def _something(self) -> None:
        full = [record for record in self.mine if record.data is not None and not record.deleted]
        kind = self.random.random()
        if kind < 0.2 and full:
            self.delete(self.random.choice(full))
        elif kind < 0.45 and full:
            self.patch(self.random.choice(full))
        elif kind < 0.55:
            self.upload_too_little(self.create(), self.random.randrange(1, 1 << 20))
        else:
            chunked = self.random.random() < 0.3
            self.upload(self.create(), self.random.choice((0, 1, 100_000, 3_000_000)), chunked=chunked)


def _pieces(data: bytes, size: int = 64 * 1024) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def at_once(clients: list[Client], until: Callable[[], None]) -> None:
    """All clients work while `until()` runs; it ends what they talk to."""
    stop = threading.Event()
    threads = [threading.Thread(target=client.work, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        until()
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)

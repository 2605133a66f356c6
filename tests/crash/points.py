"""A way to every failpoint of short requests: the request, or the clean-up, in which a process reaches it. For those of
long work: `table`."""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.crash.client import OCTETS, Client, NoAnswer
from tests.crash.ledger import Record
from tests.load import quiet
from tests.servers.process import answers
from tests.servers.service import Service

SETTINGS = {
    "DEFAULT": {"workers": 2},
    "xloud": {"auth": "none", "lease_time": 5, "reaper_interval": 1},
}
# the memory of one process holds what locations are registered for
MEMORY = {"DEFAULT": {"workers": 1, "enabled_backends": "files:file,mem:memory"}, "xloud": SETTINGS["xloud"]}


class Armed:
    """The file through which a running service is told where to die."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.disarm()

    @property
    def environment(self) -> dict[str, str]:
        return {"XLOUD_FAILPOINTS": f"@{self.path}"}

    def arm(self, *names: str, action: str = "kill") -> None:
        self.arm_each(dict.fromkeys(names, action))

    def arm_each(self, actions: Mapping[str, str]) -> None:
        """Each name with an action of its own."""
        self._write(",".join(f"{name}={action}" for name, action in actions.items()))

    def disarm(self) -> None:
        self._write("")

    def _write(self, text: str) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)


def workers(service: Service) -> set[int]:
    """The process ids of the workers."""
    children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text()
    return {int(pid) for pid in children.split()}


def wait_until(true: Callable[[], object], seconds: float = 20) -> bool:
    begun = time.monotonic()
    while not true():
        if time.monotonic() - begun > quiet(seconds):
            return False
        time.sleep(0.02)
    return True


def _fresh(client: Client) -> Record:
    return client.create()


def _full(client: Client) -> Record:
    record = client.create()
    assert client.upload(record, 300_000) == 204
    return record


# failpoint → what has to be there before, and the request that reaches it
Step = tuple[Callable[[Client], Record | None], Callable[[Client, Record], object]]


def _upload(client: Client, record: Record) -> None:
    client.upload(record, 2_500_000)


_CREATE: Step = (lambda _: None, lambda client, _: client.create())
_UPLOAD: Step = (_fresh, _upload)
_CHANGE: Step = (_full, lambda client, record: client.patch(record))
_SHARE: Step = (_full, lambda client, record: client.share(record, "friends"))
_DELETE: Step = (_full, lambda client, record: client.delete(record))
_UNDO: Step = (_fresh, lambda client, record: client.upload_too_little(record, 400_000))

STEPS: Mapping[str, Step] = {
    "create.begin": _CREATE,
    "create.stored": _CREATE,
    "change.begin": _CHANGE,
    "change.stored": _CHANGE,
    "upload.begin": _UPLOAD,
    "upload.claimed": _UPLOAD,
    "upload.first_byte": _UPLOAD,
    "upload.half": _UPLOAD,
    "upload.received": _UPLOAD,
    "upload.written": _UPLOAD,
    "upload.activated": _UPLOAD,
    "undo.bytes_gone": _UNDO,
    "delete.begin": _DELETE,
    "delete.marked": _DELETE,
    "delete.bytes_gone": _DELETE,
    "delete.done": _DELETE,
    "member.begin": _SHARE,
    "member.stored": _SHARE,
    "file.created": _UPLOAD,
    "file.synced": _UPLOAD,
    "file.linked": _UPLOAD,
    "file.unlinked": _DELETE,
}
# failpoint of the reaper → the failpoint that leaves it something to do
REAPER: Mapping[str, Step] = {"reaper.taken": _UPLOAD, "reaper.bytes_gone": _UPLOAD}
# of notifications on their way: tests.messaging
MESSAGES = ("relay.sent",)


def die_at(point: str, service: Service, armed: Armed, client: Client, *, before: int = 0) -> bool:
    """Let a worker die at `point` during a request; whether one did. Another has taken its place afterwards.

    `before`: deaths that the log of the service told of already.
    """
    prepare, request = STEPS[point] if point in STEPS else REAPER[point]
    record = prepare(client)
    old = workers(service)
    armed.arm(point, *(["upload.received"] if point in REAPER else []))
    try:
        with contextlib.suppress(NoAnswer):
            request(client, record)  # type: ignore[arg-type]
        # a reaper dies after the worker whose upload it cleans up
        deaths = 2 if point in REAPER else 1
        died = wait_until(lambda: len(service_deaths(service)) >= before + deaths and old - workers(service), 10)
    finally:
        armed.disarm()
    wait_until(lambda: len(workers(service)) == len(old))
    return died


def service_deaths(service: Service) -> list[str]:
    """What the parent says of workers that were killed, since the last start."""
    return [line for line in service.log.splitlines() if "SIGKILL" in line]


def register_location(service: Service, armed: Armed, client: Client, point: str) -> str:
    """Arm `point` and register the location of data in the memory of the process; the id of the image."""
    source = client.create()
    headers = {"Content-Type": OCTETS, "X-Image-Meta-Store": "mem"}
    assert client.ask("PUT", f"/v2/images/{source.id}/file", body=b"data", headers=headers).status == 204
    record = client.create()
    before = len(service_deaths(service))
    armed.arm(point)
    try:
        with contextlib.suppress(NoAnswer):
            client.ask(
                "POST",
                f"/v2/images/{record.id}/locations",
                json={
                    "url": f"memory://mem/{source.id}",
                    "validation_data": {"os_hash_algo": "sha256", "os_hash_value": "0" * 64},
                },
            )
        assert wait_until(lambda: len(service_deaths(service)) > before), f"nobody died at {point}"
    finally:
        armed.disarm()
    return record.id


def settled_image(service: Service, image_id: str) -> dict[str, Any]:
    """The image as a client sees it, once the service answers again."""
    wait_until(lambda: answers(f"{service.url}/healthcheck", below=400))
    found: dict[str, Any] = service.request("GET", f"/v2/images/{image_id}").json()
    return found

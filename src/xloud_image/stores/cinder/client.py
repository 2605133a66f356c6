"""Cinder's API, version 3.54: requests with a token that is renewed, bounded in time, and its refusals as the errors of
the contract. What a volume means to an image is not known here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from xloud_image.errors import BlobNotFound, QuotaExceeded, StoreFull, StoreRefused, StoreUnavailable, WriteDenied
from xloud_image.stores.base import Caller, finish
from xloud_image.stores.cinder.accounts import Accounts
from xloud_image.stores.kit.keystone import Grant
from xloud_image.stores.kit.retry import retry
from xloud_image.stores.kit.web import Web

_log = logging.getLogger(__name__)

_VERSION: Final = "volume 3.54"
_LOOK: Final = 20.0  # seconds for a request that changes nothing: Cinder answers it from its database
_PAUSE: Final = 0.1  # seconds before the second look at a state; later looks come more slowly
_SLOWEST: Final = 1.0
_PAGE: Final = 1000
# states that a volume leaves by itself
_PASSING: Final = frozenset({"creating", "downloading", "extending", "deleting"})
_NEVER: Final = frozenset({405, 406, 411, 501, 505})  # what stays refused however often it is asked
_FAILING: Final = frozenset({429, 500, 502, 503, 504})
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


class NotNow(StoreUnavailable):
    """Cinder refuses because of the state that a volume is in."""


class StillDeleting(StoreUnavailable):
    """Cinder has begun to delete a volume and is not done."""


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Cinder shows it. `size` in GiB; `devices`: by attachment id what was said to be its device."""

    id: str
    name: str
    size: int
    status: str
    type: str | None
    created: str
    metadata: Mapping[str, str]
    multiattach: bool
    devices: Mapping[str, str]

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Volume:
        return cls(
            id=found["id"],
            name=found.get("name") or "",
            size=int(found["size"]),
            status=found["status"],
            type=found.get("volume_type"),
            created=found.get("created_at") or "",
            metadata=found.get("metadata") or {},
            multiattach=bool(found.get("multiattach")),
            devices={one["attachment_id"]: one.get("device") or "" for one in found.get("attachments") or ()},
        )


class Client:
    """Requests for one store. `limit`: seconds for each that changes something; Cinder itself gives up a call to its
    volume service after 60. `patience`: seconds for a change of a volume's state."""

    def __init__(self, web: Web, accounts: Accounts, *, retries: int, patience: float, limit: float = 65.0) -> None:
        self.name = web.name
        self.limit = limit
        self.patience = patience
        self._web, self._accounts, self._retries = web, accounts, retries

    @property
    def own(self) -> bool:
        """Whether the volumes are those of a service account."""
        return self._accounts.own

    def of(self, caller: Caller | None) -> Volumes:
        """The volumes that are reached for this caller: the service account's, or the caller's own."""
        return Volumes(self, caller)

    async def ask(self, caller: Caller | None, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, decoded answer). A request that changes something is never left before its answer: whoever
        is cancelled meanwhile can clean up afterwards. `StoreUnavailable`."""
        begun = time.monotonic()

        async def once() -> tuple[int, Any]:
            grant = await self._accounts.grant(caller)
            status, answer = await self._once(grant, method, path, body)
            if status == 401:
                status, answer = await self._once(await self._accounts.grant(caller, grant), method, path, body)
            if status in _FAILING:
                raise _failing(status, answer)
            return status, answer

        # what hangs is not asked again, what refuses is, a few times within seconds
        retries = self._retries if method in ("GET", "DELETE", "PUT") else 0
        pauses = (0.2 * (number + 1) for number in range(retries))
        asking = retry(once, pauses, again=lambda _: time.monotonic() - begun < 3)
        return await asking if method == "GET" else await finish(asking)

    async def _once(self, grant: Grant, method: str, path: str, body: Any) -> tuple[int, Any]:
        headers = {"X-Auth-Token": grant.token or "", "OpenStack-API-Version": _VERSION}
        limit = min(_LOOK, self.limit) if method == "GET" else self.limit
        status, _, answer = await self._web.json(
            "Cinder", method, grant.url + path, headers=headers, limit=limit, body=body
        )
        return status, answer


class Volumes:
    """Volumes, attachments and types, for one caller."""

    def __init__(self, client: Client, caller: Caller | None) -> None:
        self.name = client.name
        self._client, self._caller = client, caller

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer. `BlobNotFound` for 404, `NotNow` for a state that forbids it, `StoreFull`,
        `QuotaExceeded`, `WriteDenied`, `StoreUnavailable`."""
        status, answer = await self._client.ask(self._caller, method, path, body)
        if status < 400:
            return answer
        said = _words(answer)
        if status == 404:
            raise BlobNotFound("Cinder has no such volume")
        _log.info("store %s: %s %s: %d %s", self.name, method, path.partition("?")[0], status, said)
        if status == 413:
            if self._client.own:
                raise StoreFull(f"it is full: the quota of its project is used up ({said})")
            raise QuotaExceeded(f"the caller's quota of volumes is used up ({said})")
        if status in (400, 409):
            raise NotNow(f"Cinder refuses: {said}")
        if status in (401, 403):
            raise WriteDenied(f"its account may not do this in Cinder: {said or status}")
        if status in _NEVER:
            raise StoreRefused(
                f"what answers as Cinder does not do this at all ({status}): see that"
                " cinder_catalog_info or cinder_endpoint_template names Cinder's API, version 3.54 or newer"
            )
        raise _failing(status, answer)

    async def find(self, name: str | None = None, **more: str) -> list[Volume]:
        """The volumes of this name, or that match `more` as Cinder's filters do; at most 1000."""
        filters = {"limit": str(_PAGE), **more} | ({} if name is None else {"name": name})
        answer = await self.call("GET", f"/volumes/detail?{urlencode(filters)}")
        found = [Volume.of(one) for one in answer["volumes"]]
        return [one for one in found if name is None or one.name == name]

    async def show(self, identity: str) -> Volume:
        """`BlobNotFound` when there is none."""
        return Volume.of((await self.call("GET", f"/volumes/{identity}"))["volume"])

    async def create(
        self, name: str, size: int, metadata: Mapping[str, str], *, volume_type: str | None = None, source: str = ""
    ) -> Volume:
        """A volume of `size` GiB, or a clone of another one (`source`), on its way to be available."""
        body: dict[str, Any] = {"name": name, "size": size, "metadata": dict(metadata)}
        if volume_type:
            body["volume_type"] = volume_type
        if source:
            body["source_volid"] = source
        return Volume.of((await self.call("POST", "/volumes", {"volume": body}))["volume"])

    async def act(self, identity: str, action: str, **how: Any) -> None:
        await self.call("POST", f"/volumes/{identity}/action", {action: how})

    async def set_metadata(self, identity: str, metadata: Mapping[str, str], *, all_of_it: bool = False) -> None:
        """Add these, or (`all_of_it`) put them in the place of whatever there was, in one step."""
        method = "PUT" if all_of_it else "POST"
        await self.call(method, f"/volumes/{identity}/metadata", {"metadata": dict(metadata)})

    async def delete(self, identity: str) -> None:
        """Ask for it; Cinder does it later."""
        await self.call("DELETE", f"/volumes/{identity}")

    async def attachments(self, identity: str) -> list[str]:
        """The ids of all attachments of a volume, finished or not, but those of servers."""
        answer = await self.call("GET", f"/attachments?{urlencode({'volume_id': identity})}")
        return [one["id"] for one in answer["attachments"] if not one.get("instance")]

    async def snapshots(self, identity: str) -> list[str]:
        """The names (or ids) of a volume's snapshots."""
        answer = await self.call("GET", f"/snapshots?{urlencode({'volume_id': identity})}")
        return [one.get("name") or one["id"] for one in answer["snapshots"]]

    async def type_name(self, given: str | None) -> str | None:
        """The name of a type given by name, by id, or not at all (Cinder's default); None when Cinder does not say."""
        if given and not _UUID.fullmatch(given):
            return given
        try:
            return str((await self.call("GET", f"/types/{given or 'default'}"))["volume_type"]["name"])
        except (BlobNotFound, WriteDenied):
            return None

    async def remove(self, identity: str, *, within: float, detach: bool) -> None:
        """Delete a volume and wait until it is gone. `detach`: whatever holds it. Cinder refuses for a while what is
        still open somewhere, as after a kill -9: it is asked again. `StillDeleting`; `StoreUnavailable` when Cinder
        does not even begin."""
        end, pause, said = time.monotonic() + within, _PAUSE, ""
        try:
            while True:
                volume = await self.show(identity)
                if time.monotonic() > end:
                    break
                if volume.status not in _PASSING:
                    try:
                        for attachment in await self.attachments(identity) if detach else ():
                            with contextlib.suppress(BlobNotFound):  # its owner was quicker
                                await self.call("DELETE", f"/attachments/{attachment}")
                        await self.delete(identity)
                    except NotNow as error:
                        said = f": {error.message}"
                await asyncio.sleep(pause)
                pause = min(pause * 1.4, _SLOWEST)
        except BlobNotFound:
            return
        if volume.status == "deleting":
            raise StillDeleting(f"Cinder is deleting volume {identity}")
        raise StoreUnavailable(f"volume {identity} is {volume.status} and cannot be deleted{said}")

    async def until(self, identity: str, *statuses: str) -> Volume:
        """Wait for one of these states. `StoreUnavailable` with Cinder's own words for a state of error, or when the
        time for a change of states is over; `BlobNotFound` when the volume goes."""
        end, pause = time.monotonic() + self._client.patience, _PAUSE
        while True:
            volume = await self.show(identity)
            if volume.status in statuses:
                return volume
            if volume.status.startswith("error"):
                raise StoreUnavailable(
                    f"Cinder put volume {identity} into state {volume.status}: {await self._why(identity)}"
                )
            if time.monotonic() + pause > end:
                raise StoreUnavailable(
                    f"volume {identity} is still {volume.status}, not {' or '.join(statuses)}, after"
                    f" {self._client.patience:g} seconds (cinder_state_transition_timeout): look at Cinder's volume"
                    " service"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 1.4, _SLOWEST)

    async def _why(self, identity: str) -> str:
        """What Cinder tells users of a failure."""
        try:
            answer = await self.call("GET", f"/messages?{urlencode({'resource_uuid': identity})}")
        except (StoreUnavailable, BlobNotFound, WriteDenied):
            answer = None
        found: Sequence[Mapping[str, Any]] = (answer or {}).get("messages") or ()
        return str(found[0]["user_message"]) if found else "see the log of Cinder's volume service"


def _failing(status: int, answer: Any) -> StoreUnavailable:
    said = _words(answer)
    return StoreUnavailable(f"Cinder fails now ({status}{': ' if said else ''}{said})")


def _words(answer: Any) -> str:
    """The sentence in an answer of Cinder's that refuses."""
    if isinstance(answer, dict):
        for inner in answer.values():
            if isinstance(inner, dict) and isinstance(inner.get("message"), str):
                return str(inner["message"])[:300]
    return ""

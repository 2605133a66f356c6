"""What is told of calls, for audits: CADF events (DMTF DSP0262) as keystonemiddleware makes them, `audit.http.request`
when a call begins and `audit.http.response`, the same event with its outcome, when it has ended. Nothing is stored or
sent here.

Callers write most of what stands in them: every text has an end, and no control characters. Of a token nothing is told,
not even the ends of it that the middleware leaves standing.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, unquote_to_bytes

from xloud_image.config.masking import mask
from xloud_image.config.settings import AuditMap
from xloud_image.events import Event

REQUEST: Final = "audit.http.request"
RESPONSE: Final = "audit.http.response"
UNKNOWN: Final = "unknown"
LONGEST: Final = 1024  # characters of what a caller wrote

_VERSION: Final = "http://schemas.dmtf.org/cloud/audit/1.0/event"
_USER: Final = "service/security/account/user"
_TOKEN: Final = "xxxxxxxx"  # noqa: S105 - it stands for one
_REQUEST_ID: Final = re.compile(r"req-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PATH: Final = "/~!$&'()*+,;=:@"  # what stands in a path as it is
_ACTIONS: Final = {"GET": "read", "HEAD": "read", "PUT": "update", "PATCH": "update", "DELETE": "delete"}


@dataclasses.dataclass(frozen=True, slots=True)
class Service:
    """The service that was called, as the catalogue has it. `addresses`: (admin, private or public, URL) of each."""

    type: str = "image"
    name: str = "glance"
    addresses: tuple[tuple[str, str], ...] = ()


def service_of(catalogue: Sequence[Mapping[str, Any]], kind: str) -> Service:
    """The first service of this type in a catalogue of Keystone v3. The caller's Host does not choose it: who may write
    it could have his calls told of another service."""
    for one in catalogue:
        endpoints = one.get("endpoints") or ()
        if one.get("type") != kind or not endpoints:
            continue
        region = endpoints[0].get("region")
        urls = {each.get("interface"): str(each.get("url")) for each in endpoints if each.get("region") == region}
        words = (("admin", "admin"), ("private", "internal"), ("public", "public"))
        addresses = tuple((word, urls.get(interface, UNKNOWN)) for word, interface in words)
        return Service(kind, str(one.get("name") or UNKNOWN), addresses)
    return Service(kind)


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and from where. What is None is not known."""

    user: str | None = None
    name: str | None = None
    project: str | None = None
    address: str | None = None
    agent: str | None = None
    request_id: str | None = None
    global_request_id: str | None = None


@dataclasses.dataclass(slots=True)
class Call:
    """One call. `pending` is what is told when it begins; `ended` when it has an outcome."""

    _event: dict[str, Any]

    @property
    def pending(self) -> Event:
        """That it begins."""
        return Event(REQUEST, dict(self._event))

    def ended(self, status: int | None) -> Event:
        """What became of it. `status`: of the answer; None where there was none."""
        found = dict(self._event)
        if status is None:
            found["outcome"] = UNKNOWN
        else:
            found["outcome"] = "success" if 200 <= status < 400 else "failure"
            found["reason"] = {"reasonType": "HTTP", "reasonCode": str(status)}
        found["reporterchain"] = [{"role": "modifier", "reporter": {"id": "target"}, "reporterTime": _now()}]
        return Event(RESPONSE, found)


def call(method: str, path: str, query: str, caller: Caller, service: Service, words: AuditMap) -> Call:
    """A call that begins now. `path`, `query`: as they came, still quoted."""
    path = quote(unquote_to_bytes(path), safe=_PATH) if "%" in path else path
    initiator: dict[str, Any] = {
        "id": caller.user or UNKNOWN,
        "typeURI": _USER,
        "name": plain(caller.name or UNKNOWN),
        "credential": {"token": _TOKEN, "identity_status": "Confirmed" if caller.user else "Invalid"},
        "host": {
            name: plain(text) for name, text in (("address", caller.address), ("agent", caller.agent)) if text
        },
        "project_id": caller.project or UNKNOWN,
    }  # fmt: skip
    if caller.request_id:
        initiator["request_id"] = caller.request_id
    if caller.global_request_id and _REQUEST_ID.fullmatch(caller.global_request_id):
        initiator["global_request_id"] = caller.global_request_id
    target: dict[str, Any] = {
        "id": service.name,
        "typeURI": _type(path, words.services.get(service.type, UNKNOWN), words),
        "name": service.name,
    }
    if service.addresses:
        target["addresses"] = [{"name": name, "url": url} for name, url in service.addresses]
    return Call(
        {
            "typeURI": _VERSION,
            "eventType": "activity",
            "id": str(uuid.uuid4()),
            "eventTime": _now(),
            "action": action(method, path, words),
            "outcome": "pending",
            "initiator": initiator,
            "target": target,
            "observer": {"id": "target"},
            "requestPath": plain(mask(f"{path}?{query}" if query else path)),
            "tags": [f"correlation_id?value={uuid.uuid4()}"],
        }
    )


def action(method: str, path: str, words: AuditMap) -> str:
    """What a call does, by the operator's map: the path's last step with the method, then the step alone; else by the
    method, with the map's steps for those that hold many things. A body is not looked into."""
    last = _step(path.removesuffix("/").rpartition("/")[2])
    named = words.actions.get(f"{last}/{method.lower()}") or words.actions.get(last)
    if named:
        return named
    if method == "POST":
        return "create" if last == "action" or last in words.paths else "update"
    if method == "GET" and last in words.paths:
        return "read/list"
    return _ACTIONS.get(method, UNKNOWN)


def _type(path: str, service: str, words: AuditMap) -> str:
    """The kind of what is called: the service's, and each step of the path that the map knows, with what it calls the
    step behind it."""
    if service == UNKNOWN:
        return UNKNOWN
    found, before = service, ""
    for part in path.split("/"):
        step = _step(part)
        if step in words.paths:
            found += f"/{step}"
        elif before in words.paths:
            found += f"/{words.paths[before]}"
        before = step
        if len(found) > LONGEST:
            return f"{found[:LONGEST]}…"
    return found


def _step(text: str) -> str:
    return text.removesuffix(".json")


def plain(text: str) -> str:
    """What a caller wrote: LONGEST characters of it at most, each of them one that shows."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f%z")

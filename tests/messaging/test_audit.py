"""What an audit hears of calls on a real broker, beside a real Glance with keystonemiddleware's filter."""

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.messaging.conftest import Consumer, await_that
from tests.servers import glance as peer
from tests.servers.http import Answer, request
from tests.servers.keystone import Keystone
from tests.servers.rabbitmq import RabbitMQ
from tests.servers.service import Service

# what an operator's own map may say, beside what pycadf ships
MAP = """\
[DEFAULT]
target_endpoint_type = image

[custom_actions]
deactivate = disable
reactivate/post = enable

[path_keywords]
detail = None
file = None
images = image
members = member
tags = tag

[service_endpoints]
image = service/storage/image
"""
FILTER = """
[filter:audit]
paste.filter_factory = keystonemiddleware.audit:filter_factory
audit_map_file = %(here)s/glance_api_audit_map.conf
ignore_req_list = head
"""
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+0000"
AGENT = "an auditor's own/1.0"
# (method, path, body): every kind of call, good and bad; {id} is the image that the first one makes
CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/v2/images", {"name": "looked at", "disk_format": "raw", "container_format": "bare"}),
    ("GET", "/v2/images", None),
    ("GET", "/v2/images?limit=1&name=a%20b", None),
    ("GET", "/v2/images/{id}", None),
    ("PUT", "/v2/images/{id}/file", b"data" * 100),
    ("GET", "/v2/images/{id}/file", None),
    ("PUT", "/v2/images/{id}/tags/blue", None),
    ("DELETE", "/v2/images/{id}/tags/blue", None),
    ("PATCH", "/v2/images/{id}", [{"op": "replace", "path": "/name", "value": "other"}]),
    ("POST", "/v2/images/{id}/actions/deactivate", None),
    ("POST", "/v2/images/{id}/actions/reactivate", None),
    ("POST", "/v2/images/{id}/members", {"member": "a" * 32}),
    ("GET", "/v2/images/{id}/members", None),
    ("GET", "/v2/images/{id}/members/" + "a" * 32, None),
    ("DELETE", "/v2/images/{id}/members/" + "a" * 32, None),
    ("HEAD", "/v2/images/{id}", None),  # the operator does not want these
    ("GET", f"/v2/images/{uuid.UUID(int=7)}", None),
    ("GET", "/v2.9/images/{id}", None),
    ("GET", "/v2/im%61ges/{id}", None),
    ("GET", "/v2/nothing/here", None),
    ("GET", "/v2/schemas/image", None),
    ("POST", "/v2/images", {"nobody": 1, "visibility": "odd"}),
    ("DELETE", "/v2/images/{id}", None),
]


def lay_out(folder: Path) -> None:
    """The files of an operator who has the audit on: those that Glance ships, with the filter in the pipeline."""
    shipped = (peer.place() / "etc" / "glance" / "glance-api-paste.ini").read_text()
    text = shipped.replace("authtoken context", "authtoken audit context")
    assert text != shipped
    (folder / "glance-api-paste.ini").write_text(text + FILTER)
    (folder / "glance_api_audit_map.conf").write_text(MAP)


Pair = tuple[dict[str, Any], dict[str, Any]]


class Called:
    """A service whose calls are told to a consumer."""

    def __init__(self, consumer: Consumer, url: str) -> None:
        self._consumer, self.url, self.image = consumer, url, ""

    def make(self, token: str) -> list[int]:
        """Make all CALLS; their statuses."""
        self.image = ""
        statuses = []
        for method, path, body in CALLS:
            answer = self.ask(method, path.replace("{id}", self.image), token, body)
            self.image = self.image or answer.json()["id"]
            statuses.append(answer.status)
        return statuses

    def ask(self, method: str, path: str, token: str, body: Any = None, **headers: str) -> Answer:
        given = {"User-Agent": AGENT, "X-Auth-Token": token, **headers}
        if isinstance(body, bytes):
            given["Content-Type"] = "application/octet-stream"
            return request(method, self.url + path, headers=given, body=body)
        if isinstance(body, list):
            given["Content-Type"] = "application/openstack-images-v2.1-json-patch"
        return request(method, self.url + path, headers=given, json=body)

    def pairs(self, count: int, agent: str = AGENT) -> list[Pair]:
        """Request and response of each call by this agent, in the order of the calls, once there are so many."""

        def found() -> list[Pair]:
            once = {one["message_id"]: one for one in list(self._consumer.messages)}
            halves: dict[str, list[dict[str, Any]]] = {}
            for one in once.values():
                if one["event_type"].startswith("audit.") and one["payload"]["initiator"]["host"]["agent"] == agent:
                    halves.setdefault(one["payload"]["id"], []).append(one)
            whole = [(both[0], both[1]) for both in halves.values() if len(both) == 2]
            return sorted(whole, key=lambda pair: str(pair[0]["payload"]["eventTime"]))

        await_that(lambda: len(found()) == count, lambda: (len(found()), count))
        return found()


@pytest.fixture(scope="module")
def told(broker: RabbitMQ, consumer: Consumer, keystone: Keystone) -> Iterator[Called]:
    """Our service, which finds the operator's own files beside its configuration."""
    service = Service(
        {
            **keystone.sections(),
            "DEFAULT": {"transport_url": broker.url},
            "oslo_messaging_notifications": {"driver": "messagingv2"},
            "oslo_messaging_rabbit": {"amqp_durable_queues": "true"},
            "xloud": {"job_workers": 1},
        }
    )
    lay_out(service.directory)
    try:
        service.start()
        await_that(lambda: "ready for long work" in service.log)
        yield Called(consumer, service.url)
        assert "Traceback" not in service.log
    finally:
        service.kill()


@pytest.fixture(scope="module")
def of_glance(
    tmp_path_factory: pytest.TempPathFactory, broker: RabbitMQ, consumer: Consumer, keystone: Keystone
) -> Iterator[Called]:
    """Glance with the same files, Keystone and broker."""
    folder = tmp_path_factory.mktemp("glance")
    glance = peer.Glance(folder, f"sqlite:///{folder / 'glance.sqlite'}")
    lay_out(folder)
    text = glance.configuration.read_text()
    text = text.replace("transport_url = fake://", f"transport_url = {broker.url}").replace("= noop", "= messagingv2")
    text = text.replace("[paste_deploy]", "[paste_deploy]\nflavor = keystone")
    text += "[oslo_messaging_rabbit]\namqp_durable_queues = true\n[keystone_authtoken]\n"
    text += "".join(f"{name} = {value}\n" for name, value in keystone.authtoken().items())
    glance.configuration.write_text(text)
    try:
        glance.start()
        yield Called(consumer, glance.url)
    finally:
        glance.kill()


def plain(event: dict[str, Any], image: str) -> dict[str, Any]:
    """The payload without what is each event's own; the forms of these are looked at."""
    found: dict[str, Any] = json.loads(json.dumps(event["payload"]).replace(image, "IMAGE"))
    uuid.UUID(found.pop("id"))
    assert re.fullmatch(TIME, found.pop("eventTime"))
    assert re.fullmatch(r"correlation_id\?value=[-0-9a-f]{36}", found.pop("tags")[0])
    for step in found.get("reporterchain", ()):
        assert re.fullmatch(TIME, step.pop("reporterTime"))
    assert "xxxxxxxx" in found["initiator"]["credential"].pop("token")
    found["initiator"].pop("request_id", None)  # Glance does not know it yet
    return found


def test_events_are_those_of_the_middleware(told: Called, of_glance: Called, keystone: Keystone) -> None:
    token = keystone.token("admin")
    statuses = told.make(token), of_glance.make(token)
    other = [call[:2] for call, mine, theirs in zip(CALLS, *statuses, strict=True) if mine != theirs]
    assert other == [("HEAD", "/v2/images/{id}")]  # which Glance does not know
    count = sum(method != "HEAD" for method, _, _ in CALLS)
    both = [*told.pairs(2 * count)]
    ours = [pair for pair in both if pair[0]["publisher_id"] == "image.localhost"]
    theirs = [pair for pair in both if pair not in ours]
    assert len(ours) == len(theirs) == count
    for one, other in zip(ours, theirs, strict=True):
        for mine, glances in zip(one, other, strict=True):
            assert plain(mine, told.image) == plain(glances, of_glance.image)
            assert (mine["event_type"], mine["priority"]) == (glances["event_type"], glances["priority"])
        assert {key: one[1]["payload"][key] for key in one[0]["payload"] if key != "outcome"} == {
            key: value for key, value in one[0]["payload"].items() if key != "outcome"
        }
    kinds = [(pair[1]["payload"]["action"], pair[1]["payload"]["target"]["typeURI"]) for pair in ours]
    assert ("disable", "service/storage/image/images/image") in kinds
    assert ("read/list", "service/storage/image/images/image/members") in kinds
    everything = json.dumps(ours)
    assert token not in everything
    assert token[:8] not in everything

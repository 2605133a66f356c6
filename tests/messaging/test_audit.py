"""What an audit hears of calls on a real broker, beside a real Glance with keystonemiddleware's filter."""

import contextlib
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.points import Armed, service_deaths
from tests.crash.proof import rows
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
    """A service whose calls are told to a consumer. `service`, `armed`: ours, and where it is to die."""

    service: Service
    armed: Armed

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

    def by(self, agent: str) -> list[dict[str, Any]]:
        """What was told of calls by agents whose names begin so, each message once."""
        once = {one["message_id"]: one for one in list(self._consumer.messages)}.values()
        audited = [one for one in once if one["event_type"].startswith("audit.")]
        return [one for one in audited if one["payload"]["initiator"]["host"].get("agent", "").startswith(agent)]

    def pairs(self, count: int, agent: str = AGENT) -> list[Pair]:
        """Request and response of each call by this agent, in the order of the calls, once there are so many."""

        def found() -> list[Pair]:
            halves: dict[str, list[dict[str, Any]]] = {}
            for one in self.by(agent):
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
    armed = Armed(service.directory / "failpoints")
    service.environment = armed.environment
    try:
        service.start()
        await_that(lambda: "ready for long work" in service.log)
        called = Called(consumer, service.url)
        called.service, called.armed = service, armed
        yield called
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


def test_what_a_caller_writes(told: Called, keystone: Keystone) -> None:
    """Nothing of it makes an event of another service, of another client, too long, or none at all."""
    token = keystone.token("demo")
    odd = {
        "Host": f"127.0.0.1:{keystone.port}",  # another service's in the catalogue
        "X-Forwarded-For": "192.0.2.1",
        "X-Openstack-Request-Id": "req-'; DROP TABLE",
        "User-Agent": "odd \xff\u202e" + "x" * 5000,
    }
    sent = {name: value.encode("utf-8").decode("latin-1") for name, value in odd.items()}
    secret = "https://someone:hidden@example.org/"
    for path in ("/v2/images?name=" + secret, "/v2/images/" + "images/" * 1500):
        assert told.ask("GET", path, token, **sent).status in (200, 404), path
    good = f"req-{uuid.uuid4()}"
    headers = {"User-Agent": "good", "X-Openstack-Request-Id": good}
    assert told.ask("GET", "/v2/images", token, **headers).status == 200
    assert told.ask("GET", "/v2/images", "nobody's", **headers).status == 401  # the filter stands behind the login
    [(plainly, _)] = told.pairs(1, "good")
    assert plainly["payload"]["initiator"]["global_request_id"] == good
    await_that(lambda: len(told.by("odd ")) == 4, lambda: told.by("odd "))
    found = [one for one in told.by("odd ") if one["event_type"].endswith("response")]
    assert len(found) == 2
    for one in found:
        payload = one["payload"]
        assert payload["target"]["name"] == "glance"
        assert payload["initiator"]["host"]["address"] == "127.0.0.1"
        assert "global_request_id" not in payload["initiator"]
        assert payload["initiator"]["host"]["agent"].isprintable()
        assert len(json.dumps(payload)) < 12_000
        assert payload["initiator"]["name"] == "demo"
        assert "hidden" not in json.dumps(one)


def test_no_change_is_made_that_is_not_recorded(told: Called, keystone: Keystone) -> None:
    """kill -9 before and after the commit of a change: that it was called for is told, with no outcome; and a database
    that cannot record the call makes it fail."""
    token = keystone.token("demo")
    for point in ("change.begin", "change.stored"):
        agent = f"killed at {point}"
        image = told.ask("POST", "/v2/images", token, {"name": point}).json()["id"]
        before = len(service_deaths(told.service))
        told.armed.arm(point)
        change = [{"op": "replace", "path": "/name", "value": "other"}]
        with contextlib.suppress(OSError):
            told.ask("PATCH", f"/v2/images/{image}", token, change, **{"User-Agent": agent})
        await_that(lambda before=before: len(service_deaths(told.service)) > before)
        told.armed.disarm()
        await_that(lambda agent=agent: told.by(agent))
        [one] = told.by(agent)
        assert (one["event_type"], one["payload"]["outcome"]) == ("audit.http.request", "pending")
        assert one["payload"]["requestPath"] == f"/v2/images/{image}"


def test_the_bus_is_away(told: Called, keystone: Keystone, broker: RabbitMQ) -> None:
    token, agent = keystone.token("demo"), "meanwhile"
    broker.stop()
    for number in range(10):
        assert told.ask("POST", "/v2/images", token, {"name": str(number)}, **{"User-Agent": agent}).status == 201
        assert told.ask("GET", "/v2/images?limit=1", token, **{"User-Agent": agent}).status == 200
    await_that(lambda: len(rows(told.service, "SELECT id FROM xloud_audit")) == 40)
    await_that(lambda: "audit events wait: they cannot be sent now" in told.service.log)
    broker.start()
    pairs = told.pairs(20, agent)
    assert [one["payload"]["action"] for one, _ in pairs] == ["create", "read/list"] * 10
    assert {other["payload"]["outcome"] for _, other in pairs} == {"success"}
    await_that(lambda: not rows(told.service, "SELECT id FROM xloud_audit"))

"""The service in Keystone: its catalogue entry, endpoints, user, project and role. Nobody is let in here.

May be repeated; asks before it acts. Nothing is deleted. What differs is set to what the deployment says: an endpoint's
URL, the user's password.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from keystoneauth1 import exceptions as failures
from keystoneauth1 import session as sessions
from keystoneauth1.identity import v3

from xloud_image.errors import ConfigError, IdentityUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xloud_image.config.settings import KeystoneSettings

_TIME = 30  # seconds for each call


@dataclasses.dataclass(frozen=True, slots=True)
class Registration:
    """What Keystone should know. `endpoints`: interface → URL."""

    endpoints: Mapping[str, str]
    region: str
    service: str = "glance"
    type: str = "image"
    role: str = "admin"


def is_valid(settings: KeystoneSettings) -> str:
    """Why the service's own account cannot be used; "": it can. IdentityUnavailable: Keystone does not answer."""
    auth = settings.auth
    try:
        _session(
            settings, str(auth.get("username")), str(auth.get("password")), str(auth.get("project_name"))
        ).get_token()
    except (failures.Unauthorized, failures.NotFound) as error:
        return f"Keystone refuses the service's account '{auth.get('username')}': {error.message}"
    except failures.ClientException as error:
        raise IdentityUnavailable(f"Keystone does not answer at {auth.get('auth_url')}: {error}") from None
    return ""


def register(
    settings: KeystoneSettings, wanted: Registration, administrator: str, password: str, project: str
) -> list[str]:
    """Make what is missing; what was done, a sentence each (empty: all was there).

    ConfigError: the administrator is refused. IdentityUnavailable: Keystone does not answer.
    """
    with _told(settings, administrator):
        desk = _Desk(_session(settings, administrator, password, project))
        return desk.register(settings, wanted)


def register_limits(
    settings: KeystoneSettings,
    limits: Mapping[str, int],
    administrator: str,
    password: str,
    project: str,
    *,
    service_type: str = "image",
    region: str | None = None,
) -> list[str]:
    """What every project may have that has no limit of its own: resource → MiB or images, -1 any. What was done, a
    sentence each. Errors as `register`."""
    with _told(settings, administrator):
        desk = _Desk(_session(settings, administrator, password, project))
        return desk.register_limits(limits, service_type, region)


@contextlib.contextmanager
def _told(settings: KeystoneSettings, administrator: str) -> Iterator[None]:
    try:
        yield
    except (failures.Unauthorized, failures.Forbidden) as error:
        raise ConfigError(
            f"Keystone refuses its administrator '{administrator}' ({error.message}); set keystone_admin_user, "
            "keystone_admin_project and keystone_admin_password"
        ) from None
    except failures.ClientException as error:
        raise IdentityUnavailable(f"Keystone at {settings.auth.get('auth_url')}: {error}") from None


def _session(settings: KeystoneSettings, user: str, password: str, project: str) -> Any:
    auth = settings.auth

    def domain(kind: str) -> dict[str, Any]:
        if auth.get(f"{kind}_domain_name"):
            return {f"{kind}_domain_name": auth[f"{kind}_domain_name"]}
        return {f"{kind}_domain_id": auth.get(f"{kind}_domain_id") or "default"}

    url = str(auth["auth_url"]).rstrip("/")
    plugin = v3.Password(
        auth_url=url if url.endswith("/v3") else f"{url}/v3",
        username=user, password=password, project_name=project, **domain("user"), **domain("project"),
    )  # fmt: skip
    verify = False if settings.insecure else settings.cafile or True
    return sessions.Session(auth=plugin, verify=verify, timeout=_TIME)


class _Desk:
    """An administrator's session, and what was done in it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._base = str(session.auth.auth_url)
        self.done: list[str] = []

    def register(self, settings: KeystoneSettings, wanted: Registration) -> list[str]:
        auth = settings.auth
        domain = auth.get("project_domain_id") or self._domain(auth.get("project_domain_name") or "Default")
        users = auth.get("user_domain_id") or self._domain(auth.get("user_domain_name") or "Default")
        service = self._one("services", "service", {"type": wanted.type, "name": wanted.service}, {"enabled": True})
        for interface, url in wanted.endpoints.items():
            self._endpoint(service["id"], interface, url, wanted.region)
        project = self._one("projects", "project", {"name": auth["project_name"], "domain_id": domain}, {})
        user = self._one(
            "users", "user", {"name": auth["username"], "domain_id": users}, {"password": auth["password"]}
        )
        role = self._one("roles", "role", {"name": wanted.role}, {})
        path = f"projects/{project['id']}/users/{user['id']}/roles/{role['id']}"
        if self._call("HEAD", path, allowed=(404,)).status_code == 404:
            self._call("PUT", path)
            self.done.append(f"gave {auth['username']} the role {wanted.role} in {auth['project_name']}")
        if is_valid(settings):
            self._call("PATCH", f"users/{user['id']}", {"user": {"password": auth["password"]}})
            self.done.append(f"set the password of {auth['username']}")
        return self.done

    def register_limits(self, limits: Mapping[str, int], service_type: str, region: str | None) -> list[str]:
        services = self._call("GET", f"services?type={service_type}").json()["services"]
        if not services:
            raise ConfigError(f"Keystone knows no service of type {service_type}; register it first")
        service = services[0]["id"]
        known = self._call("GET", f"registered_limits?service_id={service}").json()["registered_limits"]
        ours = {row["resource_name"]: row for row in known if row.get("region_id") == region}
        for name, number in limits.items():
            if name not in ours:
                row = {"service_id": service, "resource_name": name, "default_limit": number}
                row |= {} if region is None else {"region_id": region}
                self._call("POST", "registered_limits", {"registered_limits": [row]})
                self.done.append(f"registered the limit {name}: {number}")
            elif ours[name]["default_limit"] != number:
                body = {"registered_limit": {"default_limit": number}}
                self._call("PATCH", f"registered_limits/{ours[name]['id']}", body)
                self.done.append(f"changed the limit {name} from {ours[name]['default_limit']} to {number}")
        return self.done

    def _domain(self, name: str) -> str:
        found = self._call("GET", f"domains?name={name}").json()["domains"]
        if not found:
            raise ConfigError(f"Keystone has no domain '{name}'")
        return str(found[0]["id"])

    def _one(self, plural: str, kind: str, key: Mapping[str, str], more: Mapping[str, Any]) -> dict[str, Any]:
        query = "&".join(f"{name}={value}" for name, value in key.items())
        found: list[dict[str, Any]] = self._call("GET", f"{plural}?{query}").json()[plural]
        if found:
            return found[0]
        made: dict[str, Any] = self._call("POST", plural, {kind: {**key, **more}}).json()[kind]
        self.done.append(f"made the {kind} {key['name']}")
        return made

    def _endpoint(self, service: str, interface: str, url: str, region: str) -> None:
        if self._call("GET", f"regions/{region}", allowed=(404,)).status_code == 404:
            self._call("POST", "regions", {"region": {"id": region}})
            self.done.append(f"made the region {region}")
        query = f"endpoints?service_id={service}&interface={interface}&region_id={region}"
        found = self._call("GET", query).json()["endpoints"]
        if not found:
            body = {"service_id": service, "interface": interface, "url": url, "region_id": region}
            self._call("POST", "endpoints", {"endpoint": body})
            self.done.append(f"made the {interface} endpoint {url}")
        elif found[0]["url"] != url:
            self._call("PATCH", f"endpoints/{found[0]['id']}", {"endpoint": {"url": url}})
            self.done.append(f"moved the {interface} endpoint from {found[0]['url']} to {url}")

    def _call(self, method: str, path: str, body: Any = None, *, allowed: tuple[int, ...] = ()) -> Any:
        answer = self._session.request(f"{self._base}/{path}", method, json=body, raise_exc=False)
        if answer.status_code >= 400 and answer.status_code not in allowed:
            raise failures.from_response(answer, method, path)
        return answer

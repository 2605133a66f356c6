"""What Keystone allows projects to have of this service: its registered limits, and those of single projects.

Remembered for `limits_cache_time` seconds. While Keystone does not answer, what it said last counts on; a project that
was never asked about is refused then. keystoneauth blocks, so it works in two threads of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from keystoneauth1 import exceptions

from xloud_image.config.settings import KeystoneSettings
from xloud_image.errors import IdentityUnavailable
from xloud_image.identity.validator import connect, plugin

if TYPE_CHECKING:
    from keystoneauth1 import adapter

    from xloud_image.config.settings import LimitSettings

_LOG = logging.getLogger(__name__)

RESOURCES: Final = ("image_size_total", "image_stage_total", "image_count_total", "image_count_uploading")
UNLIMITED: Final = -1
SECTION: Final = "oslo_limit"
_PROJECTS: Final = 10_000  # that are remembered
_DOWN_FOR: Final = 2.0  # seconds for which nobody waits for a Keystone that just failed


class KeystoneLimits:
    """One per process. ConfigError when the auth plugin cannot be made of the options. State: what Keystone said."""

    def __init__(self, settings: LimitSettings, *, lasts: float) -> None:
        self._settings, self._lasts = settings, lasts
        self._keystone = KeystoneSettings(
            auth_type=settings.auth_type,
            auth=settings.auth,
            region_name=settings.region_name,
            interface=next(iter(settings.valid_interfaces), "internal"),
            cafile=settings.cafile,
            certfile=settings.certfile,
            keyfile=settings.keyfile,
            insecure=settings.insecure,
            http_connect_timeout=settings.timeout,
            http_request_max_retries=0,
        )
        self._plugin = plugin(self._keystone, SECTION)
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None
        self._adapter: adapter.Adapter | None = None
        self._known: dict[str, tuple[float, Mapping[str, int]]] = {}
        self._flights: dict[str, asyncio.Task[Mapping[str, int]]] = {}
        self._down_until = 0.0

    async def aclose(self) -> None:
        """Calls that are under way end with their own timeouts."""
        for flight in self._flights.values():
            flight.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._adapter is not None:
            self._adapter.session.session.close()

    async def of(self, project: str) -> Mapping[str, int]:
        """The limit of each of RESOURCES, in Keystone's units (MiB, images), UNLIMITED for none.

        What has no registered limit has the limit 0, as with every service that asks Keystone. `IdentityUnavailable`.
        """
        known = self._known.get(project)
        if known is not None and time.monotonic() < known[0] + self._lasts:
            return known[1]
        if time.monotonic() < self._down_until:
            return self._last(project)
        flight = self._flights.get(project)
        if flight is None:
            flight = self._flights[project] = asyncio.create_task(self._fetch(project), name="ask for limits")
            flight.add_done_callback(lambda _: self._flights.pop(project, None))
        return await asyncio.shield(flight)

    def _last(self, project: str) -> Mapping[str, int]:
        known = self._known.get(project)
        if known is None:
            raise IdentityUnavailable(
                "The identity service (Keystone) cannot be asked what this project may have; try again.",
                headers={"Retry-After": "2"},
            )
        return known[1]

    async def _fetch(self, project: str) -> Mapping[str, int]:
        if self._threads is None:
            self._threads = concurrent.futures.ThreadPoolExecutor(2, "limits")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(3.0 * self._settings.timeout):
                found = await loop.run_in_executor(self._threads, self._ask, project)
        except TimeoutError:
            failure = "no answer in time"
        except _Failure as error:
            failure = str(error)
        else:
            if len(self._known) >= _PROJECTS:
                self._known.clear()
            self._known[project] = time.monotonic(), found
            return found
        if time.monotonic() >= self._down_until:
            _LOG.error("Keystone does not tell the limits of projects, the last ones count: %s", failure)
        self._down_until = time.monotonic() + _DOWN_FOR
        return self._last(project)

    # in a thread

    def _ask(self, project: str) -> Mapping[str, int]:
        try:
            if self._adapter is None:
                self._adapter = connect(self._keystone, self._plugin)
            service, region = self._place()
            registered = self._all("registered_limits", service_id=service)
            own = self._all("limits", service_id=service, project_id=project)
        except exceptions.ClientException as error:
            raise _Failure(f"{error} (the account of [{SECTION}])") from None
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _Failure(f"an answer that cannot be read ({type(error).__name__}: {error})") from None
        found = dict.fromkeys(RESOURCES, 0)
        for rows, field in ((registered, "default_limit"), (own, "resource_limit")):
            # those of our region win over those of no region
            for row in sorted(rows, key=lambda row: row.get("region_id") is not None):
                ours = row.get("region_id") in (None, region) and row.get("project_id", project) == project
                if ours and row["resource_name"] in found:
                    found[row["resource_name"]] = int(row[field])
        return found

    def _place(self) -> tuple[str, str | None]:
        """Service and region that the limits are registered for."""
        settings = self._settings
        if settings.endpoint_id:
            found = self._get(f"/endpoints/{settings.endpoint_id}")["endpoint"]
            return str(found["service_id"]), found.get("region_id")
        wanted = {"type": settings.endpoint_service_type, "name": settings.endpoint_service_name}
        services = self._all("services", **{name: value for name, value in wanted.items() if value})
        if not services:
            raise _Failure(f"it knows no service of type {settings.endpoint_service_type}; set [{SECTION}] endpoint_id")
        return str(services[0]["id"]), settings.endpoint_region_name or settings.region_name

    def _all(self, what: str, **query: str) -> list[dict[str, Any]]:
        words = "&".join(f"{name}={value}" for name, value in query.items())
        found: list[dict[str, Any]] = self._get(f"/{what}?{words}")[what]
        return found

    def _get(self, path: str) -> Any:
        assert self._adapter is not None
        return self._adapter.get(path).json()


class _Failure(Exception):
    """Keystone does not say it."""

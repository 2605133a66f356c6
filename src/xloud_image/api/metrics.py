"""Numbers for Prometheus: what the processes of a service count, and the state of its images, work and stores.

All processes of a service write into one folder of this host, and whichever is asked adds up what all have written. The
state is looked at beside the answers, at most once in STATE seconds for the whole host, and is told with its age: a
scrape of a million images costs what one of ten does. `/metrics` beside the API is for those who may see the stores in
detail; with `[xloud] metrics_port` there is a port of its own that asks nobody who he is.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from xloud_image.api.messages import METHODS
from xloud_image.api.state import RUNTIME, context, runtime
from xloud_image.cache.directory import Directory
from xloud_image.db import statistics as counts
from xloud_image.errors import ImageServiceError
from xloud_image.services import statistics
from xloud_image.services.runtime import Runtime

log = structlog.get_logger(__name__)

PATH: Final = "/metrics"
STATE: Final = 30.0  # seconds for which a look at the state serves
MOST_IMAGES: Final = 10_000  # that are told one by one, the newest, with `metrics_compat`
_FIRST: Final = 10.0  # seconds that the first scrape waits for the first look
_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # the library looks there when it is imported

_REQUESTS: Final = Counter("xloud_image_requests_total", "Requests that were answered.", ("route", "method", "status"))
_SECONDS: Final = Histogram(
    "xloud_image_request_seconds",
    "From a request's headers to the end of its answer.",
    ("route", "method"),
    buckets=(0.005, 0.025, 0.1, 0.5, 2, 10, 60, 600),
)


def count(request: web.Request, status: int, seconds: float) -> None:
    """Note an answered request."""
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "none"
    method = request.method if request.method in METHODS else "other"  # a stranger may send any word
    _REQUESTS.labels(route, method, status).inc()
    _SECONDS.labels(route, method).observe(seconds)


def forget(pid: int) -> None:
    """A process has ended: what it had under way is under way no more. What it has counted stays."""
    if os.environ.get(_FOLDER):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


async def show(request: web.Request) -> web.Response:
    """GET /metrics → 200, for administrators and services."""
    runtime(request).policy.require(context(request), "stores_info_detail")
    return await _answer(request)


async def _answer(request: web.Request) -> web.Response:
    held = runtime(request)
    state = await _state(held)
    if state is not None and not held.settings.server.metrics_compat:  # another configuration may have looked
        state = {name: value for name, value in state.items() if name != "each"}
    cached = await _of_cache(held)
    text = await asyncio.to_thread(_text, state, cached)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


def build(held: Runtime) -> web.Application:
    """The application of the port for metrics: GET /metrics, without login, and nothing else."""
    app = web.Application()
    app[RUNTIME] = held
    app.router.add_get(PATH, _answer)
    return app


async def _of_cache(held: Runtime) -> list[Metric]:
    """What this node's image cache takes now; nothing without one."""
    if held.cache is None:
        return []
    try:
        images, size = await held.cache.act(Directory.usage)
    except ImageServiceError:
        return []
    return [
        _gauge("xloud_image_cache_images", "Images in the cache of this node.", (), [((), images)]),
        _gauge("xloud_image_cache_taken_bytes", "Bytes of the disk that they take.", (), [((), size)]),
        _gauge("xloud_image_cache_limit_bytes", "Bytes that they may take.", (), [((), held.cache.directory.limit)]),
    ]


class _Told(Collector):
    """Numbers that are known already."""

    def __init__(self, numbers: Sequence[Metric]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        return self._numbers


def _text(state: dict[str, Any] | None, cached: Sequence[Metric]) -> bytes:
    own = CollectorRegistry()
    own.register(_Told(cached))
    if state is not None:
        own.register(_State(state))
    if not os.environ.get(_FOLDER):
        return generate_latest(REGISTRY) + generate_latest(own)
    MultiProcessCollector(own)  # type: ignore[no-untyped-call]
    return generate_latest(own)


# the state: one file of the host, renewed by whoever finds it old and has its lock

_looking: dict[str, asyncio.Task[dict[str, Any]]] = {}


async def _state(held: Runtime) -> dict[str, Any] | None:
    """The last look, which a new one follows where it is old; None when there was none in time."""
    known = await asyncio.to_thread(_read)
    if known is not None and time.time() - float(known["at"]) < STATE:
        return known
    task = _looking.get("now")
    if task is None or task.done():
        task = _looking["now"] = held.spawn(_look(held, known), "look at the state")
    if known is not None:
        return known
    done, _ = await asyncio.wait((task,), timeout=_FIRST)
    return task.result() if done and not task.cancelled() and task.exception() is None else None


async def _look(held: Runtime, known: dict[str, Any] | None) -> dict[str, Any]:
    folder = os.environ.get(_FOLDER)
    lock = await asyncio.to_thread(_lock, folder) if folder else -1
    if lock is None:  # another process of this host looks
        await asyncio.sleep(0.2)
        return await asyncio.to_thread(_read) or known or await _looked(held)
    try:
        found = await _looked(held)
        await asyncio.to_thread(_write, found)
        return found
    finally:
        if lock >= 0:
            os.close(lock)


async def _looked(held: Runtime) -> dict[str, Any]:
    facts = await statistics.look(held)
    found: dict[str, Any] = {name: getattr(facts, name) for name in facts.__dataclass_fields__}
    if held.settings.server.metrics_compat:
        try:
            found["each"] = list(await held.db.read(lambda conn: counts.each_image(conn, limit=MOST_IMAGES)))
        except ImageServiceError as error:
            found["failed"] = error.message
            found["each"] = []
    return found


_kept: dict[str, Any] = {}  # without a folder: of this process


def _file() -> Path | None:
    folder = os.environ.get(_FOLDER)
    return Path(folder, "state.json") if folder else None


def _read() -> dict[str, Any] | None:
    file = _file()
    if file is None:
        return _kept or None
    try:
        return orjson.loads(file.read_bytes())  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None


def _write(found: dict[str, Any]) -> None:
    file = _file()
    if file is None:
        _kept.update(found)
        return
    new = file.with_suffix(f".{os.getpid()}")
    new.write_bytes(orjson.dumps(found))
    new.replace(file)


def _lock(folder: str) -> int | None:
    """A descriptor that holds the lock; None while somebody else does."""
    descriptor = os.open(os.path.join(folder, "state.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


class _State(Collector):
    """The last look as numbers."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        state = self._state
        yield _gauge("xloud_image_state_seconds", "Age of what follows.", (), [((), time.time() - state["at"])])
        up = 0 if state["failed"] else 1
        yield _gauge("xloud_image_database_up", "Whether the database could be asked.", (), [((), up)])
        images = [(row[:3], row[3], row[4]) for row in state["images"]]
        labels: tuple[str, ...] = ("status", "visibility", "type")
        yield _gauge("xloud_image_images", "Images.", labels, [(of, number) for of, number, _ in images])
        yield _gauge("xloud_image_image_bytes", "Their bytes.", labels, [(of, size) for of, _, size in images])
        claims = state["claims"]
        deletions = [(row[1:2], row[2]) for row in claims if row[0] == "delete"]
        yield _gauge("xloud_image_pending_deletions", "Data whose removal is pending.", ("store",), deletions)
        ages = [(row[1:2], row[3]) for row in claims if row[0] == "delete"]
        yield _gauge("xloud_image_pending_deletions_oldest_seconds", "For how long.", ("store",), ages)
        under = [(row[:2], row[2]) for row in claims if row[0] != "delete"]
        yield _gauge("xloud_image_claims", "Data that no image shows yet, by what for.", ("kind", "store"), under)
        jobs = [(row[:2], row[2], row[3]) for row in state["jobs"]]
        labels = ("kind", "state")
        yield _gauge("xloud_image_jobs", "Unfinished long work.", labels, [(of, number) for of, number, _ in jobs])
        ages = [(of, age) for of, _, age in jobs]
        yield _gauge("xloud_image_jobs_oldest_seconds", "Age of the oldest.", labels, ages)
        yield _gauge("xloud_image_job_workers", "Processes that do long work.", (), [((), state["workers"])])
        stores = state["stores"]
        labels = ("store", "type")
        sick = [((row[0], row[1]), 0 if row[2] else 1) for row in stores]
        yield _gauge("xloud_image_store_up", "Whether the store can be used.", labels, sick)
        free = [((row[0], row[1]), row[3]) for row in stores if row[3] is not None]
        yield _gauge("xloud_image_store_free_bytes", "Room, where the store can tell.", labels, free)
        reasons = [((row[0], str(row[2])[:200]), 1) for row in stores if row[2]]
        yield _gauge("xloud_image_store_error", "What is wrong with it now.", ("store", "reason"), reasons)
        if "each" in state:
            yield from _compat(state, up)


def _compat(state: dict[str, Any], up: int) -> Iterable[Metric]:
    """The names and labels of the usual exporter of OpenStack."""
    yield _gauge("openstack_glance_up", "up", (), [((), up)])
    yield _gauge("openstack_glance_images", "images", (), [((), sum(row[3] for row in state["images"]))])
    each = state["each"]
    sizes = [((one[0], one[1], one[2], one[3]), one[4]) for one in each]
    labels: tuple[str, ...] = ("id", "name", "tenant_id", "image_type")
    yield _gauge("openstack_glance_image_bytes", "image_bytes", labels, sizes)
    made = [((one[0], one[1], one[2], one[6], str(one[7]).lower(), one[8]), one[5]) for one in each]
    labels = ("id", "name", "tenant_id", "visibility", "hidden", "status")
    yield _gauge("openstack_glance_image_created_at", "image_created_at", labels, made)


def _gauge(
    name: str, help_: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help_, labels=labels)
    for of, value in values:
        family.add_metric(list(of), value)
    return family

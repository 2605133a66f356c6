"""Requests without data: show, list, filters, create and delete, PATCH.

Without auth, and with tokens of a real Keystone, validated and cached.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench import load
from bench.peers import Glance
from bench.report import HIGHER, LOWER
from bench.runs import Broken, together
from xloud_image.metadefs.files import STANDARD

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.peers import Server
    from bench.runs import Run, Seen

PATCH = "application/openstack-images-v2.1-json-patch"
COUNT = 10_000
Steps = list[list[Any]]


def show(run: Run) -> None:
    """GET one image with three properties and two tags."""
    # every tenth image belongs to the project of the row
    steps: Steps = [["GET", f"/v2/images/{load.image_id(4240)}", {}, None]]
    for auth in ("none", "keystone"):
        seen = {clients: _measure(run, auth, clients, lambda _: steps) for clients in (1, 8)}
        row = "show" if auth == "none" else "show, Keystone"
        _cost(run, row, "GET one image", seen, at_most=1.5)
        for clients, (peer, ours) in seen.items():
            work = f"GET one image, {clients} client{'s' if clients > 1 else ''}"
            run.report.add(row, work, "requests/s", HIGHER, peer=_rate(peer), ours=_rate(ours), times=5)
            if run.peer is not Glance:
                continue
            run.report.add(
                row,
                f"{work}: our p99, the peer's p50",
                "ms",
                LOWER,
                peer=1000 * peer.client["p50"],
                ours=1000 * ours.client["p99"] if ours else None,
                times=1,
                target="≤ the peer's p50",
            )


def lists(run: Run) -> None:
    """The first 25 of 10,000 images."""
    _row(
        run,
        "list",
        "25 of 10,000",
        ("none", "keystone"),
        lambda _: [["GET", "/v2/images", {}, None]],
        images=25,
    )


def create(run: Run) -> None:
    """POST an image and DELETE it; each counts as a request."""
    body = {
        "id": "@NEW@",
        "name": "bench",
        "disk_format": "raw",
        "container_format": "bare",
        "tags": ["bench"],
        "os_distro": "debian",
        "hw_disk_bus": "virtio",
    }
    steps: Steps = [
        ["POST", "/v2/images", {"Content-Type": "application/json"}, json.dumps(body)],
        ["DELETE", "/v2/images/@NEW@", {}, None],
    ]
    _row(run, "create", "POST, DELETE", ("none", "keystone"), lambda _: steps, expect=[201, 204])


def patch(run: Run) -> None:
    """Replace a property; each client has an image of its own."""
    body = [{"op": "replace", "path": "/hw_disk_bus", "value": "virtio-@NEW@"}]

    def steps(_: Server) -> Steps:
        return [["PATCH", "/v2/images/@MINE@", {"Content-Type": PATCH}, json.dumps(body)]]

    mine: dict[str, list[str]] = {}

    def images(server: Server) -> list[str]:
        if server.database not in mine:
            who = run.who(server.auth)
            fields = {"hw_disk_bus": "virtio", "os_distro": "debian", "tags": ["bench"]}
            mine[server.database] = [run.create(server, who, **fields) for _ in range(8)]
        return mine[server.database]

    _row(run, "patch", "PATCH", ("none", "keystone"), steps, mine=images)


def filters(run: Run) -> None:
    """Lists of 10,000 images by name, by property and by tag."""
    for what, query, count in (
        ("name", "name=image-4240", 1),
        ("property", "build=b40", 25),
        ("tag", "tag=t40", 25),
    ):
        steps: Steps = [["GET", f"/v2/images?{query}", {}, None]]
        _row(run, "filter", f"by {what}", ("none",), lambda _, steps=steps: steps, images=count)  # type: ignore[misc]


def metadefs(run: Run) -> None:
    """28 namespaces of metadata definitions, as both services know them: their list, and the dialog of a dashboard."""
    known = sorted(STANDARD.glob("*.json"))[:28]
    bodies = [json.loads(file.read_text()) for file in known]
    for server in run.both("none"):
        there = server.call("GET", "/v2/metadefs/namespaces?limit=1000")["namespaces"]
        for body in bodies if not there else ():
            server.call("POST", "/v2/metadefs/namespaces", body)
        listed = server.call("GET", "/v2/metadefs/namespaces?limit=1000")["namespaces"]
        if len(listed) != len(bodies):
            raise Broken(f"{server.name} lists {len(listed)} namespaces, not {len(bodies)}")
    every: Steps = [["GET", "/v2/metadefs/namespaces?limit=1000", {}, None]]
    image = "OS::Glance::Image"
    of_images = [
        body["namespace"] for body in bodies if any(one["name"] == image for one in body["resource_type_associations"])
    ]
    dialog: Steps = [
        ["GET", f"/v2/metadefs/namespaces?resource_types={image}", {}, None],
        *(["GET", f"/v2/metadefs/namespaces/{name}?resource_type={image}", {}, None] for name in of_images),
    ]
    for work, steps in (("28 namespaces", every), (f"the dialog of images, {len(dialog)} calls", dialog)):
        seen = {1: _measure(run, "none", 1, lambda _, steps=steps: steps, fill=False)}  # type: ignore[misc]
        _cost(run, "metadefs", work, seen, times=5)


def _row(run: Run, row: str, work: str, auths: tuple[str, ...], steps: Callable[[Server], Steps], **more: Any) -> None:
    """All figures of one work that is to be eight times better."""
    for auth in auths:
        name = row if auth == "none" else f"{row}, Keystone"
        seen = {clients: _measure(run, auth, clients, steps, **more) for clients in (1, 8)}
        _cost(run, name, work, seen, times=8)
        for clients, (peer, ours) in seen.items():
            text = f"{work}, {clients} client{'s' if clients > 1 else ''}"
            run.report.add(name, text, "requests/s", HIGHER, peer=_rate(peer), ours=_rate(ours), times=8)


def _measure(
    run: Run,
    auth: str,
    clients: int,
    steps: Callable[[Server], Steps],
    images: int | None = None,
    fill: bool = True,
    **more: Any,
) -> tuple[Seen, Seen | None]:
    """The same load on both, after a short one that fills caches and pools.

    `images`: how many the first step must list; whoever answers something else is not measured. `fill`: whether there
    are COUNT images.
    """
    seen: dict[str, list[Seen]] = {}
    specs: dict[Server, dict[str, Any]] = {}
    for server in run.both(auth):
        if fill:
            run.fill(server, COUNT)
        spec = {"steps": steps(server), "connections": clients, "headers": run.who(auth), **more}
        if "mine" in spec:
            spec["mine"] = spec["mine"](server)
        if images is not None:
            listed = len(server.call("GET", spec["steps"][0][1], headers=run.who(auth))["images"])
            if listed != images:
                raise Broken(f"{server.name}: {spec['steps'][0][1]} lists {listed} images, not {images}")
        specs[server] = spec
        run.measure(server, "load", **spec, seconds=1)
        seen[server.role] = []
    # in turn, so that a disturbed moment meets both
    for _ in range(run.repeats):
        for server, spec in specs.items():
            seen[server.role].append(run.measure(server, "load", **spec, seconds=2 if run.quick else 3))
    return together(seen["peer"]), together(seen["ours"]) if "ours" in seen else None


def _rate(seen: Seen | None) -> float | None:
    return seen.client["rate"] if seen else None


def _cost(run: Run, row: str, work: str, seen: dict[int, tuple[Seen, Seen | None]], **aim: Any) -> None:
    """Processor time a request in the service (with its aim) and in MariaDB, over all loads."""

    def mean(which: int, field: str) -> float | None:
        some = [pair[which] for pair in seen.values()]
        total = sum(getattr(one, field) for one in some if one)
        count = sum(one.client["count"] for one in some if one)
        return 1000 * total / count if count else None

    run.report.add(row, work, "ms CPU", LOWER, peer=mean(0, "cpu"), ours=mean(1, "cpu"), **aim)
    run.report.add(
        row,
        f"{work}: in MariaDB",
        "ms CPU",
        LOWER,
        peer=mean(0, "database_cpu"),
        ours=mean(1, "database_cpu"),
    )

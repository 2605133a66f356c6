"""A day with this service, on what a Glance left behind: it adds, changes, shares, imports and deletes."""

from __future__ import annotations

from urllib.parse import quote

from tests.swap.past import DATA, ODD, Past, content, image, imported, namespace, patch, place, until
from tests.swap.site import ADMIN, FRIEND, OWNER, WHO, Site


def spent(site: Site, past: Past) -> Past:
    """Do it; what Glance shall find afterwards. `kinds` are the images that were touched."""
    new = added(site)
    touched = [*new.values(), *changed(site, past), *shared(site, past), *deleted(site, past, new)]
    definitions(site)
    every = dict.fromkeys([*past.all, *touched])
    return Past({**past.made, **new}, list(dict.fromkeys(touched)), list(every), past.tasks)


def added(site: Site) -> dict[str, str]:
    """Images of each kind, by the ways that there are."""
    made = {
        "small": image(site, "small", content(50), tags=["day two", "größe"], visibility="community", os_type="linux"),
        "nothing": image(site, "nothing", b"", visibility="shared"),
        "elsewhere": image(site, "elsewhere", content(51), store="slow", protected=True, hw_disk_bus="virtio"),
        "plain": image(site, None, disk_format=None, container_format=None),
        "odd again": image(site, ODD[1], content(52), **{"key " + ODD[0]: ODD[0], "later": "y" * 3000}),
        "kept": image(site, "kept", content(53), who=ADMIN, visibility="public", secret_key="s", licence="dear"),
        "web too": image(site, "web too", who=ADMIN, visibility="public"),
        "registered too": image(site, "registered too", who=ADMIN, visibility="shared", owner=WHO[OWNER].project),
        "imported too": image(site, "imported too", visibility="shared"),
        "copied too": image(site, "copied too", content(54)),
    }  # fmt: skip
    patch(site, made["web too"], place(site.web, store="web", note="ü"), who=ADMIN)
    site.done("POST", f"/v2/images/{made['registered too']}/locations", json={"url": site.web})
    until(site, made["registered too"], lambda shown: bool(shown["os_hash_value"]))
    imported(site, made["imported too"], content(55))
    copied(site, made["copied too"], "slow")
    return made


def copied(site: Site, one: str, store: str) -> None:
    """By an import into one more store."""
    copy = {"method": {"name": "copy-image"}, "stores": [store]}
    site.done("POST", f"/v2/images/{one}/import", ADMIN, json=copy)
    until(site, one, lambda shown: set(shown["stores"].split(",")) == {"fast", "slow"} and not _flies(shown))


def _flies(shown: dict[str, str]) -> bool:
    return bool(shown.get("os_glance_importing_to_stores"))


def changed(site: Site, past: Past) -> list[str]:
    """Images of Glance's."""
    of = past.made
    patch(site, of["file"], {"op": "add", "path": "/day", "value": "two"}, {"op": "remove", "path": "/hw_disk_bus"},
          {"op": "replace", "path": "/min_ram", "value": 7}, {"op": "replace", "path": "/name", "value": "ü☃\n"},
          {"op": "replace", "path": "/tags", "value": ["new", "even"]})  # fmt: skip
    patch(site, of["shrunk"], {"op": "add", "path": "/gone", "value": "is back"}, {"op": "remove", "path": "/back"})
    patch(site, of["secret"], {"op": "replace", "path": "/secret_key", "value": "t"}, who=ADMIN)
    patch(site, of["protected"], {"op": "replace", "path": "/protected", "value": False})
    patch(site, of["odd 4"], place(site.web, store="web"))
    patch(site, of["odd 3"], {"op": "replace", "path": "/visibility", "value": "community"},
          {"op": "replace", "path": "/os_hidden", "value": True})  # fmt: skip
    patch(site, of["formats"], {"op": "replace", "path": "/disk_format", "value": "raw"})
    site.done("PUT", f"/v2/images/{of['formats']}/file", OWNER, body=content(60), headers=DATA)
    site.done("POST", f"/v2/images/{of['staged']}/import", OWNER, json={"method": {"name": "glance-direct"}})
    until(site, of["staged"], lambda shown: shown["status"] == "active")
    site.done("PUT", f"/v2/images/{of['slow']}/tags/{quote('größe')}", OWNER)
    site.done("DELETE", f"/v2/images/{of['odd']}/tags/{quote('größe')}", OWNER)
    site.done("DELETE", f"/v2/stores/slow/{of['copied']}", ADMIN)
    site.done("POST", f"/v2/images/{of['deactivated']}/actions/reactivate", OWNER)
    site.done("POST", f"/v2/images/{of['imported']}/actions/deactivate", OWNER)
    names = (
        "file",
        "shrunk",
        "secret",
        "protected",
        "slow",
        "odd 3",
        "odd 4",
        "formats",
        "staged",
        "odd",
        "copied",
        "imported",
    )
    return [of[name] for name in (*names, "deactivated")]


def shared(site: Site, past: Past) -> list[str]:
    """Members come, answer and go."""
    friend, odd, registered = WHO[FRIEND].project, past.made["odd"], past.made["registered"]
    site.done("POST", f"/v2/images/{odd}/members", OWNER, json={"member": "d" * 32})  # it was one before
    site.done("DELETE", f"/v2/images/{odd}/members/{friend}", OWNER)
    site.done("PUT", f"/v2/images/{registered}/members/{friend}", FRIEND, json={"status": "accepted"})
    mine = image(site, "shared", content(61), visibility="shared")
    for member in (friend, "größe"):
        site.done("POST", f"/v2/images/{mine}/members", OWNER, json={"member": member})
    return [mine, odd, registered]


def deleted(site: Site, past: Past, new: dict[str, str]) -> list[str]:
    """Images of ours and of Glance's, of which some are copies by rows; all of what could be deleted in some status."""
    gone = [past.made["several"], past.made["odd 2"], new["small"]]
    seen: set[str] = set()
    for one in past.all[len(past.made) :]:
        shown = site.call("GET", f"/v2/images/{one}")
        if shown.status == 200 and (status := shown.json()["status"]) not in seen and not shown.json()["protected"]:
            seen.add(status)
            gone.append(one)
        if len(seen) == 5:
            break
    for one in gone:
        site.done("DELETE", f"/v2/images/{one}")
    return gone


def definitions(site: Site) -> None:
    """Of metadata."""
    base = "/v2/metadefs/namespaces"
    namespace(site, 6)
    site.done("DELETE", f"{base}/OS::Swap::Number1")
    site.done("DELETE", f"{base}/OS::Swap::Number2/tags/small")
    site.done("DELETE", f"{base}/OS::Swap::Number2/properties/bus")
    site.done("PUT", f"{base}/OS::Swap::Number3", json={
        "namespace": "OS::Swap::Renamed", "display_name": "Renamed", "visibility": "public", "protected": False,
    })  # fmt: skip
    site.done("PUT", f"{base}/OS::Swap::Number4/properties/cores",
              json={"name": "cores", "title": "Cores", "type": "integer", "maximum": 128})  # fmt: skip
    site.done("POST", f"{base}/OS::Swap::Number4/resource_types", json={"name": "OS::Cinder::Volume"})

"""Metadata definitions by both clients as an administrator uses them, with a real Keystone: `openstack image metadef …`
and glanceclient's `md-*`, which checks what it sends and gets by our schemas.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.clients.test_glance import Glance, releases
from tests.conftest import ServiceFactory
from tests.servers.client import OpenStack
from tests.servers.keystone import Keystone
from xloud_image.metadefs import files

# every command is a new process of a second or more
pytestmark = pytest.mark.timeout(600)
SCHEMA = json.dumps({"type": "string", "enum": ["a", "b"], "default": "a"})


def test_openstackclient(service: ServiceFactory, openstack: OpenStack, keystone: Keystone) -> None:
    one = service(keystone.sections())
    keystone.set_image_url(one.url)
    openstack.clouds = keystone.clouds()

    def run(*words: str, who: str = "admin") -> Any:
        command = ("image", "metadef", *words)
        shows = words[-1] == "-"
        return openstack.json(*command[:-1], cloud=who) if shows else openstack.run(*command, cloud=who)

    run("namespace", "create", "CLI", "--display-name", "By hand", "--public")
    run("namespace", "set", "CLI", "--description", "Tried", "--public", "--unprotected", "--display-name", "Again")
    shown = run("namespace", "show", "CLI", "-", who="demo")
    assert (shown["display_name"], shown["visibility"], shown["protected"]) == ("Again", "public", False)
    assert [row["namespace"] for row in run("namespace", "list", "-", who="demo")] == ["CLI"]

    run("property", "create", "CLI", "--name", "one", "--title", "One", "--type", "string", "--schema", SCHEMA)
    run("property", "set", "CLI", "one", "--title", "Uno")
    assert run("property", "show", "CLI", "one", "-", who="demo")["title"] == "Uno"
    assert [row["name"] for row in run("property", "list", "CLI", "-")] == ["one"]

    run("object", "create", "thing", "--namespace", "CLI")
    run("object", "update", "CLI", "thing", "--name", "object")
    assert run("object", "show", "CLI", "object", "-", who="demo")["name"] == "object"
    assert [row["name"] for row in run("object", "list", "CLI", "-")] == ["object"]

    run("resource", "type", "association", "create", "CLI", "OS::Nova::Flavor")
    assert "OS::Nova::Flavor" in json.dumps(run("resource", "type", "association", "list", "CLI", "-"))
    assert "OS::Nova::Flavor" in json.dumps(run("resource", "type", "list", "-"))
    run("resource", "type", "association", "delete", "CLI", "OS::Nova::Flavor")
    run("property", "delete", "CLI", "one")
    run("object", "delete", "CLI", "object")
    refused = openstack.try_run("image", "metadef", "namespace", "delete", "CLI", cloud="demo")
    assert refused.code != 0
    assert "You may not delete a metadata namespace" in refused.stderr + refused.stdout
    run("namespace", "delete", "CLI")
    assert run("namespace", "list", "-") == []


@releases
def test_glanceclient(release: str, service: ServiceFactory, keystone: Keystone, tmp_path: Path) -> None:
    one = service(keystone.sections())
    admin, demo = (Glance(one, keystone.token(name), release) for name in ("admin", "demo"))
    admin.run("md-namespace-create", "Own", "--display-name", "Own", "--visibility", "private")
    assert "Own" not in demo.run("md-namespace-list")
    admin.run("md-namespace-delete", "Own")
    file = tmp_path / "namespace.json"
    file.write_text((files.STANDARD / "runtimes.json").read_text().replace("OS::Software::Runtimes", "Soft"))
    admin.run("md-namespace-import", "--file", file)
    assert "Python" in demo.run("md-namespace-show", "Soft")
    assert "Soft" in demo.run("md-namespace-list", "--resource-types", "OS::Glance::Image")
    admin.run("md-namespace-update", "--protected", "False", "--visibility", "public", "Soft")
    assert "Java" in demo.run("md-object-list", "Soft")
    assert demo.table("md-object-show", "Soft", "Java")["name"] == "Java"
    assert "Version" in demo.run("md-object-property-show", "Soft", "Java", "sw_runtime_java_version")
    schema = json.dumps({"x": {"title": "X", "type": "string"}})
    admin.run("md-object-update", "Soft", "Java", "--name", "Kotlin", "--schema", json.dumps({"properties": {}}))
    admin.run("md-object-create", "Soft", "--name", "Lua", "--schema", json.dumps({"properties": json.loads(schema)}))
    admin.run("md-object-delete", "Soft", "Lua")
    kind = ("--type", "string") if release == "newest" else ()  # the older one takes it from the schema
    admin.run("md-property-create", "Soft", "--name", "p", "--title", "P", *kind, "--schema", SCHEMA)
    admin.run("md-property-update", "Soft", "p", "--name", "q", "--title", "Q")
    assert demo.table("md-property-show", "Soft", "q")["title"] == "Q"
    assert "q" in demo.run("md-property-list", "Soft")
    admin.run("md-property-delete", "Soft", "q")
    admin.run("md-tag-create", "Soft", "--name", "one")
    admin.run("md-tag-update", "Soft", "one", "--name", "1")
    assert "1" in demo.run("md-tag-list", "Soft").split()
    assert demo.table("md-tag-show", "Soft", "1")["name"] == "1"
    admin.run("md-tag-delete", "Soft", "1")
    # its --append fails before it sends anything
    admin.run("md-tag-create-multiple", "Soft", "--names", "two,three")
    assert {"two", "three"} <= set(demo.run("md-tag-list", "Soft").split())
    admin.run("md-resource-type-associate", "Soft", "--name", "OS::Nova::Aggregate", "--prefix", "a:")
    assert "OS::Nova::Aggregate" in demo.run("md-resource-type-list")
    assert "OS::Nova::Aggregate" in demo.run("md-namespace-resource-type-list", "Soft")
    admin.run("md-resource-type-deassociate", "Soft", "OS::Nova::Aggregate")
    for held in ("objects", "properties", "tags"):
        admin.run(f"md-namespace-{held}-delete", "Soft")
    assert "403" in demo.run("md-namespace-delete", "Soft", fails=True)
    admin.run("md-namespace-delete", "Soft")
    assert "404" in admin.run("md-namespace-show", "Soft", fails=True)

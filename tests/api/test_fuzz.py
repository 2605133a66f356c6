"""A fuzzer that knows nothing but /openapi.json drives every call of the real service.

No 5xx but the documented 503, every status documented, every answer of the documented type and shape, what the schemas
refuse refused, and what is deleted gone. schemathesis has three ways of asking: all edges of every schema one by one,
at random, and in sequences along the links from a new image. XLOUD_IMAGE_FUZZ multiplies what the last two do; they
are bounded by counts, so that a busy machine takes longer and does no less.
"""

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.servers.mariadb import MariaDB
from tests.servers.place import ROOT
from tests.servers.postgresql import PostgreSQL
from tests.servers.service import Sections, Service
from xloud_image.api.routes import HEALTH, ROUTES
from xloud_image.metadefs.files import STANDARD

TIMES = int(os.environ.get("XLOUD_IMAGE_FUZZ", "1"))
OCTETS = {"content-type": "application/octet-stream"}
CONFIGURATION = """
hooks = "{hooks}"

[checks]
not_a_server_error = {{ expected-statuses = ["1xx", "2xx", "3xx", "4xx", 503] }}
negative_data_rejection = {{ expected-statuses = ["4xx", 503] }}
# formats must be set before data, URLs must belong to a store, …: no schema says so
positive_data_acceptance = {{ enabled = false }}
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 * TIMES)]


# These calls are many and alike: they have a test of their own.
METADEFS = "^/v2/(schemas/)?metadefs/"
OTHERS = ("--exclude-path-regex", METADEFS)


def fuzz(
    one: Service, folder: Path, phases: str, *options: str, examples: int = 0, which: tuple[str, str] = OTHERS
) -> Any:
    """Run it to its end; its own report. `examples`: for each call, or sequences; the fuzzer's own number without.

    Fails with the fuzzer's words, which hold the command that reproduces.
    """
    configuration, report = folder / "configuration.toml", folder / "report.json"
    configuration.write_text(CONFIGURATION.format(hooks=ROOT / "tests" / "api" / "fuzz_hooks.py"))
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", configuration, "run"]
    options = ("--generation-database", "none", "--no-color", "--continue-on-failure", *which, *options)
    bounded = ("--max-examples", str(examples * TIMES)) if examples else ()
    done = subprocess.run(
        [*command, f"{one.url}/openapi.json", "--url", one.url, "--phases", phases, "--report-json-path", report,
         *options, *bounded],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4000:]
    assert one.exit_code is None
    result = json.loads(report.read_text())
    # how long the sequences are is chance
    assert result["test_cases"]["generated"] > (20 if phases == "stateful" else 100)
    assert not result["failures"]
    assert not result["errors"]
    return result


@contextlib.contextmanager
def started(sections: Sections) -> Iterator[Service]:
    """A service that must end well and log no traceback."""
    one = Service(sections)
    one.start()
    try:
        yield one
        assert one.stop() == 0
        assert "Traceback" not in one.log
    finally:
        one.kill()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two stores and images in several states, so that the calls find something."""
    more = {"filesystem_store_datadir": tmp_path_factory.mktemp("more")}
    with started({"DEFAULT": {"enabled_backends": "files:file,more:file"}, "more": more}) as one:
        seed(one)
        yield one


def seed(one: Service, headers: dict[str, str] | None = None) -> None:
    """Twelve images: queued, active and deactivated, with tags, a property and a member."""
    how = headers or {}
    for number in range(12):
        fields = {"name": f"image {number}", "disk_format": "raw", "container_format": "bare", "tags": ["a"], "os": "x"}
        image = one.request("POST", "/v2/images", json=fields, headers=how).json()["id"]
        path = f"/v2/images/{image}"
        assert one.request("POST", f"{path}/members", json={"member": "other"}, headers=how).status == 200
        if number % 3:
            assert one.request("PUT", f"{path}/file", body=b"0123456789", headers={**OCTETS, **how}).status == 204
        if number % 3 == 2:
            assert one.request("POST", f"{path}/actions/deactivate", headers=how).status == 204


# Calls that a body, a status or the state of this release does not let succeed by what a schema can say.
HARD = {
    ("PUT", "/v2/images/{image_id}/stage"),
    ("POST", "/v2/images/{image_id}/import"),
    ("GET", "/v2/images/{image_id}/tasks"),
    ("GET", "/v2/tasks/{task_id}"),
    ("POST", "/v2/images/{image_id}/actions/move"),
    ("POST", "/v2/images/{image_id}/locations"),
    ("POST", "/v2/tasks/{task_id}/actions/cancel"),
    ("DELETE", "/v2/stores/{store}/{image_id}"),
}


def test_all_edges(service: Service, tmp_path: Path) -> None:
    result = fuzz(service, tmp_path, "examples,coverage")
    assert result["complete"]
    document = service.request("GET", "/openapi.json").json()
    paths = document["paths"].items()
    known = [(method, path) for path, item in paths for method in item if not re.match(METADEFS, path)]
    # all but the one that the document was loaded from
    assert result["operations"]["tested"] == len(known) - 1


def test_at_random(service: Service, tmp_path: Path) -> None:
    fuzz(service, tmp_path, "fuzzing", examples=15)


def test_along_the_links(service: Service, tmp_path: Path) -> None:
    fuzz(service, tmp_path, "stateful", examples=40)


def test_metadefs(tmp_path: Path) -> None:
    """All edges of the calls of metadata definitions, in a database that has some. HEAD is left out, and with
    XLOUD_IMAGE_FUZZ = 1 what is done to objects, as it is done to properties: nothing takes as long as this.
    """
    less = ("--exclude-method", "HEAD", *(("--exclude-path-regex", "/objects") if TIMES == 1 else ()))
    with started({}) as one:
        one.run("metadefs", "load", str(STANDARD / "watchdog.json"))
        result = fuzz(one, tmp_path, "examples,coverage", *less, which=("--include-path-regex", METADEFS))
        assert result["complete"]
        calls = [route for route in ROUTES if re.match(METADEFS, route.path)]
        assert result["operations"]["tested"] == sum(TIMES > 1 or "/objects" not in route.path for route in calls)
        assert one.request("GET", "/v2/metadefs/namespaces").status == 200


def test_it_got_through(service: Service) -> None:
    """The three before reached every call, and nearly every one with success: they did not only meet refusals."""
    seen: dict[tuple[str, str], set[str]] = {}
    calls = {(route.method, route.path) for route in ROUTES if route.path != HEALTH}
    calls = {(method, path) for method, path in calls if not re.match(METADEFS, path)}
    patterns = [(method, path, re.compile(re.sub(r"{\w+}", "[^/]+", path))) for method, path in calls]
    for method, target, status in re.findall(r"event=request method=(\w+) path=(\S+) status=(\d)", service.log):
        for known, path, pattern in patterns:
            if known == method and pattern.fullmatch(target):
                seen.setdefault((method, path), set()).add(status)
                break
    if sum(map(len, seen.values())) < len(calls):
        pytest.skip("the other tests of this file did not run")
    assert not calls - set(seen)
    refused = {call for call, statuses in seen.items() if not statuses & {"2", "3"}} - HARD
    # there is no cache here, and an upload, or a deletion that is delayed, is begun in a way that is not at random
    refused = {(method, path) for method, path in refused if not re.search("cache|queued_images|uploads|restore", path)}
    # which of those that need two others before them were met in the right order is chance
    assert len(refused) <= 6, refused


def test_with_a_login_on_mariadb(mariadb: MariaDB, tmp_path: Path) -> None:
    """With http_basic; also that no call of /v2 answers without. In a character set that lacks most of Unicode."""
    users, projects = tmp_path / "users", tmp_path / "projects"
    users.write_text(f"alice:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    projects.write_text("alice:5f6b0b8a1d2c4e3f9a7b6c5d4e3f2a1b:member\n")
    files = {"http_basic_user_file": users, "http_basic_projects_file": projects}
    database = {"connection": mariadb.create_database(charset="utf8")}
    with started({"xloud": {"auth": "http_basic", **files}, "database": database}) as one:
        seed(one, {"authorization": f"Basic {base64.b64encode(b'alice:secret').decode()}"})
        assert fuzz(one, tmp_path, "coverage", "--auth", "alice:secret")["complete"]
    assert "secret" not in one.log


def test_with_locations_shown_on_postgresql(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """And in the older style of a single store."""
    shown = {"show_multiple_locations": True, "show_image_direct_url": True}
    sections = {
        "DEFAULT": {**shown, "enabled_backends": None},
        "glance_store": {"default_backend": None, "stores": "file", "filesystem_store_datadir": tmp_path / "images"},
        "files": {"filesystem_store_datadir": None},
        "database": {"connection": postgresql.create_database()},
    }
    with started(sections) as one:
        assert one.request("GET", "/v2/info/stores").status == 404
        seed(one)
        assert fuzz(one, tmp_path, "coverage")["complete"]

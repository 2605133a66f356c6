"""`xloud-image images` and `tasks`, as people type them, against the service: over connections that break, too."""

import contextlib
import hashlib
import http.server
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.api.cloud import Cloud
from tests.fetching.flawed import Flawed
from tests.load import quiet
from tests.servers.client import OpenStack
from tests.servers.keystone import Keystone
from tests.servers.place import HOST, program
from tests.servers.relay import Relay
from tests.servers.service import Service, command, installed
from xloud_image.client import exports, formats
from xloud_image.errors import ConfigError

pytestmark = pytest.mark.timeout(300)

MB = 1_000_000
DATA = random.Random(5).randbytes(12 * MB)
SHA = hashlib.sha512(DATA).hexdigest()


class Person:
    """Somebody at a terminal in a directory of his own. `clouds`: entries of clouds.yaml, first the usual one."""

    def __init__(self, folder: Path, clouds: dict[str, Any]) -> None:
        self.folder = folder
        clients = OpenStack(clouds)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
        self.environment = {**kept, "OS_CLIENT_CONFIG_FILE": str(clients.configuration), "OS_CLOUD": next(iter(clouds))}

    def begin(self, *words: str | Path, **how: Any) -> subprocess.Popen[str]:
        """`anew`: as it is installed, for signals."""
        given = {**self.environment, **how.pop("env", {})}
        environment = {name: value for name, value in given.items() if value is not None}
        # what a shell runs beside itself, as these tests may be, does not hear Ctrl-C
        program = ["env", "--default-signal=INT", *installed()] if how.pop("anew", False) else command()
        return subprocess.Popen(
            [*program, *map(str, words)], cwd=self.folder, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str | Path, code: int = 0, **how: Any) -> str:
        """What it says; `code`: how it is to end."""
        done = self.begin(*words, **how)
        out, said = done.communicate(timeout=quiet(60))
        assert done.returncode == code, out + said
        assert "Traceback" not in said
        assert "mistake in the program" not in said
        return out + said

    def json(self, *words: str | Path) -> Any:
        return json.loads(self.run(*words, "--json"))


@pytest.fixture(scope="module")
def flawed() -> Iterator[Flawed]:
    server = Flawed(DATA)
    yield server
    server.close()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory, flawed: Flawed) -> Iterator[Cloud]:
    folder = tmp_path_factory.mktemp("commands")
    cloud = Cloud(
        folder,
        options={"enabled_backends": "fast:file,slow:file"},
        mem={"weight": None},
        os_glance_staging_store={"filesystem_store_datadir": folder / "staging"},
        xloud={"job_workers": 1},
        import_filtering_opts={"allowed_ports": f"80,443,{urlsplit(flawed.url).port}"},
    )
    with cloud.importing():
        yield cloud


@pytest.fixture
def relay(cloud: Cloud) -> Iterator[Relay]:
    relay = Relay(cloud.service.port)
    yield relay
    relay.gate.set()
    relay.close()


def _entry(cloud: Cloud, who: str, url: str) -> dict[str, Any]:
    caller = getattr(cloud, who)
    clients = OpenStack()
    clients.add_basic(who, url, who, caller.password)
    return clients.clouds[who]


@pytest.fixture
def admin(cloud: Cloud, relay: Relay, tmp_path: Path) -> Person:
    """An administrator, over connections that may break; `bob`'s cloud is another one to him."""
    return Person(tmp_path, {"here": _entry(cloud, "admin", relay.url), "there": _entry(cloud, "bob", relay.url)})


def _disk(path: Path, kind: str) -> Path:
    subprocess.run([program("qemu-img", "qemu-utils"), "create", "-q", "-f", kind, path, "16M"], check=True)
    return path


def test_the_life_of_images(cloud: Cloud, admin: Person) -> None:
    (admin.folder / "plain.img").write_bytes(DATA)
    _disk(admin.folder / "sparse.dat", "qcow2")
    said = admin.run("images", "create", "plain.img", "sparse.dat", "--tag", "golden", "--property", "os_distro=debian",
                     "--property", "xloud_template=true")  # fmt: skip
    assert "of format raw" in said
    assert "of format qcow2" in said
    listed = {image["name"]: image for image in admin.json("images", "list", "--tag", "golden", "--template-only")}
    assert {name: image["disk_format"] for name, image in listed.items()} == {"plain": "raw", "sparse": "qcow2"}
    assert listed["plain"]["os_hash_value"] == SHA
    assert listed["plain"]["os_distro"] == "debian"
    assert "active" in admin.run("images", "show", "plain")
    (admin.folder / "got").mkdir()
    admin.run("images", "download", "plain", "sparse", "--output", "got")
    assert (admin.folder / "got" / "plain.raw").read_bytes() == DATA
    assert (admin.folder / "got" / "sparse.qcow2").read_bytes() == (admin.folder / "sparse.dat").read_bytes()
    assert "exists already" in admin.run("images", "download", "plain", "--output", "got", code=1)
    assert "has the name or id 'absent'" in admin.run("images", "download", "absent", "plain", code=1)
    assert (admin.folder / "plain.raw").read_bytes() == DATA, "one that fails holds up no other"
    assert "2 images have the name" in _twice(cloud, admin)


def _twice(cloud: Cloud, person: Person) -> str:
    for _ in range(2):
        cloud.admin.new(name="twice")
    return person.run("images", "show", "twice", code=1)


def test_what_is_refused_leaves_no_image(admin: Person) -> None:
    (admin.folder / "text.qcow2").write_bytes(b"no disk" * 1000)
    said = admin.run("images", "create", "text.qcow2", "--disk-format", "qcow2", "--name", "no-disk", code=1)
    assert "the data is not qcow2" in said
    assert admin.json("images", "list", "--name", "no-disk") == []


def test_a_name_leads_nowhere_else(cloud: Cloud, admin: Person) -> None:
    cloud.admin.new(b"data", name="../../../tmp/x\x1b[2J/..")
    image = cloud.admin.listed("limit=1")[0]["id"]
    admin.run("images", "download", image)
    (found,) = admin.folder.glob("*.raw")
    assert found.parent == admin.folder
    assert found.name.isprintable()


def test_a_download_goes_on_where_it_broke(cloud: Cloud, admin: Person, relay: Relay) -> None:
    image = cloud.admin.new(DATA)
    relay.cuts = [3 * MB, 4 * MB, 1 * MB]
    relay.back = 0
    said = admin.run("images", "download", image, "--output", "disk.raw")
    assert relay.broken == 3
    assert "compared: sha512" in said
    assert (admin.folder / "disk.raw").read_bytes() == DATA
    assert relay.back < len(DATA) * 1.7, "what was there was not asked for again"
    assert [path.name for path in admin.folder.iterdir()] == ["disk.raw"]


def test_a_download_goes_on_after_ctrl_c(cloud: Cloud, admin: Person, relay: Relay) -> None:
    image = cloud.admin.new(DATA)
    relay.until = 6 * MB
    relay.gate.clear()
    part = admin.folder / "disk.raw.part"
    one = admin.begin("images", "download", image, "--output", "disk.raw", anew=True)
    begun = time.monotonic()
    while not (part.exists() and part.stat().st_size > 4 * MB):
        assert time.monotonic() - begun < quiet(30), one.poll()
        time.sleep(0.05)
    assert "another process is writing" in admin.run("images", "download", image, "--output", "disk.raw", code=1)
    one.send_signal(signal.SIGINT)
    out, said = one.communicate(timeout=quiet(30))
    assert one.returncode == 130, out + said
    assert not (admin.folder / "disk.raw").exists()
    there = part.stat().st_size
    assert there > 4 * MB
    relay.gate.set()
    relay.back = 0
    admin.run("images", "download", image, "--output", "disk.raw")
    assert (admin.folder / "disk.raw").read_bytes() == DATA
    assert relay.back < len(DATA) - there + MB


def test_a_beginning_of_something_else_is_noticed(cloud: Cloud, admin: Person) -> None:
    image = cloud.admin.new(DATA)
    (admin.folder / "disk.raw.part").write_bytes(b"other" * MB)
    admin.run("images", "download", image, "--output", "disk.raw")
    assert (admin.folder / "disk.raw").read_bytes() == DATA


def test_data_of_another_digest_is_no_download(cloud: Cloud, admin: Person) -> None:
    image = cloud.admin.new(DATA)
    (file,) = (cloud.folder / "fast").glob(f"{image}*")
    file.chmod(0o600)
    with file.open("r+b") as opened:
        opened.seek(-5, 2)
        opened.write(b"other")
    assert "its sha512 is" in admin.run("images", "download", image, "--output", "disk.raw", code=1)
    assert not (admin.folder / "disk.raw").exists()


def test_an_upload_that_breaks_is_taken_up_again(cloud: Cloud, admin: Person, relay: Relay) -> None:
    (admin.folder / "disk.img").write_bytes(DATA)
    relay.cuts = [5 * MB, 7 * MB]
    admin.run("images", "create", "disk.img", "--name", "broken twice")
    assert relay.broken == 2
    (image,) = admin.json("images", "list", "--name", "broken twice")
    assert (image["status"], image["os_hash_value"]) == ("active", SHA)


def test_each_byte_is_sent_about_once(cloud: Cloud, admin: Person, relay: Relay) -> None:
    (admin.folder / "disk.img").write_bytes(DATA)
    relay.cuts = [2 * MB, 3 * MB, 1 * MB, 2 * MB]
    admin.run("images", "create", "disk.img", "--name", "in parts")
    assert relay.broken == 4
    (image,) = admin.json("images", "list", "--name", "in parts")
    assert (image["status"], image["os_hash_value"]) == ("active", SHA)
    # a break loses what was read ahead, 1.5 MiB at most
    assert relay.passed < len(DATA) + 7 * MB, "what was on its way when it broke is sent again; all of it were 8 MB"


def test_an_upload_that_was_ended_goes_on_by_the_words_that_it_prints(
    cloud: Cloud, admin: Person, relay: Relay
) -> None:
    (admin.folder / "disk.img").write_bytes(DATA)
    relay.until = 4 * MB
    relay.gate.clear()
    one = admin.begin("images", "create", "disk.img", "--name", "ended", anew=True)
    begun = time.monotonic()
    while not relay.passed > 4 * MB:
        assert time.monotonic() - begun < quiet(30), one.poll()
        time.sleep(0.05)
    one.send_signal(signal.SIGINT)
    relay.gate.set()
    _, said = one.communicate(timeout=quiet(30))
    assert one.returncode == 130
    (line,) = [line for line in said.splitlines() if line.startswith("go on with: xloud-image ")]
    words = line.removeprefix("go on with: xloud-image ").split()
    admin.run(*words)
    (image,) = admin.json("images", "list", "--name", "ended")
    assert (image["status"], image["os_hash_value"]) == ("active", SHA)


def test_an_import_is_waited_for(cloud: Cloud, admin: Person, flawed: Flawed) -> None:
    (admin.folder / "disk.img").write_bytes(DATA)
    said = admin.run("images", "import", "disk.img", flawed.url, "--store", "slow", "--wait")
    assert said.count("active") == 2
    for name in ("disk", "image"):
        (image,) = admin.json("images", "list", "--name", name)
        assert (image["status"], image["os_hash_value"], image["stores"]) == ("active", SHA, "slow")
    said = admin.run("images", "copy", "disk", "image", "--store", "fast", "--wait")
    assert admin.json("images", "show", "disk")["stores"] == "slow,fast"
    (task, _) = admin.json("tasks", "list", "--image", "disk")
    assert (task["status"], task["input"]["import_req"]["method"]["name"]) == ("success", "copy-image")
    assert task["id"] in admin.run("tasks", "list", "--status", "success")
    assert "Copied" in admin.run("tasks", "show", task["id"])
    assert "active" in admin.run("tasks", "wait", task["id"])
    assert "already" in admin.run("images", "copy", "disk", "--store", "fast", code=1)


def test_a_store_is_emptied(cloud: Cloud, admin: Person, flawed: Flawed) -> None:
    """One image by its name, then all that are left, hidden ones too, while they can be read."""
    (admin.folder / "disk.img").write_bytes(DATA)
    for name in ("first", "second", "third"):
        admin.run("images", "create", "disk.img", "--name", name, "--store", "slow")
    ids = {name: admin.json("images", "show", name)["id"] for name in ("first", "second", "third")}
    change = [{"op": "replace", "path": "/os_hidden", "value": True}]
    assert cloud.admin.patch(ids["third"], *change).status == 200
    admin.run("images", "move", "first", "--from", "slow", "--to", "fast")
    assert admin.json("images", "show", "first")["stores"] == "fast"
    there = sum("slow" in image["stores"].split(",") for image in admin.json("images", "list", "--status", "active"))
    said = admin.run("images", "move", "--from", "slow", "--to", "fast", "--all")
    assert f"{there + 1} of {there + 1} images are in fast now" in said
    for image in ids.values():
        assert "slow" not in cloud.admin.show(image)["stores"].split(",")
        assert cloud.admin.download(image).body == DATA
    assert "no image is in slow" in admin.run("images", "move", "--from", "slow", "--to", "fast", "--all")
    assert "there is no store 'slwo'" in admin.run("images", "move", "--from", "slwo", "--to", "fast", "--all", code=2)
    assert "say --from" in admin.run("images", "move", "first", "--from", "fast", code=2)
    assert "name images, or" in admin.run("images", "move", "--from", "slow", "--to", "fast", code=2)
    assert "first" in admin.run("images", "move", "first", "--from", "slow", "--to", "fast", code=1)


def test_an_import_that_fails_says_why_and_is_asked_for_again(cloud: Cloud, admin: Person, flawed: Flawed) -> None:
    flawed.how = lambda number, span: "404"
    try:
        said = admin.run("images", "import", flawed.url, "--disk-format", "raw", "--name", "fails", "--wait", code=1)
    finally:
        flawed.how = lambda number, span: ""
    assert "404" in said
    (task,) = admin.json("tasks", "list", "--image", "fails")
    assert admin.json("images", "show", "fails")["status"] == "queued"
    admin.run("tasks", "retry", task["id"])
    new = admin.json("tasks", "list", "--image", "fails")[0]
    assert new["id"] != task["id"]
    admin.run("tasks", "wait", new["id"])
    assert admin.json("images", "show", "fails")["os_hash_value"] == SHA
    assert "only an import that failed" in admin.run("tasks", "retry", new["id"], code=1)


def test_a_task_is_cancelled(cloud: Cloud, admin: Person, flawed: Flawed) -> None:
    flawed.how = lambda number, span: "drip"
    try:
        said = admin.run("images", "import", flawed.url, "--disk-format", "raw", "--name", "slow one")
        task = said.split("task ")[1].split()[0]
        assert cloud.bob.ask("POST", f"/v2/tasks/{task}/actions/cancel").status == 404, (
            "it is of an image he cannot see"
        )
        admin.run("tasks", "cancel", task)
        assert "It was cancelled" in admin.run("tasks", "wait", task, code=1)
    finally:
        flawed.how = lambda number, span: ""
    (image,) = admin.json("images", "list", "--name", "slow one")
    assert image["status"] == "queued"
    assert not [path for store in ("fast", "slow") for path in (cloud.folder / store).glob(f"{image['id']}*")]
    assert "ended already" in admin.run("tasks", "cancel", task, code=1)
    assert "No task" in admin.run("tasks", "cancel", "nothing", code=1)


def test_an_export_is_made_an_image_again(cloud: Cloud, admin: Person) -> None:
    fields = {"name": "golden", "os_distro": "debian", "xloud_template": "true", "min_disk": 3, "protected": True,
              "visibility": "community", "tags": ["a", "b"]}  # fmt: skip
    cloud.admin.patch(image := cloud.admin.new(DATA, **fields), {"op": "add", "path": "/über", "value": "ö"})
    admin.run("images", "export", image, "out")
    assert sorted(path.name for path in (admin.folder / "out").iterdir()) == [f"{image}.raw", "manifest.json"]
    assert "exists already" in admin.run("images", "export", image, "out", code=1)
    admin.run("images", "export", image, "out.raw")
    for place, name in (("out", "one"), ("out.raw", "two")):
        admin.run("images", "create", "--from-export", place, "--name", name)
        (again,) = admin.json("images", "list", "--name", name, "--visibility", "community")
        before = cloud.admin.show(image)
        own = {"id", "name", "created_at", "updated_at", "self", "file", "locations"}
        assert {k: v for k, v in again.items() if k not in own} == {k: v for k, v in before.items() if k not in own}


def test_an_export_that_was_changed_is_no_image(cloud: Cloud, admin: Person) -> None:
    image = cloud.admin.new(DATA, name="changed")
    admin.run("images", "export", image, "out")
    (file,) = (admin.folder / "out").glob("*.raw")
    with file.open("r+b") as opened:
        opened.write(b"other")
    before = len(cloud.admin.listed("name=changed"))
    assert "its sha512 is" in admin.run("images", "create", "--from-export", "out", code=1)
    assert len(cloud.admin.listed("name=changed")) == before


class _Bucket:
    """Takes what is PUT, as object stores do at pre-signed addresses: with a length, and no login but the URL's."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.headers: list[Any] = []
        bucket = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *words: Any) -> None:
                pass

            def do_PUT(self) -> None:
                bucket.headers.append(self.headers)
                bucket.got.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200 if "secret" in self.path else 403)
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.server = http.server.ThreadingHTTPServer((HOST, 0), Handler)
        self.url = f"http://{HOST}:{self.server.server_port}/bucket/disk"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()


def test_an_export_goes_to_a_url(cloud: Cloud, admin: Person, relay: Relay) -> None:
    bucket = _Bucket()
    image = cloud.admin.new(DATA, name="signed")
    relay.cuts = [5 * MB]
    try:
        url = f"{bucket.url}?Signature=secret"
        said = admin.run("images", "export", image, url, "--manifest", "told.json")
        refused = admin.run("images", "export", image, f"{bucket.url}?Signature=wrong", code=1)
    finally:
        bucket.server.shutdown()
        bucket.server.server_close()
    assert bucket.got[0] == DATA
    assert bucket.headers[0]["Authorization"] is None
    assert relay.broken == 1
    assert json.loads((admin.folder / "told.json").read_text())["data"]["digests"]["sha512"] == SHA
    assert "answers 403" in refused
    assert "wrong" not in refused
    assert "secret" not in said


def test_an_export_goes_to_another_cloud(cloud: Cloud, admin: Person, relay: Relay) -> None:
    image = cloud.admin.new(DATA, name="moved", os_distro="alma", visibility="public", tags=["x"])
    relay.cuts = [3 * MB, 4 * MB]
    said = admin.run("images", "export", image, "--to-cloud", "there")
    assert relay.broken == 2
    assert "this one is private" in said
    (there,) = cloud.bob.listed("name=moved&visibility=private")
    assert (there["os_hash_value"], there["os_distro"], there["tags"]) == (SHA, "alma", ["x"])
    assert there["owner"] == "beta"
    assert "no login" in admin.run("images", "export", image, "--to-cloud", "nowhere", code=1)


GOOD = {
    "format": "xloud-image-export", "version": 1, "image": {"name": "x", "properties": {"a": "b"}, "tags": []},
    "data": {"file": "data", "size": 4, "digests": {"sha512": hashlib.sha512(b"data").hexdigest()}},
}  # fmt: skip


def _but(path: str, value: Any) -> str:
    told = json.loads(json.dumps(GOOD))
    *way, last = path.split("/")
    inner = told
    for name in way:
        inner = inner[name]
    inner[last] = value
    return json.dumps(told)


@pytest.mark.parametrize("text", [
    "", "[]", "{", "[" * 100_000, '{"a": 1, "a": 2}', "1" * 10_000, json.dumps(GOOD)[:-1] + ', "more": NaN}',
    json.dumps(GOOD) + " " * (5 << 20), _but("format", "tar"), _but("version", 2), _but("version", True),
    _but("data/file", "../data"), _but("data/file", "/etc/passwd"), _but("data/file", ".."), _but("data/file", "link"),
    _but("data/file", "fifo"), _but("data/file", "none"), _but("data/file", "a\0b"), _but("data/file", None),
    _but("data/size", 5), _but("data/size", -1), _but("data/size", 10**30), _but("data/size", "4"),
    _but("data/digests", {}), _but("data/digests", {"md5": "0" * 32}), _but("data/digests", {"sha512": "zz"}),
    _but("data/digests", {"crc": "0"}), _but("image/properties", {"owner": "me"}), _but("image", []),
    _but("image/properties", {"os_glance_x": "1"}), _but("image/properties", {"a": 1}),
    _but("image/properties", {"x" * 300: "1"}), _but("image/properties", {str(n): "" for n in range(2000)}),
    _but("image/min_disk", 2**40), _but("image/protected", "yes"), _but("image/tags", ["x" * 300]),
], ids=lambda text: text[:40] if len(text) < 300 else str(len(text)))  # fmt: skip
def test_a_hostile_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "link").symlink_to("data")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        exports.read(tmp_path)
    assert len(caught.value.message) < 1000


def test_a_manifest_as_it_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    fields, file, digests = exports.read(tmp_path)
    assert fields == {"name": "x", "a": "b", "tags": []}
    assert file.read_bytes() == b"data"
    assert set(digests) == {"sha512"}


@pytest.mark.parametrize(("kind", "options", "said"), [
    ("qcow2", "", "qcow2"), ("raw", "", "raw"), ("vmdk", "", "vmdk"), ("vhdx", "", "vhdx"), ("vdi", "", "vdi"),
    ("vpc", "", "vhd"), ("vpc", "subformat=fixed", "vhd"),
])  # fmt: skip
def test_a_format_is_found_out(tmp_path: Path, kind: str, options: str, said: str) -> None:
    more = ["-o", options] if options else []
    made = [program("qemu-img", "qemu-utils"), "create", "-q", "-f", kind, *more, tmp_path / "disk", "8M"]
    subprocess.run(made, check=True)
    assert formats.of_file(tmp_path / "disk") == said


@pytest.mark.parametrize(("head", "said"), [
    (b"\x1f\x8b" + bytes(600), "compressed"), (bytes(257) + b"ustar" + bytes(600), "tar archive"),
    (b"# Disk DescriptorFile\nversion=1\n", "flat.vmdk"),
])  # fmt: skip
def test_what_is_no_disk_as_it_is_says_what_to_do(head: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        formats.of_bytes(head)


def test_logins_as_every_client_has_them(keystone: Keystone, tmp_path: Path) -> None:
    """By clouds.yaml, by variables, by options; and none."""
    service = Service(keystone.sections())
    try:
        service.start()
        keystone.set_image_url(service.url)
        person = Person(tmp_path, {"mine": keystone.clouds()["demo"], "admins": keystone.clouds()["admin"]})
        (tmp_path / "disk.raw").write_bytes(DATA[:MB])
        person.run("images", "create", "disk.raw")
        variables = {"OS_CLOUD": None, "OS_AUTH_URL": keystone.url, "OS_USERNAME": "demo", "OS_PASSWORD": "demopass",
                     "OS_PROJECT_NAME": "demo", "OS_USER_DOMAIN_NAME": "Default",
                     "OS_PROJECT_DOMAIN_NAME": "Default"}  # fmt: skip
        assert "disk" in person.run("images", "list", env=variables)
        words = [
            word
            for name, value in variables.items()
            if value
            for word in (f"--{name.lower().replace('_', '-')}", value)
        ]
        assert "disk" in person.run("images", "list", *words, env={"OS_CLOUD": None})
        assert "disk" in person.run(*words, "images", "show", "disk", env={"OS_CLOUD": None})
        wrong = {**variables, "OS_PASSWORD": "guess"}
        said = person.run("images", "list", env=wrong, code=1)
        assert "no login" in said
        assert "guess" not in said
        assert "OS_CLOUD" in person.run("images", "list", env={"OS_CLOUD": None}, code=1)
        person.run("images", "export", "disk", "--to-cloud", "admins")
        assert "no login" in person.run("images", "export", "disk", "--to-region", "nowhere", code=1)
        owners = {image["owner"] for image in person.json("images", "list", "--os-cloud", "admins")}
        assert owners == {keystone.project_id("demo"), keystone.project_id("admin")}
    finally:
        with contextlib.suppress(Exception):
            service.stop()
        service.kill()

"""Where data waits: in a store that two nodes reach and no directory of theirs; where a Glance left it; behind proxies
that keep requests to themselves until they are whole."""

import contextlib
import io
import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.api.cloud import Caller
from tests.imports.conftest import begin, ended, stage
from tests.servers.haproxy import HAProxy
from tests.servers.mariadb import MariaDB
from tests.servers.nginx import Nginx
from tests.servers.place import HOST, ROOT, free_port, program
from tests.servers.process import answers
from tests.servers.s3 import Rclone
from tests.servers.service import Service
from tests.stores import mounts
from tests.uploads.conftest import DATA, HALF, Broken, Scene, Sender, await_that, breaking
from xloud_image import resuming

# of a piece that is not the last one
PIECE = "-H 'Content-Type: application/partial-upload' -H 'Upload-Offset: 0' -H 'Upload-Complete: ?0'"


class Apart:
    """Two nodes with nothing in common but a database and a bucket. `worker`: the one that does long work."""

    def __init__(self, folder: Path, database: MariaDB, bucket: Rclone) -> None:
        sections: dict[str, dict[str, Any]] = {
            "DEFAULT": {"enabled_backends": "local:file,bucket:s3"},
            "glance_store": {"default_backend": "bucket"},
            "database": {"connection": database.create_database()},
            "files": {"filesystem_store_datadir": None},
            "bucket": {
                "s3_store_host": bucket.url,
                "s3_store_access_key": bucket.access,
                "s3_store_secret_key": bucket.secret,
                "s3_store_bucket": "images",
                "s3_store_create_bucket_on_put": True,
            },
            "xloud": {"staging_store": "bucket", "lease_time": 5, "reaper_interval": 1},
        }
        self.nodes = [
            Service({**sections, "local": {"filesystem_store_datadir": folder / name}}) for name in ("front", "worker")
        ]
        self.front, self.worker = self.nodes
        self.worker.configure({"xloud": {**self.worker.sections["xloud"], "job_workers": 1}})
        self.ann, self.ben = (Caller(node, None) for node in self.nodes)


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, mariadb: MariaDB) -> Iterator[Apart]:
    with contextlib.ExitStack() as stack:
        bucket = Rclone()
        stack.callback(bucket.close)
        bucket.start()
        apart = Apart(tmp_path_factory.mktemp("apart"), mariadb, bucket)
        for node in apart.nodes:
            stack.callback(node.kill)
            node.start()
        await_that(lambda: apart.ann.ask("GET", "/v2/info/import").json()["import-methods"]["value"])
        yield apart
        assert not any("Traceback" in node.log for node in apart.nodes)


def test_what_one_node_staged_another_imports(apart: Apart) -> None:
    image = apart.ann.new()
    assert stage(apart.ann, image, DATA).status == 204
    assert begin(apart.ann, image).status == 202
    assert ended(apart.ben, image)["status"] == "success"
    assert Sender(apart.ben, image).has(DATA)
    assert apart.ben.download(image).body == DATA


@pytest.mark.parametrize("kind", ["file", "stage"])
def test_what_one_node_took_another_goes_on_with(apart: Apart, kind: str) -> None:
    sender = Sender(apart.ann, kind=kind)
    assert sender.begin(DATA[:HALF], Upload_Length=str(len(DATA))).status == 201
    with pytest.raises(Broken):
        sender.add(HALF, breaking(DATA[HALF:], 1_000_000), Content_Length=str(len(DATA) - HALF))
    sender.caller = apart.ben
    assert sender.go_on(DATA).status == 204
    sender.caller = apart.ann
    if kind == "stage":
        assert begin(apart.ann, sender.image).status == 202
        assert ended(apart.ann, sender.image)["status"] == "success"
    assert sender.has(DATA)
    assert apart.ben.download(sender.image).body == DATA


def test_the_commands_of_the_documents(apart: Apart, tmp_path: Path) -> None:
    """By curl, as operators are told to."""
    text = (ROOT / "docs" / "operating.md").read_text()
    section = text.partition("## Uploads that go on where they broke")[2].partition("\n## ")[0]
    begun, rest, cancelled = re.findall(r"(?:^    .+\n)+", section, re.MULTILINE)
    (tmp_path / "data").write_bytes(DATA)
    for end in (rest, cancelled):
        sender = Sender(apart.ann)
        script = f'{begun}\nhead -c 1000000 "$FILE" | curl -sS -X PATCH "$UPLOAD" -T - {PIECE}\n{end}'
        environment = {
            "URL": apart.front.url, "TOKEN": "x", "ID": sender.image, "FILE": str(tmp_path / "data"), "HOME": "/",
        }  # fmt: skip
        done = subprocess.run(
            [program("bash", "bash"), "-euc", textwrap.dedent(script)],
            env={**environment, "PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        if end is rest:
            assert sender.has(DATA)
        else:
            assert sender.status == "queued"


def _left_by_glance(scene: Scene) -> str:
    """An image that a Glance has data staged for."""
    image = scene.ann.new()
    folder = Path(scene.service.sections["os_glance_staging_store"]["filesystem_store_datadir"])
    (folder / image).write_bytes(DATA)
    scene.change("UPDATE images SET status = 'uploading' WHERE id = ?", image)
    return image


def test_what_a_glance_staged_is_imported_and_removed(scene: Scene) -> None:
    image = _left_by_glance(scene)
    assert begin(scene.ann, image).status == 202
    assert ended(scene.ann, image)["status"] == "success"
    assert Sender(scene.ann, image).has(DATA)
    scene.nothing_left(image)
    image = _left_by_glance(scene)
    assert scene.ann.delete(image).status == 204
    scene.nothing_left(image, 0)


def test_what_is_not_whole_is_not_imported(scene: Scene) -> None:
    """Data that is just coming in is not mistaken for a Glance's."""
    sender = Sender(scene.ann, kind="stage")
    sender.begin(DATA)
    assert begin(scene.ann, sender.image).status == 409
    assert sender.last(len(DATA)).status == 204
    assert begin(scene.ann, sender.image).status == 202
    assert ended(scene.ann, sender.image)["status"] == "success"
    scene.nothing_left(sender.image)


@pytest.mark.parametrize("proxy", ["nginx", "haproxy"])
def test_behind_a_proxy_that_keeps_requests_until_they_are_whole(
    scene: Scene, session: requests.Session, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    server: Nginx | HAProxy
    if proxy == "nginx":
        pass_on = f"proxy_pass {scene.service.url}; proxy_http_version 1.1; proxy_set_header Host $http_host;"
        server = Nginx(server=f"location / {{ {pass_on} proxy_request_buffering on; }}", port=port)
    else:
        text = (
            f"listen api\n    mode http\n    option http-buffer-request\n    bind {HOST}:{port}\n"
            f"    server one {HOST}:{scene.service.port}\n"
        )
        server = HAProxy(text, ready=lambda: answers(f"http://{HOST}:{port}", below=600))
    try:
        server.start()
        image = scene.ann.new()
        monkeypatch.setattr(resuming, "PIECE", 1_000_000)
        target = f"http://{HOST}:{port}/v2/images/{image}/file"
        begun: list[str] = []
        resuming.upload(session, target, io.BytesIO(DATA), headers=lambda: scene.ann.headers, begun=begun.append)
        assert begun[0].startswith(f"http://{HOST}:{port}/")
        assert Sender(scene.ann, image).has(DATA)
    finally:
        server.close()


def test_a_place_that_is_full(tmp_path: Path) -> None:
    """What came before stays, and goes on when there is room; nothing is left of what did not fit."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(mounts.tmpfs(tmp_path / "small", "4m"))
        service = Service({"os_glance_staging_store": {"filesystem_store_datadir": folder / "staging"}})
        stack.callback(service.kill)
        service.start()
        sender = Sender(Caller(service, None))
        sender.begin(DATA[:HALF])
        (folder / "other").write_bytes(bytes(2 << 20))
        answer = sender.last(HALF, DATA[HALF:])
        assert (answer.status, sender.offset) == (413, HALF)
        assert "room" in answer.json()["error"]["message"]
        assert [path.stat().st_size for path in (folder / "staging").iterdir()] == [HALF]
        (folder / "other").unlink()
        assert sender.last(HALF, DATA[HALF:]).status == 204
        assert sender.has(DATA)

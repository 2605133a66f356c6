"""A real Horizon, a real Keystone whose catalogue leads to us: its pages for images, its calls (`horizon_panel`)."""

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.clients.place import Place
from tests.load import quiet
from tests.servers.keystone import USERS
from tests.servers.place import environment, new_directory

pytestmark = pytest.mark.timeout(600)

HERE = Path(__file__).parent


def test_the_pages_for_images(place: Place, data: bytes, file: Path) -> None:
    assert place.web.files is not None
    (place.web.files / "horizon.raw").write_bytes(data)
    space = {
        "namespace": f"Horizon::{uuid.uuid4().hex}",
        "visibility": "public",
        "resource_type_associations": [{"name": "OS::Glance::Image"}],
        "properties": {"x": {"title": "X", "type": "string"}},
    }
    assert place.ask("admin", "POST", "/v2/metadefs/namespaces", json=space).status == 201
    asked = {
        "name": f"hz-{uuid.uuid4().hex[:12]}",
        "url": f"{place.web.url}/horizon.raw",
        "file": str(file),
        "seconds": quiet(60),
        "passwords": {name: USERS[name].password for name in ("demo", "admin")},
        "namespace": space["namespace"],
    }
    folder = new_directory("horizon")
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(
        [environment(".venv-horizon", "python"), "-P", "-W", "ignore", HERE / "horizon_panel.py"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=quiet(180),
        cwd=folder,
        env={
            **surroundings,
            "PYTHONPATH": str(HERE),
            "DJANGO_SETTINGS_MODULE": "horizon_settings",
            "OPENSTACK_KEYSTONE_URL": place.keystone.url,
            "TMPDIR": str(folder),
            "no_proxy": "127.0.0.1,localhost",
        },
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    images = json.loads(done.stdout)
    assert len(images) == 4
    for image in images:
        assert place.ask("admin", "GET", f"/v2/images/{image}").status == 404
    assert place.ask("admin", "DELETE", f"/v2/metadefs/namespaces/{space['namespace']}").status == 204

"""The lines that guides for Glance print, in our environment: without a login, and with Glance's own options."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.home import DOOR, STORE, Home
from tests.servers.service import Service, installed

ELSEWHERE = "[oslo_policy]\npolicy_file = {0}/policy.yaml\n"


def run(name: str, *words: str | Path) -> tuple[int, str]:
    """The exit code, and what it says."""
    kept = {key: value for key, value in os.environ.items() if not re.match("OS_|XLOUD", key)}
    script = Path(installed()[0]).with_name(name)
    done = subprocess.run([script, *words], capture_output=True, text=True, timeout=60, env=kept, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def configured(home: Home) -> Home:
    (home.path / "policy.yaml").write_text('"delete_image": "rule:image_owner or role:admin"\n')
    home.configure(STORE + DOOR + ELSEWHERE)
    return home


def test_the_database(configured: Home) -> None:
    config = ("--config-file", configured.file)
    assert run("glance-manage", *config, "db", "check")[0] == 1
    assert run("glance-status", *config, "upgrade", "check")[0] == 2
    code, told = run("glance-manage", "--debug", *config, "db", "sync")
    assert code == 0
    assert re.fullmatch(r"The database went from nothing to x\d{4}\.\n", told)
    for line in (
        ("db_sync",),
        ("db", "upgrade"),
        ("db", "expand"),
        ("db", "migrate"),
        ("db", "contract"),
        ("db", "check"),
    ):
        assert run("glance-manage", *config, *line)[0] == 0
    assert "2024_1_contract01" in run("glance-manage", "db", "version", *config)[1]
    code, said = run("glance-manage", *config, "db", "purge", "--age_in_days", "30", "--max_rows", "100")
    assert (code, said.splitlines()[0]) == (0, "image_properties: 0 rows removed")
    assert run("glance-manage", *config, "db", "purge_images_table", "--age_in_days=180") == (
        0,
        "images: 0 rows removed\n",
    )
    assert run("glance-manage", *config, "db", "purge", "--age_in_days", "-1")[0] == 2
    code, said = run("glance-manage", *config, "db", "swim")
    assert (code, "'db swim' is not known" in said) == (2, True)
    code, said = run("glance-status", *config, "upgrade", "check")
    assert code == 1
    assert "'rule:image_owner' refers to a rule that does not exist" in said


def test_the_policy(configured: Home) -> None:
    config = ("--config-file", configured.file)
    code, said = run("oslopolicy-policy-generator", "--namespace", "glance", *config)
    assert code == 0
    assert '"delete_image": "rule:image_owner or role:admin"' in said.replace("(", "").replace(")", "")
    assert "get_images" in run("oslopolicy-sample-generator", "--namespace", "glance")[1]
    assert run("oslopolicy-list-redundant", "--namespace", "glance", *config)[0] == 0


def test_the_scrubber_tries_what_waits_now() -> None:
    """A store that was away when an image was deleted, and is back."""
    service = Service({"xloud": {"reaper_interval": 3600}})
    try:
        service.start()
        fields = {"disk_format": "raw", "container_format": "bare"}
        image = service.request("POST", "/v2/images", json=fields).json()["id"]
        octets = {"Content-Type": "application/octet-stream"}
        assert service.request("PUT", f"/v2/images/{image}/file", body=b"data", headers=octets).status == 204
        away = service.images.with_name("away")
        service.images.rename(away)
        service.images.write_text("no directory")
        assert service.request("DELETE", f"/v2/images/{image}").status == 204
        config = ("--config-file", service.configuration)
        code, said = run("glance-scrubber", *config)
        assert code == 1
        assert said.startswith("1 deletions waited; 1 still do.\n")
        assert "is not a directory" in said
        service.images.unlink()
        away.rename(service.images)
        assert run("glance-scrubber", *config)[1].startswith("1 deletions waited; 0 still do.\n")
        assert not list(service.images.glob(f"{image}*"))
        assert run("glance-scrubber", *config) == (0, "No deletion waits.\n")
    finally:
        service.kill()

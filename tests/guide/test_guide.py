"""The operators' guide, followed from its first line to its last on real servers; after the section of a store an image
lies in that store, looked at behind its back, and is downloaded whole.

The tests of this file are one deployment, in the order of the guide."""

import hashlib
import os
import re
import time
from collections.abc import Iterator

import pytest

from tests.conftest import remarks
from tests.guide.blocks import GUIDE, LANGUAGES, sections
from tests.guide.follower import Follower
from tests.servers.http import request
from tests.servers.place import HOST, free_port, program
from tests.servers.process import Process, answers

SECTIONS = sections()
# section → the image that it makes, and the store behind whose back it lies
STORED = {
    "The file store": ("check-file", "volume"),
    "A directory of your own": ("check-directory", "directory"),
    "Ceph RBD": ("check-rbd", "rbd"),
    "Swift": ("check-swift", "swift"),
    "S3": ("check-s3", "s3"),
    "VMware datastores": ("check-vmware", "vmware"),
    "Cinder": ("check-cinder", "cinder"),
    "HTTP, for reading": ("ubuntu-24.04-curl", "web"),
    "Several stores at once": ("check-several", "s3"),
}
# blocks that cannot be run here, by the section; each has its reason beside it
NOT_RUN = {"Before the first store": 1, "Several nodes": 1}


def test_every_block_is_understood() -> None:
    assert len(SECTIONS) > 15
    for heading, blocks in SECTIONS.items():
        for block in blocks:
            where = f"line {block.line} ({heading})"
            assert block.language in LANGUAGES, where
            assert bool(block.path) == (block.language in ("yaml", "ini")), f"{where}: which file is it?"
    assert set(STORED) <= set(SECTIONS)


def test_blocks_that_are_not_run_are_few(request: pytest.FixtureRequest) -> None:
    found: dict[str, int] = {}
    for heading, blocks in SECTIONS.items():
        for block in blocks:
            if block.not_run:
                found[heading] = found.get(heading, 0) + 1
                told = f"not run of {GUIDE.name}, line {block.line}: {block.not_run}"
                request.config.stash[remarks].append(told)
    assert found == NOT_RUN


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("heading", [heading for heading, blocks in SECTIONS.items() if blocks])
def test_a_section_does_what_it_says(heading: str, follower: Follower) -> None:
    for block in SECTIONS[heading]:
        follower.follow(block)
    if heading not in STORED:
        return
    name, store = STORED[heading]
    identity = follower.image(name)
    behind = hashlib.sha256(follower.servers.behind(store, identity)).hexdigest()
    assert follower.download(identity) == behind
    if store != "web":
        assert behind == hashlib.sha256((follower.home / "check.raw").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_balancer_of_the_guide_carries_a_transfer(follower: Follower) -> None:
    """As the section installed it, with addresses of this machine; its base file knows short times only, so a transfer
    that pauses for longer needs the file's own."""
    place, port = follower.servers.haproxy, free_port()
    file = place / "services.d" / "glance.cfg"
    text = file.read_text().replace("10.0.1.10:9292", f"{HOST}:{port}")
    file.write_text(re.sub(r"10\.0\.1\.1\d:9292", f"{HOST}:{follower.site.port}", text))
    command = [program("haproxy", "haproxy"), "-f", str(place / "haproxy.cfg"), "-f", str(file)]
    balancer = Process("haproxy", command, log=place / "log")
    url, token = f"http://{HOST}:{port}", follower.site.keystone.token("admin")
    data = os.urandom(1 << 20)

    def slowly() -> Iterator[bytes]:
        yield data[:1000]
        time.sleep(3)
        yield data[1000:]

    try:
        balancer.wait_for(lambda: answers(f"{url}/healthcheck"))
        headers = {"X-Auth-Token": token}
        made = request(
            "POST", f"{url}/v2/images", json={"disk_format": "raw", "container_format": "bare"}, headers=headers
        )
        path = f"{url}/v2/images/{made.json()['id']}/file"
        headers["content-type"] = "application/octet-stream"
        assert request("PUT", path, body=slowly(), headers=headers).status == 204
        assert request("GET", path, headers=headers).body == data
    finally:
        balancer.stop()

"""Switching backends: the stores of earlier renderings are kept for reading, until they are empty or given up."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy.conftest import ADDRESS, Desk, values
from xavs import render as rendering
from xloud_image.config import loader
from xloud_image.config.settings import Settings
from xloud_image.errors import ConfigError

FILE = 'glance_backend_file: "yes"\n'
S3 = (
    'glance_backend_s3: "yes"\nglance_backend_file: "no"\nglance_s3_store_host: "https://s3.example.com"\n'
    "glance_s3_store_access_key: access\nglance_s3_store_secret_key: s3cret$\nglance_s3_store_bucket: "
)
CEPH = 'glance_backend_ceph: "yes"\nglance_backend_file: "no"\n'


class Node:
    """One node whose files are rendered again and again."""

    def __init__(self, desk: Desk, name: str) -> None:
        self.desk = desk
        self.output = desk.path / ".rendered" / name
        for file in ("ceph.conf", "ceph.client.glance.keyring", "other.conf", "other.client.glance.keyring"):
            desk.write(f"config/glance/{file}", f"[global]\n# {file}\n")

    def render(self, globals_: str, *emptied: str, previous: tuple[Path, ...] = ()) -> rendering.Rendered:
        self.desk.globals.write_text(ADDRESS + globals_)
        done = rendering.render(
            rendering.Inputs(self.desk.globals, previous=(self.output, *previous), emptied=frozenset(emptied))
        )
        rendering.write(done, self.output)
        return done

    def settings(self) -> Settings:
        """As the service reads what was written."""
        return loader.load([], [self.output], env={}).settings


@pytest.fixture
def node(desk: Desk) -> Node:
    return Node(desk, "one")


def kept(done: rendering.Rendered) -> list[str]:
    return [store["name"] for store in done.facts["stores"] if store["kept"]]


def test_a_store_that_is_switched_off_is_kept(node: Node) -> None:
    assert kept(node.render(FILE)) == []
    done = node.render(CEPH)
    found = values(done)
    assert found["[DEFAULT] enabled_backends"] == ["rbd:rbd, file:file"]
    assert found["[glance_store] default_backend"] == ["rbd"]
    assert found["[file] read_only"] == ["True"]
    rbd, file, *_ = node.settings().stores
    assert (rbd.id, rbd.takes_images) == ("rbd", True)
    assert (file.id, file.takes_images, file.options["filesystem_store_datadir"]) == (
        "file", False, "/var/lib/glance/images/",
    )  # fmt: skip
    notes = [finding.sentence for finding in done.findings.of("note")]
    assert any("the store 'file' of an earlier deployment is kept" in text for text in notes)
    assert done.files.keys() >= {"ceph/ceph.conf", "ceph/ceph.client.glance.keyring"}


def test_it_is_kept_in_every_later_rendering(node: Node) -> None:
    node.render(FILE)
    first = node.render(CEPH)
    again = node.render(CEPH)
    assert again.files[rendering.MAIN] == first.files[rendering.MAIN]


def test_a_store_that_comes_back_is_an_ordinary_one(node: Node) -> None:
    node.render(FILE)
    node.render(CEPH)
    done = node.render(FILE)
    assert kept(done) == ["rbd"]
    assert "[file] read_only" not in values(done)
    assert node.settings().default_store == "file"


EMPTIED: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "it goes when it is empty": (CEPH, ("file",), []),
    "another one is empty": (CEPH, ("s3",), ["file"]),
    "the operator gives it up": (CEPH + "glance_forget_stores: [file]\n", (), []),
    "the operator gives another one up": (CEPH + "glance_forget_stores: [s3]\n", (), ["file"]),
}


@pytest.mark.parametrize("case", EMPTIED)
def test_when_it_goes(node: Node, case: str) -> None:
    globals_, emptied, wanted = EMPTIED[case]
    node.render(FILE)
    node.render(CEPH)
    assert kept(node.render(globals_, *emptied)) == wanted
    assert kept(node.render(CEPH)) == wanted, "what was given up does not come back"


def test_one_that_took_images_until_now_is_kept_though_it_looks_empty(node: Node) -> None:
    """An upload may have begun after the counting."""
    node.render(FILE)
    assert kept(node.render(CEPH, "file")) == ["file"]


def test_options_and_secrets_are_carried_on(node: Node) -> None:
    node.render(S3 + "b1\nglance_store_weights: {s3: 7}\nglance_store_descriptions: {s3: The old one}\n")
    done = node.render(FILE)
    s3 = next(store for store in node.settings().stores if store.id == "s3")
    assert (s3.takes_images, s3.weight, s3.description) == (False, 7, "The old one")
    assert [s3.options[f"s3_store_{name}"] for name in ("host", "bucket", "secret_key")] == [
        "https://s3.example.com", "b1", "s3cret$",
    ]  # fmt: skip
    line = next(line for line in done.lines[rendering.MAIN] if line.key == ("s3", "s3_store_secret_key"))
    assert line.secret


def test_another_place_under_the_same_name(node: Node) -> None:
    """The bucket changes: the images in the previous one stay readable under a name of their own."""
    node.render(S3 + "b1\n")
    assert kept(node.render(S3 + "b2\n")) == ["s3_previous"]
    assert kept(node.render(S3 + "b3\n")) == ["s3_previous", "s3_previous2"]

    def buckets() -> dict[str, str]:
        return {store.id: store.options["s3_store_bucket"] for store in node.settings().stores if store.type == "s3"}

    assert buckets() == {"s3": "b3", "s3_previous": "b1", "s3_previous2": "b2"}
    node.render(S3 + "b1\n")
    assert buckets() == {"s3": "b1", "s3_previous": "b3", "s3_previous2": "b2"}, "the first is the ordinary one again"


def test_the_custom_directory_of_the_guide(node: Node) -> None:
    """An override in [glance_store] moves the file store; what it says is for the one in use, not for the previous."""
    node.render(FILE)
    node.desk.write(
        "config/glance/glance-api.conf",
        "[glance_store]\ndefault_backend = file\nfilesystem_store_datadir = /mnt/glance_images/\n",
    )
    done = node.render(FILE)
    assert kept(done) == ["file_previous"]
    places = {store.id: store.options["filesystem_store_datadir"] for store in node.settings().stores
              if not store.reserved}  # fmt: skip
    assert places == {"file": "/mnt/glance_images/", "file_previous": "/var/lib/glance/images/"}
    assert "/mnt/glance_images:/mnt/glance_images" in done.facts["container"]["volumes"]
    # and back, with the override gone: now the directory is the previous one, and stays mounted
    (node.desk.path / "config/glance/glance-api.conf").unlink()
    done = node.render(FILE)
    assert kept(done) == ["file_previous"]
    assert "/mnt/glance_images:/mnt/glance_images" in done.facts["container"]["volumes"]


def test_files_of_a_former_ceph_store(node: Node) -> None:
    """Another cluster: configuration and key of the first are carried on when the operator took them away."""
    node.render(CEPH)
    for file in ("ceph.conf", "ceph.client.glance.keyring"):
        (node.desk.path / "config/glance" / file).unlink()
    done = node.render(CEPH + "ceph_cluster: other\nceph_glance_keyring: other.client.glance.keyring\n")
    assert kept(done) == ["rbd_previous"]
    assert done.files["ceph/ceph.conf"][0] == b"[global]\n# ceph.conf\n"
    assert done.files["ceph/ceph.client.glance.keyring"][1] == 0o600
    assert done.facts["missing"] == []
    by_id = {store.id: store.options["rbd_store_ceph_conf"] for store in node.settings().stores if store.type == "rbd"}
    assert by_id == {"rbd": "/etc/ceph/other.conf", "rbd_previous": "/etc/ceph/ceph.conf"}


def test_the_account_of_a_former_swift_store(node: Node) -> None:
    node.render('glance_backend_swift: "yes"\nglance_backend_file: "no"\n')
    before = (node.output / "glance-swift.conf").read_bytes()
    done = node.render(FILE)
    assert kept(done) == ["swift"]
    assert done.files["glance-swift-swift.conf"] == (before, 0o600)
    assert values(done)["[swift] swift_store_config_file"] == ["/etc/glance/glance-swift-swift.conf"]
    again = node.render(FILE)
    assert again.files["glance-swift-swift.conf"] == (before, 0o600)


def test_the_certificates_of_a_former_store(node: Node) -> None:
    path = node.desk.write("config/glance/certificates/s3.crt", "-----")
    node.render(S3 + "b1\nglance_s3_store_cacert: /etc/glance/certificates/s3.crt\n")
    path.unlink()
    done = node.render(FILE)
    assert kept(done) == ["s3"]
    assert done.files["certificates/s3.crt"] == (b"-----", 0o640)


def test_a_new_node_keeps_what_the_others_have(node: Node, desk: Desk) -> None:
    node.render(S3 + "b1\n")
    fresh = Node(desk, "two")
    assert kept(fresh.render(FILE, previous=(node.output, desk.path / "nowhere"))) == ["s3"]


def test_a_kept_store_is_no_default(node: Node) -> None:
    node.render(FILE)
    node.desk.write("config/glance/glance-api.conf", "[glance_store]\ndefault_backend = file\n")
    with pytest.raises(ConfigError, match='set glance_backend_file: "yes"'):
        node.render(CEPH)


def test_another_volume_is_refused(node: Node) -> None:
    """What lies in a volume that is not mounted any more cannot be kept."""
    node.render(FILE)
    other = FILE + "glance_file_datadir_volume: /srv/glance\n"
    with pytest.raises(ConfigError, match=r"glance_file_datadir_volume: was 'glance', in which images of the store"):
        node.render(other)
    node.render(other + "glance_forget_stores: [file]\n")
    node.render(other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.unlink(),
        lambda path: (path.parent / "glance-api.conf").unlink(),
    ],
)
def test_damaged_earlier_files_stop_nothing(node: Node, damage: Callable[[Path], None]) -> None:
    node.render(FILE)
    damage(node.output / rendering.FACTS)
    node.render(S3 + "b1\n")
    assert json.loads((node.output / rendering.FACTS).read_text())["stores"][0]["name"] == "s3"


DIRECTORIES = 'glance_backend_file: "yes"\nglance_filesystem_store_datadirs: '
# directories of two deployments → those that are kept besides
MOVES = {
    ("[/var/lib/glance/images:1]", "[/mnt/a:2, /var/lib/glance/images:1]"): None,
    ("[/mnt/a:2, /mnt/b:1]", "[/mnt/a:2]"): ("/mnt/b", []),
    ("[/mnt/a:2, /mnt/b:1, /mnt/c:1]", "[/mnt/a:2]"): (None, ["/mnt/b:0", "/mnt/c:0"]),
}


@pytest.mark.parametrize("move", MOVES, ids=" ".join)
def test_a_directory_that_is_still_used_is_not_kept_twice(node: Node, move: tuple[str, str]) -> None:
    """The service refuses two stores in one directory."""
    before, after = move
    node.render(f"{DIRECTORIES}{before}\n")
    done = node.render(f"{DIRECTORIES}{after}\n")
    assert kept(done) == (["file_previous"] if MOVES[move] else [])
    for store in node.settings().stores:
        if store.id == "file_previous":
            there = store.options["filesystem_store_datadir"], store.options["filesystem_store_datadirs"]
            assert (there[0] if not there[1] else None, there[1]) == MOVES[move]

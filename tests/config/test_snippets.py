"""The operators' guide to backends: each ini snippet of it is read as it stands, one by one, in both styles. It does
what its text says, or the check and the start name the option that must change, and to what."""

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.config.conftest import Read, told
from tests.config.guide import SNIPPETS, blocks, options
from tests.servers.service import command
from xloud_image.config.loader import Loaded
from xloud_image.errors import ConfigError
from xloud_image.stores import TYPES

GLOBAL = "glance_store"


class Meaning(NamedTuple):
    """What a snippet means. `notes`: (level, option, words) of what is told besides the guess about its style;
    `secrets`: texts of it that are never shown."""

    type: str
    options: dict[str, Any]
    notes: tuple[tuple[str, str, str], ...] = ()
    secrets: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        return any(level == "error" for level, _, _ in self.notes)


PLACEHOLDER = "is a placeholder of a guide, in angle brackets; write the real value"
MEANING = {
    "custom directory": Meaning(
        "file",
        {"filesystem_store_datadir": "/mnt/glance_images/"},
        (("warning", "https_insecure", "certificates are verified"),),
    ),
    "Swift backend": Meaning(
        "swift",
        {
            "swift_store_auth_address": "http://10.0.1.71:5000/v3",
            "swift_store_user": "service:glance",
            "swift_store_key": "<glance-service-password>",
            "swift_store_container": "glance",
            "swift_store_create_container_on_put": True,
            "swift_store_multi_tenant": False,
        },
        (("warning", "swift_store_key", PLACEHOLDER),),
        ("<glance-service-password>", "service:glance"),
    ),
    "S3 backend": Meaning(
        "s3",
        {
            "s3_store_host": "https://s3.example.com",
            "s3_store_access_key": "<access-key>",
            "s3_store_secret_key": "<secret-key>",
            "s3_store_bucket": "glance-images",
            "s3_store_create_bucket_on_put": True,
            "s3_store_large_object_size": 100,
            "s3_store_large_object_chunk_size": 10,
        },
        (("warning", "s3_store_access_key", PLACEHOLDER), ("warning", "s3_store_secret_key", PLACEHOLDER)),
        ("<access-key>", "<secret-key>"),
    ),
    "VMware datastore backend": Meaning(
        "vmware",
        {
            "vmware_server_host": "10.0.10.20",
            "vmware_server_username": "administrator@vsphere.local",
            "vmware_server_password": "<password>",
            "vmware_datastores": ["DatacenterName:DatastoreName:100"],
            "vmware_store_image_dir": "/openstack_glance",
            "vmware_insecure": False,
            "vmware_task_poll_interval": 5,
        },
        (
            ("warning", "default_backend", "'vsphere' is taken as the type vmware"),
            ("warning", "vmware_server_password", PLACEHOLDER),
            ("note", "vmware_api_insecure", "is the old name of"),
        ),
        ("<password>",),
    ),
    "Cinder backend": Meaning(
        "cinder",
        {
            "cinder_catalog_info": "volumev3::internalURL",
            "cinder_volume_type": "image-store",
            "cinder_store_user_name": "glance",
            "cinder_store_auth_address": "http://10.0.1.71:5000/v3",
            "cinder_store_project_name": "service",
            "cinder_store_password": None,
        },
        (
            (
                "error",
                "cinder_store_password",
                "is missing: with cinder_store_user_name, cinder_store_project_name this store",
            ),
        ),
    ),
    "HTTP backend": Meaning(
        "http",
        {},
        (
            ("warning", "default_backend", "every upload that names no store gets 410"),
            ("warning", "https_insecure", "certificates are verified"),
        ),
    ),
}
# the account of the snippet for volumes, as a deployment has it for its tokens
KEYSTONE = """
[keystone_authtoken]
auth_url = http://10.0.1.71:5000
username = glance
project_name = service
password = k3ystone
"""


def store_of(loaded: Loaded) -> Any:
    store, *others = (store for store in loaded.settings.stores if not store.reserved)
    # Glance's own defaults where a file names no other type
    assert [other.id for other in others] == ["http"] * (store.type == "file" and not loaded.settings.multi_store)
    return store


def test_every_block_of_the_guide_is_known() -> None:
    assert Counter(block.language for block in blocks()) == {"ini": 6, "yaml": 4, "bash": 8}
    assert set(SNIPPETS) == set(MEANING)


@pytest.mark.parametrize("title", MEANING)
def test_as_it_stands(read: Read, title: str) -> None:
    meaning = MEANING[title]
    loaded = read(SNIPPETS[title])
    store = store_of(loaded)
    assert (store.id, store.type, loaded.settings.default_store) == (meaning.type, meaning.type, meaning.type)
    assert not loaded.settings.multi_store
    assert {name: store.options[name] for name in meaning.options} == meaning.options
    given = set(options(title)) - {"default_backend", "vmware_api_insecure"}
    assert given <= set(meaning.options), "every line of the snippet counts"
    # each guess is one line, and no line is about anything else
    about = [note for note in loaded.findings if note.about and GLOBAL in note.about]
    expected = (*meaning.notes, ("warning", "default_backend", "stands without enabled_backends"))
    for level, option, words in expected:
        (note,) = (n for n in about if n.about == f"[{GLOBAL}] {option}" and words in n.sentence)
        assert note.severity == level
        about.remove(note)
    assert about == []
    assert bool(loaded.refusals) == meaning.refused
    assert not [note for note in loaded.findings if note.kind == "unknown"]


@pytest.mark.parametrize("title", MEANING)
def test_below_what_a_deployment_tool_rendered(read: Read, title: str) -> None:
    """`enabled_backends` is there, and a section with the store's options at their defaults: the guide's lines win."""
    meaning = MEANING[title]
    rendered = f"[DEFAULT]\nenabled_backends = main:{meaning.type}\n[{GLOBAL}]\ndefault_backend = main\n[main]\n"
    for opt in TYPES[meaning.type].options:
        if opt.default not in (None, "", [], {}):
            rendered += f"{opt.dest} = {opt.default}\n"
    loaded = read(rendered, SNIPPETS[title])
    store = store_of(loaded)
    assert (store.id, store.type, loaded.settings.default_store) == ("main", meaning.type, "main")
    assert {name: store.options[name] for name in meaning.options} == meaning.options
    assert bool(loaded.refusals) == meaning.refused
    (sentence, *_) = told(loaded, f"[{GLOBAL}] default_backend", "warning")
    assert "taken as" in sentence
    # one line for each option that was taken
    for name, value in meaning.options.items():
        if value is not None:
            words = f"taken for the store 'main', the only one of type {meaning.type}"
            assert [n for n in told(loaded, f"[{GLOBAL}] {name}", "warning") if n != PLACEHOLDER] == [words]


@pytest.mark.parametrize("title", [title for title in MEANING if MEANING[title].options])
def test_beside_two_stores_of_its_type(read: Read, title: str) -> None:
    """Nobody can say which one is meant: nothing is taken, each line is told."""
    meaning = MEANING[title]
    text = SNIPPETS[title].replace("default_backend = ", "# ")
    stores = f"[DEFAULT]\nenabled_backends = a:{meaning.type}, b:{meaning.type}\n[{GLOBAL}]\ndefault_backend = a\n"
    loaded = read(stores, text)
    for name, value in meaning.options.items():
        if value is not None:
            (sentence,) = told(loaded, f"[{GLOBAL}] {name}", "warning")
            assert sentence.startswith(f"is not read: 2 stores are of type {meaning.type}")


@pytest.mark.parametrize("title", [title for title in MEANING if MEANING[title].type != "file"])
def test_a_store_that_is_not_enabled(read: Read, title: str) -> None:
    """The deployment tool rendered another store only: what to write is said."""
    meaning = MEANING[title]
    loaded = read(f"[DEFAULT]\nenabled_backends = file:file\n[{GLOBAL}]\ndefault_backend = file\n", SNIPPETS[title])
    (sentence,) = told(loaded, f"[{GLOBAL}] default_backend", "error")
    assert sentence.endswith(f"write [DEFAULT] enabled_backends = file:file, {meaning.type}:{meaning.type}")


# volumes: whose account


def test_the_password_of_the_same_account_is_taken(read: Read) -> None:
    loaded = read(SNIPPETS["Cinder backend"], KEYSTONE)
    assert not loaded.refusals
    assert store_of(loaded).options["cinder_store_password"] == "k3ystone"
    (sentence,) = told(loaded, f"[{GLOBAL}] cinder_store_password", "warning")
    assert sentence == "is not set: that of [keystone_authtoken] is used, which names the same user 'glance'"
    assert "k3ystone" not in str(loaded.resolved) + " ".join(map(str, loaded.findings))


@pytest.mark.parametrize(
    "other", ["username = nova", "project_name = admin", "password ="], ids=lambda text: text.partition(" ")[0]
)
def test_no_other_account_lends_its_password(read: Read, other: str) -> None:
    loaded = read(SNIPPETS["Cinder backend"], KEYSTONE, f"[keystone_authtoken]\n{other}\n")
    assert [note.about for note in loaded.refusals] == [f"[{GLOBAL}] cinder_store_password"]


def test_an_account_that_is_whole_or_none_is_no_question(read: Read) -> None:
    whole = read(SNIPPETS["Cinder backend"] + "cinder_store_password = x\n")
    none = read(f"[{GLOBAL}]\ndefault_backend = cinder\n")
    credential = read(
        SNIPPETS["Cinder backend"]
        + "cinder_store_application_credential_id = i\ncinder_store_application_credential_secret = s\n"
    )
    address = read(f"[{GLOBAL}]\ndefault_backend = cinder\ncinder_store_auth_address = http://10.0.1.71:5000/v3\n")
    for loaded in (whole, none, credential, address):
        assert not loaded.refusals
    most = read(f"[{GLOBAL}]\ndefault_backend = cinder\ncinder_store_user_name = glance\n")
    assert [note.about for note in most.refusals] == [
        f"[{GLOBAL}] cinder_store_{name}" for name in ("auth_address", "password", "project_name")
    ]


# http as the default


@pytest.mark.parametrize(
    ("more", "default"),
    [
        ("", "http"),
        ("stores = http\n", "http"),
        ("default_store = file\n", "file"),
        ("stores = http, rbd\n", "rbd"),
        ("stores = http, rbd, file\n", "http"),  # nobody said which
        ("stores = http, rbd, file\ndefault_store = file\n", "file"),
    ],
)
def test_a_default_that_takes_no_data_leaves_the_place_to_another(read: Read, more: str, default: str) -> None:
    loaded = read(SNIPPETS["HTTP backend"] + more)
    assert not loaded.refusals
    assert loaded.settings.default_store == default
    sentences = told(loaded, f"[{GLOBAL}] default_backend", "warning")
    wanted = "gets 410" if default == "http" else f"'http' takes no data: the default is '{default}'"
    assert [wanted in sentence for sentence in sentences].count(True) == 1


# the command


@pytest.mark.parametrize("title", MEANING)
def test_the_check_prints_it(tmp_path: Path, title: str) -> None:
    meaning = MEANING[title]
    file = tmp_path / "glance-api.conf"
    file.write_text(f"[xloud]\nauth = none\nstate_dir = {tmp_path}\n" + SNIPPETS[title])
    words = [*command(), "config", "check", "--config-file", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == (1 if meaning.refused else 0), done.stdout + done.stderr
    assert done.stderr == ""
    section = done.stdout.partition(f"\n[{meaning.type}]\n")[2].partition("\n\n")[0].splitlines()
    for name, value in meaning.options.items():
        text = f"{'***' if value in meaning.secrets else _text(value)}"
        assert f"{name} = {text}".rstrip() in [line.removeprefix("# ") for line in section]
    for secret in meaning.secrets:
        assert secret not in done.stdout
    for level, option, what in meaning.notes:
        (line,) = (line for line in done.stdout.splitlines() if f"[{GLOBAL}] {option}: " in line and what in line)
        assert line.startswith(f"#   {'invalid' if level == 'error' else 'honoured' if level == 'note' else 'guess'}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(value) if isinstance(value, list) else str(value).lower() if value in (True, False) else str(value)


@pytest.mark.parametrize("title", [title for title in MEANING if MEANING[title].refused])
def test_a_file_that_is_refused_says_so_at_the_start(tmp_path: Path, title: str) -> None:
    file = tmp_path / "glance-api.conf"
    file.write_text(f"[xloud]\nauth = none\nstate_dir = {tmp_path}\n" + SNIPPETS[title])
    words = [*command(), "serve", "--config-file", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "[glance_store] cinder_store_password: is missing" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_loader_never_raises_for_a_snippet(read: Read) -> None:
    for title in SNIPPETS:
        loaded = read(SNIPPETS[title])
        if MEANING[title].refused:
            with pytest.raises(ConfigError, match="cinder_store_password"):
                loaded.require()
        else:
            loaded.require()

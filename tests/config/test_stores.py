"""Which stores a file means, in both styles; every guess is told, every contradiction refused."""

import itertools

import pytest

from tests.config.conftest import Read, told
from xloud_image.config.loader import Loaded
from xloud_image.stores import TYPES

TWO = """
[DEFAULT]
enabled_backends = fast:file, slow:file
[glance_store]
default_backend = slow
[fast]
filesystem_store_datadir = /srv/fast
store_description = NVMe
weight = 20
[slow]
filesystem_store_datadir = /srv/slow
filesystem_thin_provisioning = yes
"""
ONE = "[DEFAULT]\nenabled_backends = only:file\n[glance_store]\ndefault_backend = only\n"
DIR = "filesystem_store_datadir"


def ids(loaded: Loaded) -> list[tuple[str, str]]:
    return [(store.id, store.type) for store in loaded.settings.stores if not store.reserved]


def options(loaded: Loaded, id_: str) -> dict[str, object]:
    return dict(next(store for store in loaded.settings.stores if store.id == id_).options)


def guesses(loaded: Loaded) -> list[str]:
    return [note.sentence for note in loaded.findings if note.kind == "guess" and "[DEFAULT] bind" not in note.about
            and "[database]" not in note.about]  # fmt: skip


# several stores


def test_several_stores(read: Read) -> None:
    loaded = read(TWO)
    assert not loaded.refusals
    assert not guesses(loaded)
    settings = loaded.settings
    assert settings.multi_store
    assert ids(loaded) == [("fast", "file"), ("slow", "file")]
    assert settings.default_store == "slow"
    fast, slow = settings.stores
    assert (fast.description, fast.weight, slow.description, slow.weight) == ("NVMe", 20, "", 0)
    assert fast.options[DIR] == "/srv/fast"
    assert slow.options["filesystem_thin_provisioning"] is True
    assert set(fast.options) == {opt.dest for opt in TYPES["file"].options}


@pytest.mark.parametrize(
    "text", ["fast:file,slow:file", "fast : file ,\n  slow: file", '"fast:file, slow:file"', "fast:file,slow:file,"]
)
def test_ways_to_write_them(read: Read, text: str) -> None:
    assert ids(read(TWO, f"[DEFAULT]\nenabled_backends = {text}\n")) == [("fast", "file"), ("slow", "file")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a:file, a:file", "stands there twice"),
        ("a:file, A:file", "stands there twice"),
        ("os_glance_a:file", "begins with os_glance_"),
        ("a b:file", "is not made of letters"),
        ("../a:file", "is not made of letters"),
        ("database:file", "has another meaning"),
        ("workers:file", "has another meaning"),
        ("backend_defaults:file", "has another meaning"),
        ("file", "'file' is no id:type pair"),
        ("a:", "'a:' is no id:type pair"),
        (":file", "the store id ''"),
        ("a:fiel", "'fiel' is no type of store; is 'file' meant?"),
        ("a:tape", "'tape' is no type of store"),
        (",", "names no store"),
    ],
)
def test_what_is_no_store(read: Read, text: str, sentence: str) -> None:
    loaded = read(f"[DEFAULT]\nenabled_backends = {text}\n")
    assert any(sentence in line for line in told(loaded, "[DEFAULT] enabled_backends", "error"))


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_type_in_both_styles(read: Read, name: str) -> None:
    loaded = read(f"[DEFAULT]\nenabled_backends = a:file, b:{name}\n[glance_store]\ndefault_backend = a\n")
    assert ids(loaded) == [("a", "file"), ("b", name)]
    alone = ids(read(f"[glance_store]\nstores = {name}\ndefault_store = {name}\n"))
    assert alone == [(name, name)]
    more = [("http", "http")] if name == "file" else []
    assert ids(read(f"[glance_store]\ndefault_store = {name}\n")) == [*alone, *more], "as Glance's default of stores"


def test_a_scheme_instead_of_a_type(read: Read) -> None:
    loaded = read("[DEFAULT]\nenabled_backends = a:filesystem\n[glance_store]\ndefault_backend = a\n")
    assert ids(loaded) == [("a", "file")]
    assert guesses(loaded) == ["'filesystem' is taken as the type file"]


# the default


def test_a_default_that_names_the_type_of_one_store(read: Read) -> None:
    loaded = read(ONE, "[glance_store]\ndefault_backend = file\n")
    assert loaded.settings.default_store == "only"
    assert guesses(loaded) == ["'file' is no store id; taken as the store 'only'"]


def test_a_default_that_names_the_type_of_two(read: Read) -> None:
    loaded = read(TWO, "[glance_store]\ndefault_backend = file\n")
    assert "the stores are fast, slow" in told(loaded, "[glance_store] default_backend", "error")[0]


def test_a_default_that_is_not_there(read: Read) -> None:
    loaded = read(TWO, "[glance_store]\ndefault_backend = slov\n")
    assert "is 'slow' meant?" in told(loaded, "[glance_store] default_backend", "error")[0]


def test_no_default_among_several(read: Read) -> None:
    loaded = read(TWO.replace("default_backend = slow", ""))
    assert told(loaded, "[glance_store]", "error") == ["default_backend is missing; name one of fast, slow"]


def test_no_default_with_one_store_that_takes_data(read: Read) -> None:
    loaded = read("[DEFAULT]\nenabled_backends = web:http, disk:file\n")
    assert loaded.settings.default_store == "disk"
    assert not loaded.refusals
    assert any("only store that takes data" in line for line in guesses(loaded))


def test_a_default_that_takes_no_data_is_a_warning(read: Read) -> None:
    for text in ("[DEFAULT]\nenabled_backends = web:http\n[glance_store]\ndefault_backend = web\n",
                 "[glance_store]\ndefault_backend = http\n"):  # fmt: skip
        loaded = read(text)
        assert not loaded.refusals
        assert any("every upload that names no store gets 410" in line for line in guesses(loaded))


def test_default_store_beside_enabled_backends_is_not_read(read: Read) -> None:
    loaded = read(TWO, "[glance_store]\ndefault_store = file\n")
    assert loaded.settings.default_store == "slow"
    assert told(loaded, "[glance_store] default_store", "warning")


# where an option is taken from

PLACES = ("only", "glance_store", "backend_defaults")


@pytest.mark.parametrize("given", [set(c) for n in range(4) for c in itertools.combinations(PLACES, n)])
def test_the_place_of_an_option_that_counts(read: Read, given: set[str]) -> None:
    text = ONE + "".join(f"[{place}]\n{DIR} = /{place}\n" for place in PLACES if place in given)
    loaded = read(text)
    expected = next((f"/{place}" for place in PLACES if place in given), "/var/lib/glance/images")
    assert options(loaded, "only")[DIR] == expected
    assert not loaded.refusals
    notes = told(loaded, f"[glance_store] {DIR}", "warning")
    if "glance_store" not in given:
        assert not notes
    elif "only" in given:
        assert notes == ["is not read: [only] has another value for it"]
    else:
        assert notes == ["taken for the store 'only', the only one of type file"]


@pytest.mark.parametrize("rendered", ["/var/lib/glance/images", "/var/lib/glance/images/"])
def test_a_line_of_the_operator_wins_over_a_rendered_default(read: Read, rendered: str) -> None:
    loaded = read(ONE, f"[only]\n{DIR} = {rendered}\n[glance_store]\n{DIR} = /mnt/images\n")
    assert options(loaded, "only")[DIR] == "/mnt/images"
    assert told(loaded, f"[glance_store] {DIR}") == ["taken for the store 'only', the only one of type file"]


def test_an_option_in_glance_store_with_two_stores_of_its_type(read: Read) -> None:
    loaded = read(TWO, "[glance_store]\nfilesystem_store_chunk_size = 4096\n")
    assert options(loaded, "fast")["filesystem_store_chunk_size"] == 65536
    (sentence,) = told(loaded, "[glance_store] filesystem_store_chunk_size", "warning")
    assert "2 stores are of type file" in sentence


def test_defaults_for_all_stores(read: Read) -> None:
    loaded = read(
        TWO, "[backend_defaults]\nfilesystem_store_file_perm = 640\nweight = 3\nfilesystem_thin_provisioning = no\n"
    )
    assert [store.options["filesystem_store_file_perm"] for store in loaded.settings.stores] == [640, 640]
    assert [store.weight for store in loaded.settings.stores] == [20, 3]
    assert options(loaded, "slow")["filesystem_thin_provisioning"] is True


def test_options_of_a_type_that_no_store_has(read: Read) -> None:
    loaded = read(TWO, "[glance_store]\nrbd_store_pool = images\nrbd_store_user = glance\n")
    assert told(loaded, "[glance_store]") == ["no store is of type rbd: not read: rbd_store_pool, rbd_store_user"]


def test_the_section_of_a_store_that_is_not_enabled(read: Read) -> None:
    loaded = read(TWO, "[s3]\ns3_store_host = x\n")
    assert told(loaded, "[s3]", "note") == ["this store is not enabled"]


def test_ids_in_capitals_find_their_section(read: Read) -> None:
    loaded = read(
        "[DEFAULT]\nenabled_backends = Fast:file\n[glance_store]\ndefault_backend = Fast\n", f"[Fast]\n{DIR} = /f\n"
    )
    assert options(loaded, "Fast")[DIR] == "/f"


def test_an_option_that_a_type_cannot_do_without(read: Read) -> None:
    loaded = read("[DEFAULT]\nenabled_backends = a:s3\n[glance_store]\ndefault_backend = a\n[a]\ns3_store_bucket = b\n")
    assert [note.about for note in loaded.refusals] == [
        "[a] s3_store_host",
        "[a] s3_store_access_key",
        "[a] s3_store_secret_key",
    ]


# directories


@pytest.mark.parametrize(
    "more",
    [
        f"[slow]\n{DIR} = /srv/fast\n",
        f"[slow]\n{DIR} = /srv/x/../fast/\n",
        "[slow]\nfilesystem_store_datadir =\nfilesystem_store_datadirs = /srv/fast:10, /srv/slow:5\n",
        f"[os_glance_staging_store]\n{DIR} = /srv/fast\n",
    ],
)
def test_two_stores_in_one_directory(read: Read, more: str) -> None:
    loaded = read(TWO, more)
    (note,) = loaded.refusals
    assert "/srv/fast belongs to the store 'fast' already" in note.sentence


def test_both_ways_to_name_directories(read: Read) -> None:
    loaded = read(TWO, "[fast]\nfilesystem_store_datadirs = /srv/a:1\n")
    assert told(loaded, "[fast] filesystem_store_datadirs", "error")


def test_reserved_stores(read: Read) -> None:
    loaded = read(
        TWO,
        f"[os_glance_tasks_store]\n{DIR} = /srv/tasks\n[os_glance_staging_store]\nfilesystem_store_chunk_size = 1\n",
    )
    reserved = {store.id: store.options[DIR] for store in loaded.settings.stores if store.reserved}
    assert reserved == {
        "os_glance_staging_store": "/var/lib/glance/os_glance_staging_store",
        "os_glance_tasks_store": "/srv/tasks",
    }
    assert not [store for store in read(TWO).settings.stores if store.reserved]


# one store


def test_the_old_style(read: Read) -> None:
    loaded = read(f"[glance_store]\nstores = file\ndefault_store = file\n{DIR} = /srv/old\n")
    assert not loaded.refusals
    assert not guesses(loaded)
    assert not loaded.settings.multi_store
    assert ids(loaded) == [("file", "file")]
    assert loaded.settings.default_store == "file"
    assert options(loaded, "file")[DIR] == "/srv/old"


def test_nothing_about_stores(read: Read) -> None:
    loaded = read("[DEFAULT]\ndebug = no\n")
    assert ids(loaded) == [("file", "file"), ("http", "http")]
    assert loaded.settings.default_store == "file"
    assert guesses(loaded) == [
        "no store is named: those of Glance's defaults are used, file and (for reading) http",
        "is not set: certificates are verified (Glance does not verify them unless told to)",
    ]


def test_in_the_old_style_the_own_section_counts_first(read: Read) -> None:
    loaded = read(f"[glance_store]\ndefault_store = file\n{DIR} = /a\n[file]\n{DIR} = /b\n")
    assert options(loaded, "file")[DIR] == "/b"


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("vsphere", "vmware"),
        ("filesystem", "file"),
        ("swift+config", "swift"),
        ("swift+https", "swift"),
        ("https", "http"),
        ("s3+https", "s3"),
        ("VSphere", "vmware"),
        ("rbd", "rbd"),
    ],
)
def test_schemes_in_the_old_style(read: Read, name: str, type_: str) -> None:
    loaded = read(f"[glance_store]\ndefault_store = {name}\n")
    assert ids(loaded)[0] == (type_, type_)
    assert loaded.settings.default_store == type_
    assert (f"'{name}' is taken as the type {type_}" in guesses(loaded)) == (name != type_)


def test_several_types_in_the_old_style(read: Read) -> None:
    text = "[glance_store]\nstores = rbd, file, http\n"
    loaded = read(text + "default_store = rbd\nrbd_store_pool = images2\n")
    assert ids(loaded) == [("rbd", "rbd"), ("file", "file"), ("http", "http")]
    assert loaded.settings.default_store == "rbd"
    assert options(loaded, "rbd")["rbd_store_pool"] == "images2"
    # `file` is what the option means when it is not there
    assert read(text).settings.default_store == "file"
    assert read("[glance_store]\nstores = rbd, http\n").settings.default_store == "rbd"
    assert told(read("[glance_store]\nstores = rbd, cinder\n"), "[glance_store] stores", "error")


def test_default_backend_in_the_old_style_wins_and_is_told(read: Read) -> None:
    loaded = read("[glance_store]\ndefault_backend = file\ndefault_store = memory\n")
    assert loaded.settings.default_store == "file"
    assert any("stands without enabled_backends" in line for line in guesses(loaded))


# a store that is kept

KEPT = """
[DEFAULT]
enabled_backends = new:file, old:file
[glance_store]
default_backend = {default}
filesystem_store_datadir = /srv/new
[old]
filesystem_store_datadir = /srv/old
read_only = yes
"""


def test_a_kept_store_gets_nothing_of_the_common_section(read: Read) -> None:
    loaded = read(KEPT.format(default="new"))
    assert not loaded.refusals
    assert options(loaded, "new")[DIR] == "/srv/new"
    assert options(loaded, "old")[DIR] == "/srv/old"
    assert [(store.id, store.takes_images) for store in loaded.settings.stores] == [("new", True), ("old", False)]


def test_a_kept_store_is_no_good_default(read: Read) -> None:
    loaded = read(KEPT.format(default="old"))
    assert loaded.settings.default_store == "old"
    (text,) = told(loaded, "[glance_store] default_backend", "warning")
    assert "remove read_only from its section" in text


def test_a_kept_store_is_not_taken_for_the_default(read: Read) -> None:
    loaded = read(KEPT.replace("default_backend = {default}\n", ""))
    assert loaded.settings.default_store == "new"


def test_a_format_that_nothing_makes_is_told(read: Read) -> None:
    text = TWO + "import_format = raw\n"
    assert any("nothing is converted" in said for said in guesses(read(text)))
    loaded = read(text + "[image_import_opts]\nimage_import_plugins = [image_conversion]\n")
    assert not guesses(loaded)
    assert [store.import_format for store in loaded.settings.stores] == ["", "raw"]
    assert read(TWO + "import_format = vhd\n").refusals

"""The filter `audit` of a paste file: what switches it on, and what is made of odd files."""

from pathlib import Path

import pytest

from xloud_image.config import loader
from xloud_image.config.loader import Loaded
from xloud_image.config.settings import AuditSettings

BASE = """\
[DEFAULT]
bind_host = 127.0.0.1
enabled_backends = a:file
transport_url = rabbit://u:p@127.0.0.1/
[glance_store]
default_backend = a
[a]
filesystem_store_datadir = /srv/a
[database]
connection = sqlite:////srv/x.sqlite
[xloud]
auth = none
"""
# as Glance ships it, where places of applications have a colon and no equals sign
PASTE = """\
[composite:api]
paste.composite_factory = glance.api:pipeline_factory
default = cors {name} rootapp
[composite:rootapp]
/: apiversions
/v2: apiv2app
[filter:{name}]
paste.filter_factory = keystonemiddleware.audit:filter_factory
"""
MAP = (
    "[DEFAULT]\ntarget_endpoint_type = None\n[path_keywords]\nimages = image\n[service_endpoints]\nimage = service/x\n"
)
ON = "[oslo_messaging_notifications]\ndriver = messagingv2\n"


def load(folder: Path, more: str = "", options: str = "", *, text: str | None = MAP, name: str = "audit") -> Loaded:
    (folder / "glance-api.conf").write_text(BASE + more)
    if text is not None:
        (folder / "map.conf").write_bytes(text.encode("utf-8", "surrogateescape"))
        options += "\naudit_map_file = %(here)s/map.conf\n"
    (folder / "glance-api-paste.ini").write_text(PASTE.format(name=name) + options)
    return loader.load([folder / "glance-api.conf"], env={})


def of(loaded: Loaded) -> AuditSettings:
    assert not loaded.refusals, loaded.refusals
    return loaded.settings.audit


def test_the_filter_switches_it_on_with_the_drivers_of_notifications(tmp_path: Path) -> None:
    found = of(load(tmp_path, ON, "ignore_req_list = get, HEAD\nignore_path_list = /v2/schemas/image,"))
    assert (found.drivers, found.topics, found.service_type) == (("messagingv2",), ("notifications",), "image")
    assert found.ignored_methods == {"GET", "HEAD"}
    assert found.ignored_paths == {"/v2/schemas/image"}
    assert (found.map.paths, found.map.services) == ({"images": "image"}, {"image": "service/x"})
    assert of(load(tmp_path, ON, name="ours")).drivers == ("messagingv2",)  # by what it is, under any name


def test_the_section_and_the_paste_file_say_more(tmp_path: Path) -> None:
    section = "[audit_middleware_notifications]\ndriver = messaging\ntopics = one, two\ntransport_url = rabbit://v:q@127.0.0.1/\n"
    found = of(load(tmp_path, ON + section))
    assert (found.drivers, found.topics) == (("messaging",), ("one", "two"))
    assert found.transport_url == "rabbit://v:q@127.0.0.1/"
    assert of(load(tmp_path, ON + section, "driver = log\ntopics = three")).topics == ("three",)
    assert of(load(tmp_path, ON + section, "use_oslo_messaging = false")).drivers == ("log",)
    off = "[audit_middleware_notifications]\nuse_oslo_messaging = false\n"
    assert of(load(tmp_path, off)).drivers == ("log",)


@pytest.mark.parametrize(
    ("more", "options", "text", "told"),
    [
        ("", "", MAP, "tells nobody: no driver is set"),
        (ON, "", None, "has no audit_map_file"),
        (ON, "", "[custom_actions]\nclone = cloned\n[service_endpoints]\nimage = sevice/x\n", "knows no action cloned"),
    ],
)  # fmt: skip
def test_what_would_bring_nothing_is_told(more: str, options: str, text: str | None, told: str, tmp_path: Path) -> None:
    loaded = load(tmp_path, more, options, text=text)
    assert told in " ".join(one.sentence for one in loaded.findings)
    assert {*of(loaded).map.actions.values(), *of(loaded).map.services.values()} <= {"unknown", "service/x"}


def test_a_section_without_the_filter_is_told(tmp_path: Path) -> None:
    (tmp_path / "glance-api.conf").write_text(BASE + "[audit_middleware_notifications]\ndriver = log\n")
    loaded = loader.load([tmp_path / "glance-api.conf"], env={})
    assert not of(loaded).drivers
    assert "no filter `audit` is in the pipeline" in " ".join(one.sentence for one in loaded.findings)


@pytest.mark.parametrize(
    "text", ["no ini file", "\0" * 100, "\udcff[x]\n", "[x]\n" + "a = b\n" * 400_000, "[a\n= \n[[b]]\n"]
)
def test_a_map_that_cannot_be_read_refuses_the_start(text: str, tmp_path: Path) -> None:
    [refusal] = load(tmp_path, ON, text=text).refusals
    assert "audit_map_file" in refusal.sentence


def test_a_map_that_is_not_there_and_a_driver_that_is_none_refuse_the_start(tmp_path: Path) -> None:
    loaded = load(tmp_path, ON, "audit_map_file = /nowhere/map.conf\ndriver = pigeon", text=None)
    sentences = " ".join(one.sentence for one in loaded.refusals)
    assert "No such file" in sentences
    assert "'pigeon' does not send audit events here" in sentences
    folder = load(tmp_path, ON, f"audit_map_file = {tmp_path}", text=None)
    assert "Is a directory" in " ".join(one.sentence for one in folder.refusals)


def test_odd_words_of_a_map_are_words(tmp_path: Path) -> None:
    """No interpolation, no code: a % is a %, what is long is cut."""
    text = f"[path_keywords]\nimages = 100%(here)s\nmembers = {'x' * 5000}\nfile\n = \n"
    loaded = load(tmp_path, ON, text="[path_keywords]\nimages = 100%(here)s\nmembers = " + "x" * 5000 + "\n")
    assert of(loaded).map.paths == {"images": "100%(here)s", "members": "x" * 255}
    assert load(tmp_path, ON, text=text).refusals

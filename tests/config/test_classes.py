"""Every option of a file falls in one class, and the note says so."""

import itertools

import pytest
from oslo_config import cfg

from tests.config.conftest import Read, told
from xloud_image.config.findings import Kind
from xloud_image.config.options.kinds import Option
from xloud_image.config.options.table import table

LEVEL = {Kind.PENDING: "warning", Kind.GONE: "warning", Kind.UNSAFE: "error", Kind.IGNORED: "note"}
UNSAFE = "[keystone_authtoken]\nenforce_token_bind = required\n"


def _other_value(option: Option) -> str:
    """A text that is allowed and is not the default."""
    default = option.opt.default
    for text in ("true", "false", "7777", "kerberos", "10GB"):
        try:
            value = option.opt.type(text)
        except ValueError:
            continue
        if option.opt.multi or isinstance(option.opt, cfg.ListOpt):
            value = [text]
        if value != default and option.concerns(value):
            return text
    raise AssertionError(f"no value for {option.opt.name}")


ALL = [
    pytest.param(group, name, id=f"{group}-{name}")
    for group, options in table().items()
    for name, option in options.items()
    if option.kind is not Kind.HONOURED
]


@pytest.mark.parametrize(("group", "name"), ALL)
def test_an_option_that_is_not_honoured_is_told_in_its_class(read: Read, group: str, name: str) -> None:
    option = table()[group][name]
    loaded = read(f"[{group}]\n{name} = {_other_value(option)}\n")
    notes = [note for note in loaded.findings if note.about == f"[{group}] {name}"]
    assert [(note.kind, note.severity) for note in notes] == [(option.kind, LEVEL[option.kind])]
    assert notes[0].sentence == option.why
    assert bool(loaded.refusals) == (option.kind is Kind.UNSAFE)


def test_no_honoured_option_is_told_for_its_default(read: Read) -> None:
    for group, options in table().items():
        for name, option in options.items():
            default = option.opt.default
            if option.kind is Kind.HONOURED and isinstance(default, (bool, int)) and group != "glance_store":
                loaded = read(f"[{group}]\n{name} = {default}\n")
                assert not told(loaded, f"[{group}] {name}"), f"[{group}] {name}"


@pytest.mark.parametrize(
    "lines",
    [
        "[DEFAULT]\nuser_storage_quota = 0",
        "[DEFAULT]\nuser_storage_quota = 0GB",
        "[DEFAULT]\nuse_keystone_limits = false",
        "[DEFAULT]\ndelayed_delete = False",
        "[DEFAULT]\nproperty_protection_file =",
        "[keystone_authtoken]\nenforce_token_bind = strict",
        "[keystone_authtoken]\nmemcache_tls_enabled = no",
        "[oslo_policy]\npolicy_default_rule = default",
        "[paste_deploy]\nconfig_file = /etc/glance/glance-api-paste.ini",
        "[oslo_messaging_notifications]\ndriver = noop",
        "[healthcheck]\nbackends = disable_by_file",
        "[image_conversion]\noutput_format = raw",
        "[import_filtering_opts]\nallowed_ports = [80,443]",
    ],
)
def test_protections_that_are_off_anyway(read: Read, lines: str) -> None:
    loaded = read(lines + "\n")
    option = lines.replace("\n", " ").partition(" =")[0]
    assert not told(loaded, option)
    assert not loaded.refusals


@pytest.mark.parametrize(("value", "size"), {"1": 1, "10GB": 10 << 30, "500 MB": 500 << 20, "2tb": 2 << 40}.items())
def test_a_storage_quota(read: Read, value: str, size: int) -> None:
    loaded = read(f"[DEFAULT]\nuser_storage_quota = {value}\n")
    assert not loaded.refusals
    assert loaded.settings.quotas.user_storage_quota == size


@pytest.mark.parametrize("value", ["unlimited", "10 PB", "-1", "1.5GB"])
def test_a_storage_quota_that_is_none(read: Read, value: str) -> None:
    assert told(read(f"[DEFAULT]\nuser_storage_quota = {value}\n"), "[DEFAULT] user_storage_quota", "error")


@pytest.mark.parametrize(
    ("lines", "option", "near"),
    [
        ("[DEFAULT]\nbind_hots = 1", "[DEFAULT] bind_hots", "bind_host"),
        ("[database]\nconection = x", "[database] conection", "connection"),
        ("[keystone_authtoken]\nuser_name_ = x", "[keystone_authtoken] user_name_", "username"),
        ("[glance_store]\nrbd_store_pol = /x", "[glance_store] rbd_store_pol", "rbd_store_pool"),
        ("[file]\nfilesystem_store_tmeout = 1", "[file] filesystem_store_tmeout", "filesystem_store_timeout"),
    ],
)  # fmt: skip
def test_an_unknown_option_is_told_with_the_nearest_name(read: Read, lines: str, option: str, near: str) -> None:
    (sentence,) = told(read(lines + "\n"), option, "warning")
    assert sentence == f"unknown, not read; is '{near}' meant?"


def test_an_unknown_option_like_no_other(read: Read) -> None:
    loaded = read("[DEFAULT]\nzzzzqqq = hunter2\n")
    assert told(loaded, "[DEFAULT] zzzzqqq") == ["unknown, not read"]
    assert "hunter2" not in str(loaded)
    assert not loaded.refusals


def test_an_unknown_section_is_one_note(read: Read) -> None:
    loaded = read("[keystone_autht0ken]\nauth_url = a\nusername = b\n[mine]\nx = y\n")
    assert told(loaded, "[keystone_autht0ken]") == ["unknown section, not read; is 'keystone_authtoken' meant?"]
    assert told(loaded, "[mine]") == ["unknown section, not read"]


def test_a_section_without_meaning_is_one_note(read: Read) -> None:
    options = "es_doc_type hmac_keys socket_timeout trace_requests es_scroll_time trace_sqlalchemy"
    loaded = read("[profiler]\n" + "".join(f"{name} = true\n" for name in options.split()))
    (sentence,) = told(loaded, "[profiler]", "note")
    assert sentence.endswith("es_doc_type, hmac_keys, socket_timeout, trace_requests and 2 more")


def test_all_that_refuses_is_named(read: Read) -> None:
    loaded = read("[DEFAULT]\nworkers = many\n[keystone_authtoken]\nenforce_token_bind = kerberos\n")
    assert [note.about for note in loaded.refusals] == ["[DEFAULT] workers", "[keystone_authtoken] enforce_token_bind"]
    assert all(note.origin.file for note in loaded.refusals)


def test_no_option_stands_in_two_classes() -> None:
    names = [(group, option.opt.dest) for group, options in table().items() for option in options.values()]
    assert len(names) == len(set(names))
    old = [
        (old.group or group, (old.name or "").replace("-", "_"))
        for group, options in table().items()
        for option in options.values()
        for old in option.opt.deprecated_opts
    ]
    assert not set(old) & set(names), "an old name is a name of its own"


def test_every_note_names_its_file(read: Read) -> None:
    loaded = read("[DEFAULT]\nuse_syslog = on\n", "[DEFAULT]\ncert_file = /y\n")
    by_option = {note.about: note.origin.file for note in loaded.findings}
    assert by_option["[DEFAULT] use_syslog"].name == "1.conf"  # type: ignore[union-attr]
    assert by_option["[DEFAULT] cert_file"].name == "2.conf"  # type: ignore[union-attr]


def test_refusals_come_first(read: Read) -> None:
    levels = [note.severity for note in read(f"[DEFAULT]\nscrub_pool_size = 1\nuse_syslog = on\n{UNSAFE}").findings]
    assert levels == sorted(levels, key=("error", "warning", "note").index)
    assert set(itertools.chain(levels)) == {"error", "warning", "note"}

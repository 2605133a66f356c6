"""How values may be written."""

import pytest

from tests.config.conftest import Read, told
from xloud_image.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "value"),
    [(word, True) for word in ("yes", "on", "true", "True", "1", '"yes"')]
    + [(word, False) for word in ("no", "off", "false", "FALSE", "0", "'no'")],
)
def test_booleans(read: Read, word: str, value: bool) -> None:
    loaded = read(f"[DEFAULT]\nshow_image_direct_url = {word}\n")
    assert loaded.settings.exposure.show_image_direct_url is value


def test_quotes_are_dropped(read: Read) -> None:
    loaded = read("[DEFAULT]\nenabled_backends = \"a:file\"\n[glance_store]\ndefault_backend = 'a'\n")
    assert loaded.settings.default_store == "a"
    assert not loaded.refusals


def test_names_are_filled_in(read: Read) -> None:
    loaded = read(
        """
        [DEFAULT]
        bind_port = 9344
        [database]
        connection = sqlite:////srv/$bind_port/${image_format.require_image_format_match}.sqlite
        """
    )
    assert loaded.settings.database.connection == "sqlite:////srv/9344/True.sqlite"


def test_two_dollar_signs_are_one(read: Read) -> None:
    loaded = read("[database]\nconnection = mysql://glance:pa$$word@db/glance\n")
    assert loaded.settings.database.connection == "mysql://glance:pa$word@db/glance"


@pytest.mark.parametrize("name", ["$word", "${no.word}", "${database.word}"])
def test_a_name_that_is_no_option(read: Read, name: str) -> None:
    loaded = read(f"[database]\nconnection = mysql://glance:pa{name}@db/glance\n")
    (sentence,) = told(loaded, "[database] connection", "error")
    assert "write $$" in sentence
    assert "word" not in sentence


@pytest.mark.parametrize(
    "text",
    [
        "raw,qcow2,iso",
        " raw , qcow2,iso,",
        "[raw, qcow2, iso]",
        "['raw', 'qcow2', \"iso\"]",
        "raw\n  qcow2\n  iso",
        "raw,\n  qcow2,\n  iso",
    ],
)
def test_lists(read: Read, text: str) -> None:
    loaded = read(f"[image_format]\ndisk_formats = {text}\n")
    assert loaded.settings.formats.disk_formats == ("raw", "qcow2", "iso")


def test_a_list_of_one_in_brackets(read: Read) -> None:
    assert read("[image_format]\ndisk_formats = [raw]\n").settings.formats.disk_formats == ("raw",)
    assert read("[image_format]\ndisk_formats = []\n").settings.formats.disk_formats == ()


@pytest.mark.parametrize(
    "lines",
    [
        "filesystem_store_datadirs = /a:1\nfilesystem_store_datadirs = /b:2",
        "filesystem_store_datadirs = /a:1, /b:2",
        "filesystem_store_datadirs = /a:1\n  /b:2",
    ],
)
def test_repeated_options(read: Read, lines: str) -> None:
    loaded = read(f"[DEFAULT]\nenabled_backends = a:file\n[glance_store]\ndefault_backend = a\n[a]\n{lines}\n")
    assert loaded.settings.stores[0].options["filesystem_store_datadirs"] == ["/a:1", "/b:2"]


def test_the_last_of_several_lines_counts(read: Read) -> None:
    assert read("[DEFAULT]\nbind_port = 1\nbind_port = 2\n").settings.server.bind_port == 2


@pytest.mark.parametrize(
    "line",
    ["bind_port = http", "bind_port = 70000", "workers = -1", "debug = perhaps", "image_size_cap = 0", "backlog = 1.5"],
)
def test_a_value_that_is_not_allowed(read: Read, line: str) -> None:
    name, _, value = line.partition(" = ")
    loaded = read(f"[DEFAULT]\n{line}\n")
    (sentence,) = told(loaded, f"[DEFAULT] {name}", "error")
    assert f"'{value}' is not allowed" in sentence
    with pytest.raises(ConfigError):
        loaded.require()


def test_all_mistakes_are_told_at_once(read: Read) -> None:
    loaded = read("[DEFAULT]\nbind_port = x\nworkers = y\n[cors]\nmax_age = z\n")
    assert [note.about for note in loaded.refusals] == [
        "[DEFAULT] bind_port",
        "[DEFAULT] workers",
        "[cors] max_age",
    ]
    assert all(note.origin.file for note in loaded.refusals)


def test_an_empty_value_is_as_good_as_none(read: Read) -> None:
    loaded = read("[DEFAULT]\nbind_port =\npublic_endpoint =\nlog_file =\n[keystone_authtoken]\nmemcached_servers =\n")
    assert not loaded.refusals
    assert loaded.settings.server.bind_port == 9292
    assert loaded.settings.server.public_endpoint is None
    assert loaded.settings.log_file is None


def test_old_names_count_and_are_told(read: Read) -> None:
    loaded = read("[database]\nidle_timeout = 77\n[DEFAULT]\nlogdir = /var/log/x\ndisk_formats = raw\n")
    assert loaded.settings.database.connection_recycle_time == 77
    assert loaded.settings.log_file == "/var/log/x/xloud-image.log"
    assert loaded.settings.formats.disk_formats == ("raw",)
    assert told(loaded, "[database] idle_timeout") == ["is the old name of [database] connection_recycle_time"]
    assert told(loaded, "[DEFAULT] disk_formats") == ["is the old name of [image_format] disk_formats"]


def test_sections_in_other_letters(read: Read) -> None:
    assert read("[Database]\nmax_pool_size = 9\n").settings.database.max_pool_size == 9


def test_quotas_below_zero_are_no_limit(read: Read) -> None:
    limits = read("[DEFAULT]\nimage_tag_quota = -5\nimage_member_quota = 0\n").settings.limits
    assert (limits.image_tag_quota, limits.image_member_quota) == (-1, 0)


def test_the_page_is_no_larger_than_the_largest(read: Read) -> None:
    limits = read("[DEFAULT]\nlimit_param_default = 50\napi_limit_max = 20\n").settings.limits
    assert (limits.limit_param_default, limits.api_limit_max) == (20, 20)


def test_an_address_is_noted_when_it_is_not_set(read: Read) -> None:
    assert told(read("[DEFAULT]\ndebug = true\n"), "[DEFAULT] bind_host", "warning")
    assert not told(read("[DEFAULT]\nbind_host = 127.0.0.1\n"), "[DEFAULT] bind_host")


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ("", "0.0.0.0"),
        ("[DEFAULT]\nbind_host = 127.0.0.1\n", "127.0.0.1"),
        ("[xloud]\nauth = none\n[paste_deploy]\nflavor =\n", "127.0.0.1"),
        ("[xloud]\nauth = http_basic\n[paste_deploy]\nflavor =\n", "127.0.0.1"),
    ],
)
def test_every_address_where_keystone_tells_who_calls(read: Read, more: str, address: str) -> None:
    keystone = (
        "[paste_deploy]\nflavor = keystone\n[keystone_authtoken]\nauth_url = http://10.0.1.10:5000\n"
        "auth_type = password\nusername = glance\npassword = p\nproject_name = service\n"
        "user_domain_name = Default\nproject_domain_name = Default\n"
    )
    assert read(keystone, more, open_door=False).settings.server.bind_host == address


def test_strangers_are_not_let_in_from_every_address_unasked(read: Read) -> None:
    keystone = "[keystone_authtoken]\nauth_url = http://10.0.1.10:5000\n[DEFAULT]\nallow_anonymous_access = true\n"
    refusals = [one.about for one in read(keystone, open_door=False).refusals]
    assert "[DEFAULT] allow_anonymous_access" in refusals


def test_workers(read: Read) -> None:
    assert read("[DEFAULT]\nworkers = 0\n").settings.server.workers == 1
    assert read("[DEFAULT]\nworkers = 5\n").settings.server.workers == 5
    assert 1 <= read("[DEFAULT]\n").settings.server.workers <= 8


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("[DEFAULT]\nhashing_algorithm = sha3-9", "[DEFAULT] hashing_algorithm"),
        ("[DEFAULT]\nhashing_algorithm = shake_128", "[DEFAULT] hashing_algorithm"),
        ("[database]\nconnection = oracle://db/glance", "[database] connection"),
        ("[database]\nconnection = glance", "[database] connection"),
    ],
)
def test_values_that_mean_nothing_here(read: Read, line: str, option: str) -> None:
    assert told(read(line), option, "error")


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("[DEFAULT]\npublic_endpoint = images.example.org", "[DEFAULT] public_endpoint"),
        ("[healthcheck]\npath = health", "[healthcheck] path"),
        ("[DEFAULT]\nenabled_import_methods = glance-direct, tape", "[DEFAULT] enabled_import_methods"),
        ("[oslo_messaging_notifications]\ndriver = routing", "[oslo_messaging_notifications] driver"),
        ("[DEFAULT]\nhttp_retries = -1", "[DEFAULT] http_retries"),
        ("[database]\nmax_pool_size = -1", "[database] max_pool_size"),
        ("[oslo_middleware]\nmax_request_body_size = 12.5", "[oslo_middleware] max_request_body_size"),
    ],
)
def test_what_glance_starts_with_is_told_and_something_near_counts(read: Read, line: str, option: str) -> None:
    loaded = read(line)
    assert told(loaded, option, "warning")
    assert not loaded.refusals
    settings = loaded.settings
    assert settings.server.public_endpoint is None
    assert settings.health.path == "/healthcheck"
    assert "tape" not in settings.imports.enabled_import_methods
    assert settings.notifications.drivers == ()
    assert settings.server.max_request_body_size >= 1024
    assert settings.database.max_pool_size >= 0
    assert settings.exposure.http_retries == (0 if "http_retries" in line else 3)


def test_without_a_database_the_embedded_one_is_used_and_told(read: Read) -> None:
    loaded = read("[xloud]\nstate_dir = /srv/x\n")
    assert loaded.settings.database.connection == "sqlite:////srv/x/xloud-image.sqlite"
    assert told(loaded, "[database] connection", "warning")


def test_parameters_of_the_connection(read: Read) -> None:
    text = "[database]\nconnection = mysql://u:p@h/d{}\nconnection_parameters = ssl_ca=/ca.pem\n"
    assert read(text.format("")).settings.database.connection == "mysql://u:p@h/d?ssl_ca=/ca.pem"
    assert read(text.format("?a=b")).settings.database.connection == "mysql://u:p@h/d?a=b&ssl_ca=/ca.pem"

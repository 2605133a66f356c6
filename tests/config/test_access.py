"""Who is let in: by which option, and what is refused because it would leave the service open."""

from pathlib import Path

import pytest

from tests.config.conftest import Read, told
from xloud_image.config.access import is_loopback

TOKEN = """
[keystone_authtoken]
auth_url = http://keystone:5000
username = glance
password = hunter2
project_name = service
user_domain_name = Default
project_domain_name = Default
"""
FLAVOR = "[paste_deploy]\nflavor = {}\n"
ANYWHERE = "[DEFAULT]\nbind_host = 0.0.0.0\n"


@pytest.mark.parametrize(
    ("text", "method"),
    [
        (FLAVOR.format("keystone") + TOKEN, "keystone"),
        (FLAVOR.format("keystone+cachemanagement") + TOKEN, "keystone"),
        (FLAVOR.format(" keystone + caching ") + TOKEN, "keystone"),
        (TOKEN, "keystone"),
        (FLAVOR.format("caching") + TOKEN, "keystone"),
        ("[xloud]\nauth = keystone\n" + TOKEN, "keystone"),
        ("[xloud]\nauth = none\n" + TOKEN, "none"),
        ("[xloud]\nauth = none\n", "none"),
    ],
)
def test_the_way_in(read: Read, text: str, method: str) -> None:
    loaded = read(text, open_door=False)
    assert not loaded.refusals
    assert loaded.settings.auth.method == method
    assert (loaded.settings.auth.keystone is not None) == (method == "keystone")


@pytest.mark.parametrize("text", ["", FLAVOR.format(""), FLAVOR.format("caching"), "[DEFAULT]\ndebug = true\n"])
def test_nothing_says_who_is_let_in(read: Read, text: str) -> None:
    (sentence,) = told(read(text, open_door=False), "[paste_deploy] flavor", "error")
    assert "set flavor = keystone" in sentence
    assert "[xloud] auth" in sentence


def test_keystone_by_its_section_alone_is_told(read: Read) -> None:
    assert told(read(TOKEN, open_door=False), "[paste_deploy] flavor", "warning")


def test_another_flavor_is_refused(read: Read) -> None:
    loaded = read(FLAVOR.format("keystone+audit") + TOKEN, open_door=False)
    (sentence,) = told(loaded, "[paste_deploy] flavor", "error")
    assert sentence.startswith("'audit' is no way")


def test_the_cache_is_on_with_a_directory_and_a_flavor_that_has_it(read: Read) -> None:
    place = "[DEFAULT]\nimage_cache_dir = /x/\n"
    without = read(FLAVOR.format("keystone+caching") + TOKEN, open_door=False)
    assert "image_cache_dir would switch on" in told(without, "[paste_deploy] flavor", "warning")[0]
    assert without.settings.cache.image_cache_dir is None
    other = read(FLAVOR.format("keystone") + TOKEN, place, open_door=False)
    assert "has no effect" in told(other, "[DEFAULT] image_cache_dir", "warning")[0]
    assert other.settings.cache.image_cache_dir is None
    for text in (FLAVOR.format("keystone+cachemanagement") + TOKEN, FLAVOR.format("keystone+caching") + TOKEN):
        loaded = read(text, place, open_door=False)
        assert loaded.settings.cache.image_cache_dir == "/x"
        assert not told(loaded, "[paste_deploy] flavor", "warning")
    assert read(place).settings.cache.image_cache_dir == "/x"  # no flavor: [xloud] auth


def test_a_cache_in_the_place_of_a_store_is_refused(read: Read) -> None:
    text = "[DEFAULT]\nenabled_backends = a:file\nimage_cache_dir = {}\n[a]\nfilesystem_store_datadir = /data/a\n"
    for place in ("/data/a", "/data/a/cache", "/data"):
        assert told(read(text.format(place)), "[DEFAULT] image_cache_dir", "error"), place
    assert not told(read(text.format("/data/ab")), "[DEFAULT] image_cache_dir", "error")
    loaded = read(text.format("cache"))
    assert not told(loaded, "[DEFAULT] image_cache_dir", "error")
    assert told(loaded, "[DEFAULT] image_cache_dir", "warning")
    assert loaded.settings.cache.image_cache_dir == str(Path("cache").absolute())


def test_two_answers_are_told(read: Read) -> None:
    loaded = read("[xloud]\nauth = http_basic\n" + FLAVOR.format("keystone"), open_door=False)
    assert told(loaded, "[xloud] auth", "warning") == ["counts, not flavor = keystone"]


def test_no_login_beside_a_flavor_that_asks_for_one_is_refused(read: Read) -> None:
    loaded = read("[xloud]\nauth = none\n" + FLAVOR.format("keystone") + TOKEN, open_door=False)
    (sentence,) = told(loaded, "[xloud] auth", "error")
    assert "lets everybody in" in sentence


@pytest.mark.parametrize(
    ("host", "yes"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("controller", False),
        ("localhost.example.org", False),
        ("", False),
    ],
)
def test_loopback(host: str, yes: bool) -> None:
    assert is_loopback(host) is yes


def test_no_login_stays_on_loopback(read: Read) -> None:
    assert "loopback" in told(read(ANYWHERE), "[xloud] auth", "error")[0]


def test_anonymous_access_off_loopback_must_be_confirmed(read: Read) -> None:
    text = ANYWHERE + "allow_anonymous_access = true\n" + TOKEN
    assert told(read(text, open_door=False), "[DEFAULT] allow_anonymous_access", "error")
    confirmed = read(text, "[xloud]\nanonymous_off_loopback = true\n", open_door=False)
    assert not confirmed.refusals
    assert confirmed.settings.auth.allow_anonymous_access
    at_home = read("[DEFAULT]\nallow_anonymous_access = true\nbind_host = 127.0.0.1\n" + TOKEN, open_door=False)
    assert not at_home.refusals


def test_options_of_keystone(read: Read) -> None:
    more = """\
        [keystone_authtoken]
        service_type = image
        auth_uri = http://public:5000
        auth_plugin = v3password
        cafile = /ca.pem
        region_name = RegionOne
        memcache_security_strategy = encrypt
        memcache_secret_key = s3cret
        memcache_servers = a:11211,b:11211
        service_token_roles = service, admin
        service_token_roles_required = no
        token_cache_time = 60
        interface = public
        insecure = on
    """
    keystone = read(TOKEN, more, open_door=False).require().auth.keystone
    assert keystone is not None
    assert keystone.auth_type == "v3password"
    assert keystone.auth == {
        "auth_url": "http://keystone:5000",
        "username": "glance",
        "password": "hunter2",
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    assert keystone.www_authenticate_uri == "http://public:5000"
    assert keystone.memcached_servers == ("a:11211", "b:11211")
    assert (keystone.memcache_security_strategy, keystone.memcache_secret_key) == ("ENCRYPT", "s3cret")
    assert keystone.service_token_roles == ("service", "admin")
    assert not keystone.service_token_roles_required
    assert (keystone.token_cache_time, keystone.interface, keystone.insecure) == (60, "public", True)
    assert "hunter2" not in repr(keystone)
    assert "s3cret" not in repr(keystone)


def test_service_token_roles_are_required_unless_told_otherwise(read: Read) -> None:
    keystone = read(TOKEN, open_door=False).settings.auth.keystone
    assert keystone is not None
    assert keystone.service_token_roles_required


def test_the_login_of_the_service_in_another_section(read: Read) -> None:
    text = TOKEN.replace("[keystone_authtoken]", "[keystone_authtoken]\nauth_section = account\n[account]")
    loaded = read(text, open_door=False)
    assert not loaded.refusals
    keystone = loaded.settings.auth.keystone
    assert keystone is not None
    assert keystone.auth["username"] == "glance"
    assert not told(loaded, "[account]")


@pytest.mark.parametrize("name", ["auth_url", "username", "password", "project_name"])
def test_what_is_missing_for_keystone(read: Read, name: str) -> None:
    text = "\n".join(line for line in TOKEN.splitlines() if not line.startswith(name))
    loaded = read("[xloud]\nauth = keystone\n" + text, open_door=False)
    assert told(loaded, f"[keystone_authtoken] {name}", "error")


def test_an_application_credential_is_enough(read: Read) -> None:
    text = """\
        [paste_deploy]
        flavor = keystone
        [keystone_authtoken]
        auth_url = http://keystone:5000
        auth_type = v3applicationcredential
        application_credential_id = abc
        application_credential_secret = hunter2
    """
    assert not read(text, open_door=False).refusals


def test_a_strategy_without_a_key_is_refused(read: Read) -> None:
    loaded = read(TOKEN + "memcache_security_strategy = MAC\n", open_door=False)
    assert told(loaded, "[keystone_authtoken] memcache_secret_key", "error")
    assert not read(TOKEN + "memcache_security_strategy = None\n", open_door=False).refusals


def test_http_basic_needs_both_files(read: Read, tmp_path: Path) -> None:
    users, projects = tmp_path / "htpasswd", tmp_path / "projects"
    basic = "[xloud]\nauth = http_basic\n"
    assert len(read(basic, open_door=False).refusals) == 2
    text = f"{basic}http_basic_user_file = {users}\nhttp_basic_projects_file = {projects}\n"
    (first, second) = read(text, open_door=False).refusals
    assert "htpasswd cannot be read: No such file" in first.sentence
    assert "projects cannot be read: No such file" in second.sentence
    users.touch()
    projects.touch()
    auth = read(text, open_door=False).require().auth
    assert (auth.http_basic_user_file, auth.http_basic_projects_file) == (str(users), str(projects))
    theirs = f"{basic}http_basic_projects_file = {projects}\n[oslo_middleware]\nhttp_basic_auth_user_file = {users}\n"
    assert read(theirs, open_door=False).require().auth.http_basic_user_file == str(users)


def test_the_policy_file_beside_the_configuration(read: Read, tmp_path: Path) -> None:
    assert read("").settings.policy.policy_file is None
    (tmp_path / "policy.yaml").touch()
    (tmp_path / "policy.d").mkdir()
    policy = read("").settings.policy
    assert policy.policy_file == str(tmp_path / "policy.yaml")
    assert policy.policy_dirs == (str(tmp_path / "policy.d"),)
    assert policy.enforce_scope
    assert policy.enforce_new_defaults


def test_a_policy_file_that_is_not_there_is_told_and_the_defaults_count(read: Read, tmp_path: Path) -> None:
    loaded = read("[oslo_policy]\npolicy_file = other.yaml\n")
    assert not loaded.refusals
    (sentence,) = told(loaded, "[oslo_policy] policy_file", "warning")
    assert sentence == f"{tmp_path / 'other.yaml'} does not exist: the default rules are in force"
    assert loaded.settings.policy.policy_file is None


def test_a_policy_file_that_cannot_be_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "policy.d").mkdir()
    loaded = read(f"[oslo_policy]\npolicy_file = {tmp_path / 'policy.d'}\n")
    assert "cannot be read: Is a directory" in told(loaded, "[oslo_policy] policy_file", "error")[0]


def test_cors_and_health(read: Read) -> None:
    text = """\
        [cors]
        allowed_origin = https://a.example.org,https://b.example.org
        max_age = 5
        [healthcheck]
        path = /alive
        disable_by_file_path = /run/off
    """
    settings = read(text).settings
    assert settings.cors.allowed_origin == ("https://a.example.org", "https://b.example.org")
    assert "X-Auth-Token" in settings.cors.allow_headers
    assert settings.cors.max_age == 5
    assert (settings.health.path, settings.health.disable_by_file_path) == ("/alive", "/run/off")
    assert read("").settings.cors.allowed_origin == ()


@pytest.mark.parametrize("option", ["memcache_tls_enabled", "memcache_sasl_enabled"])
def test_memcached_that_could_not_be_spoken_to_as_written_is_not_used(read: Read, option: str) -> None:
    """Tokens are never sent in the clear where TLS was asked for."""
    text = FLAVOR.format("keystone") + TOKEN + f"memcached_servers = h:11211\n{option} = true\n"
    loaded = read(text, open_door=False)
    assert loaded.require().auth.keystone.memcached_servers == ()  # type: ignore[union-attr]
    (sentence,) = told(loaded, f"[keystone_authtoken] {option}", "warning")
    assert "memcached is not used" in sentence

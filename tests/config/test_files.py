"""Which files count, in which order, and what is said of files that cannot be read."""

import os
from pathlib import Path

import pytest

from xloud_image.config import files, loader
from xloud_image.errors import ConfigError


def _write(path: Path, text: str = "[DEFAULT]\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _port(path: Path, number: int) -> Path:
    return _write(path, f"[DEFAULT]\nbind_port = {number}\n")


STANDARD = (
    "glance-image-import.conf",
    "glance-api.conf",
    "glance.conf.d/10-a.conf",
    "glance.conf.d/20-b.conf",
    "glance-api.conf.d/05-c.conf",
)


def test_the_standard_order(tmp_path: Path) -> None:
    for name in reversed(STANDARD):
        _write(tmp_path / name)
    _write(tmp_path / "glance-cache.conf")
    _write(tmp_path / "glance.conf.d/readme.txt")
    found = files.find((), (), {"OS_GLANCE_CONFIG_DIR": str(tmp_path)})
    assert found == [tmp_path / name for name in STANDARD]


@pytest.mark.parametrize("count", range(1, len(STANDARD) + 1))
def test_later_files_win(tmp_path: Path, count: int) -> None:
    for number, name in enumerate(STANDARD[:count], 1):
        _port(tmp_path / name, 9300 + number)
    loaded = loader.load(env={"OS_GLANCE_CONFIG_DIR": str(tmp_path)})
    assert loaded.settings.server.bind_port == 9300 + count


def test_given_files_come_before_given_directories(tmp_path: Path) -> None:
    one, two = _port(tmp_path / "one.conf", 1), _port(tmp_path / "two.conf", 2)
    three = _port(tmp_path / "d/b.conf", 3)
    four = _port(tmp_path / "d/a.conf", 4)
    assert files.find([two, one], [tmp_path / "d"], {}) == [two, one, four, three]
    assert loader.load([two, one], [tmp_path / "d"], env={}).settings.server.bind_port == 3


def test_a_given_directory_like_the_standard_one_is_read_like_it(tmp_path: Path) -> None:
    for name in (*STANDARD, "glance-cache.conf"):
        _write(tmp_path / name)
    assert files.find((), [tmp_path], {}) == [tmp_path / name for name in STANDARD]


def test_the_environment_changes_nothing_in_a_file(tmp_path: Path) -> None:
    file = _port(tmp_path / "a.conf", 9301)
    env = {"PORT": "1", "HOST": "0.0.0.0", "XLOUD_IMAGE_STATE": "/nowhere", "OS_DEFAULT__BIND_PORT": "2"}
    server = loader.load([file], env=env).settings.server
    assert (server.bind_port, server.bind_host, server.state_dir) == (9301, "127.0.0.1", "/var/lib/xloud-image")


def test_options_in_the_environment_of_the_process_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_DEFAULT__BIND_PORT", "2")
    assert loader.load([_write(tmp_path / "a.conf")], env={}).settings.server.bind_port == 9292


def test_the_embedded_default(tmp_path: Path) -> None:
    env = {"XLOUD_IMAGE_STATE": str(tmp_path / "s"), "HOST": "127.0.0.2", "PORT": "9555"}
    loaded = loader.load(env=env)
    settings = loaded.require()
    assert loaded.embedded
    assert loaded.files == ()
    assert (settings.server.bind_host, settings.server.bind_port) == ("127.0.0.2", 9555)
    assert 1 <= settings.server.workers <= 2
    assert settings.database.connection == f"sqlite:///{tmp_path}/s/xloud-image.sqlite"
    assert settings.auth.method == "none"
    store, staging = settings.stores
    assert (staging.id, staging.reserved) == ("os_glance_staging_store", True)
    assert staging.options["filesystem_store_datadir"] == f"{tmp_path}/s/staging"
    assert (store.id, store.type, settings.default_store, settings.multi_store) == ("file", "file", "file", True)
    assert loaded.findings == ()
    assert store.options["filesystem_store_datadir"] == f"{tmp_path}/s/images"
    assert not (tmp_path / "s").exists(), "reading makes nothing"


def test_the_embedded_default_stays_on_loopback(tmp_path: Path) -> None:
    loaded = loader.load(env={"XLOUD_IMAGE_STATE": str(tmp_path), "HOST": "0.0.0.0"})
    with pytest.raises(ConfigError, match=r"set HOST to 127\.0\.0\.1"):
        loaded.require()


@pytest.mark.parametrize("port", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none(port: str) -> None:
    with pytest.raises(ConfigError, match="PORT is"):
        loader.load(embedded=True, env={"PORT": port})


def test_a_second_reading_sees_what_changed(tmp_path: Path) -> None:
    file = _port(tmp_path / "a.conf", 9301)
    loaded = loader.load([file], env={})
    _port(file, 9302)
    assert loaded.again().settings.server.bind_port == 9302


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"files": ["none.conf"]}, "none.conf does not exist"),
        ({"files": ["."]}, "is not a file"),
        ({"dirs": ["nowhere"]}, "nowhere does not exist"),
        ({"dirs": ["empty"]}, "no .*conf file stands in .*empty"),
        ({"env": "empty"}, "OS_GLANCE_CONFIG_DIR is .*empty, but no glance-api.conf"),
    ],
)
def test_what_is_named_must_be_there(tmp_path: Path, given: dict[str, object], sentence: str) -> None:
    (tmp_path / "empty").mkdir()
    env = {"OS_GLANCE_CONFIG_DIR": str(tmp_path / str(given["env"]))} if "env" in given else {}
    paths = [[tmp_path / name for name in given.get(key, ())] for key in ("files", "dirs")]  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=sentence):
        loader.load(*paths, env=env)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"bind_port = 1\n", ":1: an option stands before the first"),
        (b"[DEFAULT]\nbind_port\n", ":2: No ':' or '=' found"),
        (b"[DEFAULT\nbind_port = 1\n", ":1: Invalid section"),
        (b"[]\n", ":1: Empty section name"),
        (b"[DEFAULT]\n= hunter2\n", ":2: Key cannot be empty"),
        (b"[DEFAULT]\n\n   hunter2\n", ":3: Unexpected continuation"),
        (b"[DEFAULT]\npassword = \xff\xfe\n", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_ini_file(tmp_path: Path, text: bytes, sentence: str) -> None:
    file = tmp_path / "broken.conf"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        loader.load([file], env={})
    assert str(file) in caught.value.message
    assert "hunter2" not in caught.value.message, "a line may hold a secret"
    assert "\n" not in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    _write(tmp_path / "glance-api.conf")
    (tmp_path / "glance-api.conf.d" / "dir.conf").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"dir\.conf: cannot be read: Is a directory"):
        loader.load(env={"OS_GLANCE_CONFIG_DIR": str(tmp_path)})


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file can only be made by root")
def test_a_file_of_another_user(tmp_path: Path) -> None:
    file = _write(tmp_path / "glance-api.conf")
    file.chmod(0o600)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
            loader.load([file], env={})
    finally:
        os.seteuid(0)

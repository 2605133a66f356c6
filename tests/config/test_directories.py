"""What is written where a directory of the file store belongs."""

import pytest

from tests.config.conftest import Read, told


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("filesystem_store_datadir = file:///srv/images", "/srv/images"),
        ("filesystem_store_datadir = file:/srv/images", "/srv/images"),
        ("filesystem_store_datadirs = filesystem:///srv/images:100", "/srv/images"),
    ],
)
def test_a_url_is_refused_with_the_path_to_write(read: Read, line: str, path: str) -> None:
    loaded = read(f"[DEFAULT]\nenabled_backends = disk:file\n[disk]\n{line}\n")
    (text,) = told(loaded, f"[disk] {line.partition(' ')[0]}", "error")
    assert path in text


@pytest.mark.parametrize("line", ["filesystem_store_datadir = images", "filesystem_store_datadirs = images:100"])
def test_a_relative_path_is_said(read: Read, line: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    loaded = read(f"[DEFAULT]\nenabled_backends = disk:file\n[disk]\n{line}\n")
    (text,) = told(loaded, f"[disk] {line.partition(' ')[0]}", "warning")
    assert f"{tmp_path}/images" in text
    assert not loaded.refusals


def test_a_path_is_no_url(read: Read) -> None:
    for path in ("/srv/images", "/srv/a:b", "/file:/x"):
        loaded = read(f"[DEFAULT]\nenabled_backends = disk:file\n[disk]\nfilesystem_store_datadir = {path}\n")
        assert not loaded.refusals
        assert not told(loaded, "[disk] filesystem_store_datadir")

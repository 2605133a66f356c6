"""The configuration as text: complete, loadable, without secrets."""

from pathlib import Path

import pytest

from tests.config.conftest import Read
from tests.config.test_kolla import RENDERED, SECRETS
from tests.config.test_stores import TWO
from xloud_image.config import check, loader
from xloud_image.config.masking import mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql+pymysql://glance:secret@db/glance", "mysql+pymysql://glance:***@db/glance"),
        ("mysql://glance:p@ss/w0rd@db/glance", "mysql://glance:***@db/glance"),
        ("redis://:secret@host", "redis://:***@host"),
        ("rabbit://a:x@h1:5672,b:y@h2:5672//", "rabbit://a:***@h2:5672//"),
        ("postgresql://h/d?user=u&password=secret&sslmode=require", "postgresql://h/d?user=u&password=***&sslmode=require"),
        ("at http://u:secret@h/ it failed", "at http://u:***@h/ it failed"),
        ("sqlite:////srv/x.sqlite", "sqlite:////srv/x.sqlite"),
        ("http://[::1]:9292/v2", "http://[::1]:9292/v2"),
        ("mail to a:b@c", "mail to a:b@c"),
        ("HTTP://u:secret@h/", "HTTP://u:***@h/"),
        ("/v2/images?Token=secret&limit=1", "/v2/images?Token=***&limit=1"),
        ("/p?a=1&X-Amz-Signature=secret", "/p?a=1&X-Amz-Signature=***"),
        ("/p?temp_url_sig=secret%26more&b=c", "/p?temp_url_sig=***&b=c"),
        ("/p?tok%65n=secret", "/p?tok%65n=***"),
        ("/p?next=http%3A%2F%2Fh%3Ftoken%3Dsecret%26b%3Dc d", "/p?next=http%3A%2F%2Fh%3Ftoken%3D*** d"),
        ("http%3A%2F%2Fu%3Asecret%40h", "http%3A%2F%2Fu%3A***%40h"),
        ("http%253A%252F%252Fu%253Asecret%2540h", "http%253A%252F%252Fu%253A***%2540h"),
        ("/" + "a" * 20_000 + "?token=secret", "/" + "a" * 20_000 + "?token=***"),
        ("http://u:" + "secret" * 20_000 + "@h", "http://u:***@h"),
        ("?" + "n" * 200 + "token" + "n" * 200 + "=secret", "?" + "n" * 200 + "token" + "n" * 200 + "=***"),
    ],
)  # fmt: skip
def test_masking(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_the_text_is_a_configuration_with_the_same_meaning(read: Read, tmp_path: Path) -> None:
    more = """\
        [DEFAULT]
        bind_host = ::1
        public_endpoint = http://images.example.org/a$$b
        image_tag_quota = -1
        hashing_algorithm = sha256
        allow_anonymous_access = yes
        [database]
        connection = sqlite:////srv/glance.sqlite
        [image_format]
        disk_formats = raw, qcow2
        [cors]
        allowed_origin = https://a, https://b
        [os_glance_staging_store]
        filesystem_store_datadir = /srv/staging
        [fast]
        filesystem_store_datadirs = /srv/f1:5
        filesystem_store_datadirs = /srv/f2:7
        filesystem_store_datadir =
    """
    first = read(TWO, more)
    assert not first.refusals
    text = check.as_ini(first.resolved)
    (tmp_path / "again.conf").write_text(text)
    second = loader.load([tmp_path / "again.conf"], env={})
    assert second.settings == first.settings
    assert second.findings == ()


def test_no_secret_is_in_the_text(read: Read) -> None:
    loaded = read(RENDERED, open_door=False)
    text = check.as_ini(loaded.resolved)
    assert not [secret for secret in SECRETS if secret in text]
    assert "connection = mysql+pymysql://glance:***@10.0.1.10:3306/glance" in text
    assert "\npassword = ***" in text
    assert "\nmemcache_secret_key = ***" in text
    assert not [
        secret for secret in SECRETS if secret in str(check.as_json(loaded.resolved, loaded.findings, loaded.files))
    ]


def test_the_json(read: Read) -> None:
    loaded = read(RENDERED, "[keystone_authtoken]\nenforce_token_bind = kerberos\n", open_door=False)
    shown = check.as_json(loaded.resolved, loaded.findings, loaded.files)
    assert shown["ok"] is False
    assert shown["configuration"]["DEFAULT"]["bind_port"] == "9292"
    assert shown["findings"][0] == {
        "severity": "error",
        "class": "unsafe",
        "about": "[keystone_authtoken] enforce_token_bind",
        "sentence": "binding of tokens is not checked by this release",
        "file": str(loaded.files[-1]),
        "line": 2,
    }

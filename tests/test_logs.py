"""Lines of the log: whole, without secrets, in both forms, in a file that may be rotated."""

import dataclasses
import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from xloud_image import logs
from xloud_image.config import loader
from xloud_image.config.settings import Settings
from xloud_image.errors import ConfigError


@pytest.fixture
def settings(own_logging: None) -> Settings:
    """Settings to log by."""
    return loader.load(embedded=True, env={}).settings


def lines(settings: Settings, **changes: Any) -> tuple[io.StringIO, structlog.stdlib.BoundLogger]:
    stream = io.StringIO()
    logs.setup(dataclasses.replace(settings, **changes), stream)
    return stream, structlog.get_logger("xloud_image.test")


def test_key_and_value(settings: Settings) -> None:
    stream, log = lines(settings)
    log.info("image stored", image="abc", size=5, sparse=True, name="two words")
    (line,) = stream.getvalue().splitlines()
    timestamp, rest = line.split(" ", 1)
    assert timestamp.startswith("timestamp=2")
    assert rest == (
        'level=info logger=xloud_image.test event="image stored" image=abc size=5 sparse=true name="two words"'
    )


def test_json(settings: Settings) -> None:
    stream, log = lines(settings, log_json=True)
    log.warning("image stored", image="abc", size=5, path=Path("/x"))
    event = json.loads(stream.getvalue())
    assert (event["event"], event["level"], event["image"], event["size"]) == ("image stored", "warning", "abc", 5)
    assert event["path"].find("/x") >= 0


def test_libraries_log_the_same_way(settings: Settings) -> None:
    stream, _ = lines(settings)
    logging.getLogger("some.library").warning("%s went away", "db")
    assert 'level=warning logger=some.library event="db went away"' in stream.getvalue()


@pytest.mark.parametrize("json_form", [False, True])
def test_no_secret_and_no_second_line(settings: Settings, json_form: bool) -> None:
    stream, log = lines(settings, log_json=json_form)
    try:
        raise ValueError("cannot reach mysql://glance:hunter2@db/glance")
    except ValueError:
        log.exception(
            "login\nlevel=info event=forged",
            password="hunter2",
            x_auth_token="hunter2",
            memcache_secret_key=b"hunter2",
            url="http://u:hunter2@host/?a=b",
            name="a\nb\x1b[2J",
        )
    logging.getLogger("some.library").error("retry mysql://glance:%s@db", "hunter2")
    text = stream.getvalue()
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert "ValueError" in text


def test_any_key_can_be_logged(settings: Settings) -> None:
    stream, log = lines(settings)
    log.info("odd", **{"a key": 1, 'quo"te': 2})
    assert "a_key=1 quo_te=2" in stream.getvalue()


def test_debug_is_for_our_own(settings: Settings) -> None:
    stream, log = lines(settings, debug=True)
    log.debug("ours")
    logging.getLogger("some.library").debug("theirs")
    logging.getLogger("sqlalchemy.engine").info("SELECT")
    assert [line.rpartition("event=")[2] for line in stream.getvalue().splitlines()] == ["ours"]
    stream, log = lines(settings, debug=False)
    log.debug("ours")
    assert stream.getvalue() == ""


def test_levels_of_the_configuration(settings: Settings) -> None:
    stream, _ = lines(settings, default_log_levels=("some.library=ERROR", "sqlalchemy=info"))
    logging.getLogger("some.library").warning("hidden")
    logging.getLogger("sqlalchemy").info("shown")
    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()
    with pytest.raises(ConfigError, match="'x=LOUD' is no logger=LEVEL pair"):
        lines(settings, default_log_levels=("x=LOUD",))


def test_a_file_that_is_rotated(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "service.log"
    _, log = lines(settings, log_file=str(file))
    log.info("one")
    file.rename(tmp_path / "service.log.1")
    log.info("two")
    assert "event=one" in (tmp_path / "service.log.1").read_text()
    assert "event=two" in file.read_text()
    assert "event=one" not in file.read_text()


def test_a_file_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log_file: .*missing/x\.log cannot be written: No such file"):
        lines(settings, log_file=str(tmp_path / "missing" / "x.log"))

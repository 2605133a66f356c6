"""How the service logs: one line an event, key=value or JSON, to standard error or a file. Events are for callers.

Every logger ends here, also those of libraries. No line holds a secret: values under telling names are masked, and
passwords in URLs wherever they stand. A value cannot begin a new line.
"""

from __future__ import annotations

import errno
import functools
import logging
import logging.handlers
import os
import re
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import structlog

from xloud_image.config.masking import MASK, mask
from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from xloud_image.config.settings import Settings

_TELLING: Final = ("password", "passwd", "secret", "token", "authorization", "credential")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # they would act on the reader's terminal
# Libraries that say too much for an operator's log.
_QUIETER: Final = {
    "alembic": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "aiosqlite": logging.WARNING,
    "asyncio": logging.WARNING,
    "keystoneauth": logging.WARNING,
    "oslo_policy": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "urllib3": logging.WARNING,
}


def setup(settings: Settings, stream: IO[str] | None = None) -> None:
    """Send all logging to `log_file`, or to `stream` (standard error). Call it again after the settings changed.

    Raises ConfigError when the log file cannot be opened or a level is none.
    """
    handler = _handler(settings.log_file, stream)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _without_secrets,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if settings.log_json
        else structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "logger", "event"], drop_missing=True, bool_as_flag=False
        )
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _with_plain_keys, renderer],
        )
    )
    root = logging.getLogger()
    for old in [*root.handlers]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name, level in {**_QUIETER, "xloud_image": logging.DEBUG if settings.debug else logging.INFO}.items():
        logging.getLogger(name).setLevel(level)
    for pair in settings.default_log_levels:
        name, level = _level(pair)
        logging.getLogger(name).setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def check(settings: Settings, *, files: bool = True) -> None:
    """Raises ConfigError as `setup` would, and changes nothing. `files` False: the file lies on another machine."""
    for pair in settings.default_log_levels:
        _level(pair)
    if not files or settings.log_file is None:
        return
    path = Path(settings.log_file)
    try:
        if path.exists():
            with path.open("ab"):
                return
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(f"[DEFAULT] log_file: {path} cannot be written: {error.strerror}") from None


def _handler(file: str | None, stream: IO[str] | None) -> logging.Handler:
    if file is None:
        return logging.StreamHandler(stream or sys.stderr)
    try:
        # opens the file anew when logrotate has moved it
        return logging.handlers.WatchedFileHandler(file, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"[DEFAULT] log_file: {file} cannot be written: {error.strerror}") from None


def _level(pair: str) -> tuple[str, int]:
    name, equals, word = pair.partition("=")
    level = logging.getLevelNamesMapping().get(word.strip().upper())
    if not equals or level is None:
        raise ConfigError(f"[DEFAULT] default_log_levels: '{pair}' is no logger=LEVEL pair")
    return name.strip(), level


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if key.startswith("_"):
            continue
        if isinstance(value, str):
            text = MASK if _is_telling(key) else mask(value)
            event[key] = text if text.isprintable() else _CONTROL.sub(_escaped, text)
        elif isinstance(value, bytes) and _is_telling(key):
            event[key] = MASK
    return event


def _escaped(found: re.Match[str]) -> str:
    return f"\\x{ord(found.group()):02x}"


@functools.lru_cache(256)
def _is_telling(key: str) -> bool:
    return any(word in key.lower() for word in _TELLING)


def _with_plain_keys(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keys that the key=value form allows, whatever a caller took as a key."""
    return {_plain(str(key)): value for key, value in event.items()}


@functools.lru_cache(256)
def _plain(key: str) -> str:
    return "".join(c if c.isalnum() or c in "_.-" else "_" for c in key)

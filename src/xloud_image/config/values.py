"""Typed values of options out of the files, one instance for each reading. Never oslo.config's global object.

A value that cannot be read becomes an error, and the default stands in, so that one run tells everything.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from oslo_config import cfg

from xloud_image.config import files
from xloud_image.config.findings import Finding, Findings, Kind, Origin, label
from xloud_image.config.options.kinds import NearestOpt, stated
from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from xloud_image.config.findings import Severity

# Old names of options are told by us; the library would print them once more.
logging.getLogger("oslo_config.cfg").setLevel(logging.ERROR)


T = TypeVar("T")
_SHOWN = 200  # characters of a value that cannot be read


class Values:
    """The assignments of some files (none: all defaults), and their meaning for the options registered so far."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        """Read the files. ConfigError: some of them cannot be read or are no ini files; with file, line and reason."""
        self.files = tuple(paths)
        self.found = Findings()
        self.lines = [line for path in paths for line in files.read(path, self.found)]
        if self.found.all:
            raise ConfigError("; ".join(map(str, self.found.all)))
        self._at: dict[tuple[str, str], files.Line] = {line.key: line for line in self.lines}
        self._opts: dict[tuple[str, str], cfg.Opt] = {}
        self._defaults: dict[tuple[str, str], Any] = {}
        self._read: dict[tuple[str, str], Any] = {}
        self._conf = cfg.ConfigOpts()
        # the empty lists matter: without them the library searches the home directory and /etc
        self._conf(
            args=[],
            project="glance",
            prog="xloud-image",
            default_config_files=[str(path) for path in paths],
            default_config_dirs=[],
            use_env=False,
        )

    def refuse(self, text: str, group: str, name: str | None = None, kind: Kind = Kind.INVALID) -> None:
        """What keeps the service from starting."""
        self.tell("error", kind, text, group, name)

    def guess(self, text: str, group: str | None = None, name: str | None = None) -> None:
        """How something was understood that may have been meant otherwise."""
        self.tell("warning", Kind.GUESS, text, group, name)

    def tell(
        self, severity: Severity, kind: Kind, text: str, group: str | None = None, name: str | None = None
    ) -> None:
        """Tell the operator; file and line are found by the option."""
        key = _key(group, name or "") if group else None
        found = (line for line in self.lines if key and line.group == key[0]) if not name else ()
        line = self._at.get(key) if key and name else next(iter(found), None)
        about, origin = label(group, name) if group else "", line.origin if line else Origin()
        self.found.add(Finding(severity, text, about, origin, kind))

    def register(self, group: str, opts: Iterable[cfg.Opt]) -> None:
        """Make options known in a section; again is no error."""
        opts = list(opts)
        self._conf.register_opts(opts, group=None if group == "DEFAULT" else group)
        for opt in opts:
            self._opts[_key(group, opt.dest)] = opt

    def registered(self) -> dict[tuple[str, str], cfg.Opt]:
        """Every option known so far, by section (lower case but DEFAULT) and name."""
        return dict(self._opts)

    def line(self, group: str, name: str) -> files.Line | None:
        """The assignment that counts for a registered option (also by an old name), None when it is not set."""
        names = [_key(group, name)]
        if opt := self._opts.get(names[0]):
            names += [_key(old.group or group, (old.name or name).replace("-", "_")) for old in opt.deprecated_opts]
        found = [self._at[key] for key in names if key in self._at]
        return max(found, key=lambda line: self.files.index(line.origin.file)) if found else None

    def is_set(self, group: str, name: str) -> bool:
        """Whether a file says something about it; an empty value says nothing."""
        line = self.line(group, name)
        return line is not None and line.value.strip() != ""

    def default(self, group: str, name: str, value: Any) -> None:
        """Another default for this reading alone."""
        self._defaults[_key(group, name)] = value

    def beside(self, name: str) -> Path | None:
        """A path as written beside the first configuration file; None when it is relative and there is no file."""
        path = Path(name)
        if path.is_absolute():
            return path
        return self.files[0].parent.absolute() / path if self.files else None

    def get(self, group: str, name: str) -> Any:
        """The typed value with `$name` filled in, or the default; lists also from lines and brackets."""
        key = _key(group, name)
        if key not in self._read:
            self._read[key] = self._value(group, name, self._opts[key])
        return self._read[key]

    def fill(self, part: Callable[..., T], **more: Any) -> T:
        """A class of settings with the values of its options. `more`: fields that are none, or are made of several.

        An empty text is none where the option has no default.
        """
        values: dict[str, Any] = {}
        for option in stated(part):
            value = self.get(option.group, option.opt.dest)
            empty = value == "" and option.opt.default is None
            values[option.opt.dest] = None if empty else tuple(value) if isinstance(value, list) else value
        return part(**{**values, **more})

    def _value(self, group: str, name: str, opt: cfg.Opt) -> Any:
        line = self.line(group, name)
        default = self._defaults.get(_key(group, name), opt.default)
        if line is None or (line.value.strip() == "" and not isinstance(opt, cfg.StrOpt)):
            return default
        shown = "the value" if opt.secret else f"'{_cut(line.value)}'"
        try:
            section = self._conf if group == "DEFAULT" else self._conf[group]
            value = section[name]
        except (cfg.TemplateSubstitutionError, cfg.NoSuchOptError, cfg.NoSuchGroupError):
            text = "refers with $ to something that is no option; write $$ for a dollar sign"
            self.refuse(text, group, name)
            return default
        except (cfg.ConfigFileValueError, ValueError) as error:
            if isinstance(opt, NearestOpt) and (near := opt.nearest(line.value.strip())) is not None:
                self.guess(f"{shown} is not possible here: {near} is taken", group, name)
                return near
            reason = "" if opt.secret else ": " + _cut(str(error).rpartition("is not valid: ")[2])
            self.refuse(f"{shown} is not allowed{reason}", group, name)
            return default
        return _items(value) if isinstance(value, list) else value


def _cut(text: str) -> str:
    """As much of it as a line has room for."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _key(group: str, name: str) -> tuple[str, str]:
    return (group if group == "DEFAULT" else group.lower(), name)


def _items(values: list[Any]) -> list[Any]:
    """A list as people write it: repeated, with commas, on several lines, in brackets."""
    if not all(isinstance(value, str) for value in values):
        return values
    text = "\n".join(values).strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    parts = [part.strip().strip("\"'") for part in re.split(r"[,\n]", text)]
    return [part for part in parts if part]

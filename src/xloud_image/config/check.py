"""What became of every option in the files, and the configuration in force as text. Secrets are masked here.

Each option in a file falls in one class (`findings.Kind`); an unknown one is told with the nearest known name.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from xloud_image.config.findings import Kind, label
from xloud_image.config.masking import MASK, mask
from xloud_image.config.options.kinds import Option
from xloud_image.config.options.table import table
from xloud_image.config.stores import COMMON, GLOBAL
from xloud_image.stores import TYPES

if TYPE_CHECKING:
    from oslo_config import cfg

    from xloud_image.config.findings import Finding, Severity
    from xloud_image.config.settings import Settings
    from xloud_image.config.values import Values

_NAMED: Final = 4  # of the options of one section and reason so many are named in one sentence; more are counted
_SEVERITY: Final[Mapping[Kind, Severity]] = {
    Kind.PENDING: "warning",
    Kind.UNSAFE: "error",
    Kind.GONE: "warning",
    Kind.IGNORED: "note",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Resolved:
    """Section → option → (value as text, masked; whether it is another value than the default)."""

    sections: Mapping[str, Mapping[str, tuple[str, bool]]]


def classify(values: Values) -> None:
    """Tell `values` the class of every option in the files, as far as there is something to say.

    Options of one section about which the same is to be said share one sentence; one that refuses names them all.
    """
    known = values.registered()
    groups = {group for group, _ in known}
    found: dict[tuple[str, Kind, str], list[str]] = {}
    for group, name in dict.fromkeys((line.group, line.name) for line in values.lines):
        option = table().get(group, {}).get(name)
        if option is not None:
            if option.kind is not Kind.HONOURED and _matters(values, group, option):
                found.setdefault((group, option.kind, option.why), []).append(name)
        elif group not in groups:
            values.tell("warning", Kind.UNKNOWN, _near("section", group, groups), group)
        elif not _is_known(values, group, name):
            values.tell("warning", Kind.UNKNOWN, _near("", name, {n for g, n in known if g == group}), group, name)
    for (group, kind, why), names in found.items():
        severity = _SEVERITY[kind]
        if len(names) == 1:
            values.tell(severity, kind, why, group, names[0])
            continue
        shown = names if severity == "error" else names[:_NAMED]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        values.tell(severity, kind, f"{why}: {', '.join(shown)}{more}", group)


def _is_known(values: Values, group: str, name: str) -> bool:
    """Registered under this name, or the old name of something registered; the latter is told."""
    known = values.registered()
    if (group, name) in known:
        return True
    for (new_group, new_name), opt in known.items():
        for old in opt.deprecated_opts:
            if (old.group or new_group, (old.name or new_name).replace("-", "_")) == (group, name):
                values.tell("note", Kind.HONOURED, f"is the old name of {label(new_group, new_name)}", group, name)
                return True
    return False


def _matters(values: Values, group: str, option: Option) -> bool:
    name = option.opt.dest
    return option.kind is Kind.IGNORED or (values.is_set(group, name) and option.concerns(values.get(group, name)))


def _near(what: str, name: str, among: set[str]) -> str:
    near = difflib.get_close_matches(name, sorted(among), 1, 0.7)
    hint = f"; is '{near[0]}' meant?" if near else ""
    return f"{f'unknown {what}'.strip()}, not read{hint}"


def _text(value: Any, *, secret: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item, secret=secret) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}:{_text(item, secret=secret)}" for key, item in value.items())
    text = str(value)
    masked = mask(text)
    return MASK if secret and text and masked == text and "://" not in text else masked


def resolve(values: Values, settings: Settings) -> Resolved:
    """Every honoured option with the value in force; the stores as they were understood."""
    sections: dict[str, dict[str, tuple[str, bool]]] = {}
    for group, options in table().items():
        for name, option in options.items():
            if option.kind is Kind.HONOURED and group != GLOBAL:
                value = values.get(group, name)
                sections.setdefault(group, {})[name] = _pair(option.opt, value)
    sections["DEFAULT"] |= {
        "workers": (str(settings.server.workers), True),
        "enabled_backends": (
            ", ".join(f"{store.id}:{store.type}" for store in settings.stores if not store.reserved),
            True,
        ),
    }
    sections["xloud"]["auth"] = (settings.auth.method, True)
    sections["database"]["connection"] = (mask(settings.database.connection), True)
    if settings.policy.policy_file:
        sections["oslo_policy"]["policy_file"] = (settings.policy.policy_file, True)
    if settings.auth.method != "keystone":
        del sections["keystone_authtoken"]
    sections[GLOBAL] = {"default_backend": (settings.default_store, True)}
    for store in settings.stores:
        own = {opt.dest: opt for opt in (*COMMON, *TYPES[store.type].options)}
        chosen = {"store_description": store.description, "weight": store.weight, "import_format": store.import_format}
        chosen |= store.options
        sections[store.id] = {name: _pair(own[name], value) for name, value in chosen.items() if name in own}
    return Resolved(sections)


def _pair(opt: cfg.Opt, value: Any) -> tuple[str, bool]:
    return _text(value, secret=opt.secret), value != opt.default and value is not None


def as_ini(resolved: Resolved) -> str:
    """The configuration in force; values that are the defaults stand as comments."""
    parts = []
    for group, options in resolved.sections.items():
        lines = [f"[{group}]"]
        for name, (text, changed) in options.items():
            lines.append(f"{'' if changed else '# '}{name} = {text.replace('$', '$$')}".rstrip())
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def as_json(resolved: Resolved, findings: Sequence[Finding], files: Sequence[Any]) -> dict[str, Any]:
    """The same and the findings as one object for machines."""
    return {
        "ok": not any(finding.severity == "error" for finding in findings),
        "files": [str(file) for file in files],
        "configuration": {
            group: {name: text for name, (text, _) in options.items()} for group, options in resolved.sections.items()
        },
        "findings": [
            {
                "severity": finding.severity,
                "class": finding.kind,
                "about": finding.about or None,
                "sentence": finding.sentence,
                "file": str(finding.origin.file) if finding.origin.file else None,
                "line": finding.origin.line,
            }
            for finding in findings
        ],
    }

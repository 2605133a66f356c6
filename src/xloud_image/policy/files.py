"""Reading the operator's policy files. What a rule means stands in `checks`, the defaults in `rules`.

The files are checked here before oslo.policy sees them: it tells of a rule that it cannot read in the log alone. What
cannot be read, and a reference to a rule that does not exist, lets nobody in, and is a warning.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from oslo_policy import policy as oslo

from xloud_image.errors import ConfigError
from xloud_image.policy import checks
from xloud_image.policy.rules import BY_NAME, RULES

if TYPE_CHECKING:
    from xloud_image.config.settings import PolicySettings


@dataclasses.dataclass(frozen=True, slots=True)
class Stated:
    """A rule as an operator's file has it; `line` counts from 1."""

    name: str
    check: Any  # a text; or lists of texts, the oldest form
    file: Path
    line: int
    broken: bool = False  # oslo.policy cannot read all of it

    def tree(self) -> Any:
        """The check as oslo.policy reads it."""
        return oslo.RuleDefault(self.name, self.check).check

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.line}"


@dataclasses.dataclass(frozen=True, slots=True)
class Loaded:
    """All rules in force: as functions, as trees, as text, and who stated them; `warnings` are sentences for the
    log."""

    compiled: dict[str, checks.Compiled]
    trees: dict[str, Any]
    texts: dict[str, str]
    stated: dict[str, Stated]
    warnings: tuple[str, ...]
    sights: dict[tuple[Any, ...], Any] = dataclasses.field(default_factory=dict)  # see `Policy.sight`


def load(settings: PolicySettings) -> Loaded:
    """The defaults, overridden by `policy_file`, overridden by the files of `policy_dirs` in the order of
    their names.

    Raises ConfigError, one sentence that names file and line, when a file cannot be read or a rule not be
    understood.
    """
    stated: dict[str, Stated] = {}
    warnings: list[str] = []
    for file in _files(settings):
        for rule in _read(file):
            before = stated.get(rule.name)
            if before and before.file == rule.file:
                warnings.append(f"{rule.place}: the rule '{rule.name}' stands twice in this file; this one counts")
            stated[rule.name] = rule
    broken = {name for name, rule in stated.items() if rule.broken}
    warnings += [_unread(stated[name]) for name in broken]
    trees, undefined = checks.without_undefined(_merged(stated, settings.enforce_new_defaults), broken)
    warnings += [_denies(stated[name], missing) for name, missing in undefined.items() if name in stated]
    compiled: dict[str, checks.Compiled] = {}
    for name, tree in trees.items():
        try:
            if name not in compiled:
                compiled[name] = checks.compile_rule(tree, trees, compiled, (name,))
        except ConfigError as error:
            where = f"{stated[name].place}: " if name in stated else "policy: "
            raise ConfigError(f"{where}the rule '{name}' cannot be used: {error.message}") from None
    warnings += _unknown(stated)
    return Loaded(compiled, trees, {name: str(tree) for name, tree in trees.items()}, stated, tuple(warnings))


def _files(settings: PolicySettings) -> list[Path]:
    files = []
    if settings.policy_file is not None:
        files.append(Path(settings.policy_file))
    for folder in map(Path, settings.policy_dirs):
        if not folder.exists():
            continue
        try:
            inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        except OSError as error:
            raise ConfigError(f"[oslo_policy] policy_dirs: {folder} cannot be read: {error.strerror}") from None
        files += [path for path in inside if path.is_file()]
    return files


def _read(file: Path) -> list[Stated]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the policy file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"the policy file {file} is no UTF-8 text (byte {error.start})") from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise ConfigError(f"the policy file {file}{line} cannot be read: {problem}") from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode) or not isinstance(values, dict):
        raise ConfigError(f'the policy file {file} must hold lines like `"get_images": "role:reader"`')
    rules = []
    for key, _value in root.value:
        stated = Stated(str(key.value), values.get(key.value), file, key.start_mark.line + 1)
        rules.append(dataclasses.replace(stated, broken=not _understood(stated)))
    return rules


def _understood(rule: Stated) -> bool:
    """Whether oslo.policy can read every word of the rule. ConfigError: it cannot begin to; Glance fails then at each
    call, or (with an empty value) lets everybody in."""
    if not isinstance(rule.check, str | list):
        raise ConfigError(f"{rule.place}: the rule '{rule.name}' must be a text in quotes, such as \"role:admin\"")
    complaints = _Complaints()
    logger = logging.getLogger("oslo_policy._parser")
    logger.addFilter(complaints)
    try:
        rule.tree()
    except (TypeError, ValueError, AttributeError):
        raise ConfigError(f"{rule.place}: the rule '{rule.name}' cannot be understood: {rule.check!r}") from None
    finally:
        logger.removeFilter(complaints)
    return not complaints.count


class _Complaints(logging.Filter):
    """Counts what the parser of oslo.policy logs, which is its only way to say that it could not read a rule."""

    count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        self.count += 1
        return False


def _merged(stated: dict[str, Stated], new_only: bool) -> dict[str, Any]:
    """The check tree of every rule: the operator's, or the default, with the older default beside it if
    wanted.
    """
    trees = {name: rule.tree() for name, rule in stated.items()}
    for rule in RULES:
        if rule.name in trees:
            continue
        default = rule.default()
        old = default.deprecated_rule
        if new_only or old is None or old.check_str == default.check_str:
            trees[rule.name] = default.check
        else:
            trees[rule.name] = oslo.OrCheck([default.check, old.check])
    return trees


def _unread(rule: Stated) -> str:
    return (
        f"{rule.place}: the rule '{rule.name}' cannot be understood: {rule.check!r}; what is not understood of it lets"
        " nobody in"
    )


def _denies(rule: Stated, missing: list[str]) -> str:
    names = ", ".join(f"'rule:{name}'" for name in missing)
    return (
        f"{rule.place}: in the rule '{rule.name}' {names} refers to a rule that does not exist; it lets nobody in: "
        "define it in this file, or write what is meant, such as project_id:%(owner)s for the owner of an image"
    )


def _unknown(stated: dict[str, Stated]) -> list[str]:
    """A sentence for each rule that nothing asks for: a typing error would otherwise protect nothing,
    silently.
    """
    used = " ".join(str(rule.check) for rule in stated.values())
    lines = []
    for name, rule in stated.items():
        if name in BY_NAME or f"rule:{name}" in used:
            continue
        near = difflib.get_close_matches(name, BY_NAME, 1)
        hint = f"; is '{near[0]}' meant?" if near else ""
        lines.append(f"{rule.place}: nothing asks for the rule '{name}', it has no effect{hint}")
    return lines

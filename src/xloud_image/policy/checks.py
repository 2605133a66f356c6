"""Checks made fast: an oslo.policy check tree becomes one plain function. What a check means stays
oslo.policy's.

oslo.policy walks its tree with a look at each node's signature; that is 15 to 20 times the work of the
comparisons themselves. `compile_rule` walks the same tree once. `tests/policy/test_checks.py` proves both
give the same answers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from oslo_policy import policy as oslo

from xloud_image.errors import ConfigError

Credentials = Mapping[str, Any]
Target = Mapping[str, Any]
Compiled = Callable[[Target, Credentials], bool]


def _class_of(check: str) -> type[Any]:
    return type(oslo.RuleDefault("probe", check).check)


# oslo.policy names these four only in its private module; a parsed probe gives the class by the public way.
TRUE: Final = _class_of("@")
FALSE: Final = _class_of("!")
ROLE: Final = _class_of("role:probe")
_GENERIC: Final = _class_of("probe:%(probe)s")


def compile_rule(
    check: Any, rules: Mapping[str, Any], done: dict[str, Compiled], path: tuple[str, ...] = ()
) -> Compiled:
    """One check tree as a function of (target, credentials).

    `rules` are all rules by name, for `rule:` checks; `done` keeps those that are compiled. Raises
    ConfigError for a reference to a rule that does not exist, for a circle of references, and for kinds of
    check that are not run here (`http:` and `https:` would make every request wait for a server).
    """
    if isinstance(check, TRUE):
        return lambda _target, _creds: True
    if isinstance(check, FALSE):
        return lambda _target, _creds: False
    if isinstance(check, oslo.RuleCheck):
        return _reference(check.match, rules, done, path)
    if isinstance(check, oslo.NotCheck):
        inner = compile_rule(check.rule, rules, done, path)
        return lambda target, creds: not inner(target, creds)
    if isinstance(check, (oslo.AndCheck, oslo.OrCheck)):
        parts = tuple(compile_rule(part, rules, done, path) for part in check.rules)
        return _all(parts) if isinstance(check, oslo.AndCheck) else _any(parts)
    if isinstance(check, ROLE):
        return _role(check.match)
    if isinstance(check, _GENERIC):
        return _generic(check.kind, check.match)
    raise ConfigError(f"the check '{check}' is of a kind that this service does not run")


def without_undefined(
    rules: Mapping[str, Any], broken: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """The rules with every reference to a rule that does not exist denying, and which rules had such, with the names.

    What such a reference was to mean nobody knows, so it lets nobody in: neither as it stands nor under a `not`, in its
    own rule or in one that refers to it. The same holds for words that could not be read, which oslo.policy has made
    `!` of; `broken`: rules with such words.
    """
    undefined = {
        name: missing
        for name, check in rules.items()
        if (missing := sorted({other for other in _referred(check) if other not in rules}))
    }
    if not undefined and not broken:
        return dict(rules), {}
    unclear = {name for missing in undefined.values() for name in missing} | set(broken)
    while more := {name for name, check in rules.items() if name not in unclear and unclear & set(_referred(check))}:
        unclear |= more
    denying = {name: _denying(check, rules, unclear, name in broken) for name, check in rules.items()}
    return denying, undefined


def _leaves(check: Any) -> Iterator[Any]:
    """The checks that a check is made of."""
    if isinstance(check, oslo.NotCheck):
        yield from _leaves(check.rule)
    elif isinstance(check, (oslo.AndCheck, oslo.OrCheck)):
        for part in check.rules:
            yield from _leaves(part)
    else:
        yield check


def _referred(check: Any) -> Iterator[str]:
    """The names of the rules that a check asks for itself."""
    return (one.match for one in _leaves(check) if isinstance(one, oslo.RuleCheck))


def _denying(check: Any, rules: Mapping[str, Any], unclear: Collection[str], broken: bool) -> Any:
    if isinstance(check, oslo.RuleCheck):
        return check if check.match in rules else FALSE()
    if isinstance(check, oslo.NotCheck):
        unread = broken and any(isinstance(one, FALSE) for one in _leaves(check.rule))
        return FALSE() if unread or any(name in unclear for name in _referred(check.rule)) else check
    if isinstance(check, (oslo.AndCheck, oslo.OrCheck)):
        return type(check)([_denying(part, rules, unclear, broken) for part in check.rules])
    return check


def _reference(name: str, rules: Mapping[str, Any], done: dict[str, Compiled], path: tuple[str, ...]) -> Compiled:
    if name in path:
        raise ConfigError(f"the rules {' → '.join((*path, name))} refer to each other in a circle")
    if name not in rules:
        raise ConfigError(f"'rule:{name}' refers to a rule that does not exist")
    if name not in done:
        done[name] = compile_rule(rules[name], rules, done, (*path, name))
    return done[name]


def _all(parts: tuple[Compiled, ...]) -> Compiled:
    def check(target: Target, creds: Credentials) -> bool:
        for part in parts:  # noqa: SIM110 - all() with a generator is twice as slow
            if not part(target, creds):
                return False
        return True

    return check


def _any(parts: tuple[Compiled, ...]) -> Compiled:
    def check(target: Target, creds: Credentials) -> bool:
        for part in parts:  # noqa: SIM110
            if part(target, creds):
                return True
        return False

    return check


def _wanted(match: str) -> Callable[[Target], str]:
    """The right side of a check, with `%(key)s` filled in; raises KeyError when the target lacks the key."""
    if match.startswith("%(") and match.endswith(")s") and match.count("%") == 1:
        key = match[2:-2]
        return lambda target: str(target[key])
    if "%" in match:
        try:
            match % _Anything()
        except (TypeError, ValueError):
            raise ConfigError(f"'{match}' is no pattern like %(project_id)s") from None
        return lambda target: match % target
    return lambda _target: match


class _Anything(dict[str, str]):
    """Has every key: a pattern that fails on it fails on every target."""

    def __missing__(self, key: str) -> str:
        return ""


def _role(match: str) -> Compiled:
    if "%" not in match:
        role = match.lower()
        return lambda _target, creds: role in creds["roles"]
    wanted = _wanted(match)

    def check(target: Target, creds: Credentials) -> bool:
        try:
            return wanted(target).lower() in creds["roles"]
        except KeyError:
            return False

    return check


def _generic(kind: str, match: str) -> Compiled:
    wanted = _wanted(match)
    try:
        literal = str(ast.literal_eval(kind))
    except ValueError:
        path = tuple(kind.split("."))
    except SyntaxError:
        raise ConfigError(f"the check '{kind}:{match}' cannot be understood") from None
    else:
        return _literal(literal, wanted)
    if len(path) == 1:
        return _credential(path[0], wanted)

    def check(target: Target, creds: Credentials) -> bool:
        try:
            return _found(creds, path, wanted(target))
        except KeyError:
            return False

    return check


def _literal(value: str, wanted: Callable[[Target], str]) -> Compiled:
    def check(target: Target, _creds: Credentials) -> bool:
        try:
            return wanted(target) == value
        except KeyError:
            return False

    return check


def _credential(name: str, wanted: Callable[[Target], str]) -> Compiled:
    def check(target: Target, creds: Credentials) -> bool:
        try:
            value = creds[name]
            right = wanted(target)
        except KeyError:
            return False
        if isinstance(value, (frozenset, list, tuple)):
            return any(right == str(one) for one in value)
        return bool(right == str(value))

    return check


def _found(value: Any, path: tuple[str, ...], right: str) -> bool:
    """Whether `right` stands under the dotted path; each entry of a list counts. KeyError: the path leads
    nowhere.
    """
    if isinstance(value, (frozenset, list, tuple)):
        return any(_found(one, path, right) for one in value)
    if not path:
        return right == str(value)
    if not isinstance(value, Mapping):
        return False
    return _found(value[path[0]], path[1:], right)

"""Expressions in globals, `{{ … }}` and `{% … %}`, as Ansible means them: native types, and nothing else decided here.

Where ansible-core is installed (the control host), its own templar reads them, with every filter, test and lookup that it
has: the globals are the operator's, who may run any program here anyway. Elsewhere Jinja reads them in its sandbox, with
the filters of Ansible that globals use; a lookup, or a filter that is not among these, is refused with the cure.
"""

from __future__ import annotations

import base64
import functools
import json
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Final

import yaml


class Failed(Exception):
    """An expression that cannot be read, with half a sentence: what the value does. `unknown`: it names something that
    is not here, such as the facts of a node or the groups of an inventory."""

    def __init__(self, text: str, *, unknown: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.unknown = unknown


class Unsafe(str):
    """A text that is none of ours to read: `!unsafe`, or what was encrypted. Braces in it are braces."""

    __slots__ = ()


class Names(MutableMapping[str, Any]):
    """Names that expressions may use, each made when it is first asked for."""

    def __init__(self, known: frozenset[str], make: Callable[[str], Any]) -> None:
        self._known = known
        self._make = make
        self._more: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._more:
            return self._more[name]
        if name not in self._known:
            raise KeyError(name)
        return self._make(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._more[name] = value

    def __delitem__(self, name: str) -> None:
        del self._more[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known | set(self._more))

    def __len__(self) -> int:
        return len(self._known | set(self._more))


def is_one(text: object) -> bool:
    """Whether a text holds an expression."""
    return isinstance(text, str) and not isinstance(text, Unsafe) and ("{{" in text or "{%" in text)


def names_in(text: str) -> frozenset[str]:
    """What an expression refers to; empty when it cannot be read."""
    from jinja2 import Environment, TemplateSyntaxError, meta, nodes

    try:
        tree = Environment(autoescape=False).parse(text)  # noqa: S701 - nothing is rendered
    except TemplateSyntaxError:
        return frozenset()
    return frozenset(meta.find_undeclared_variables(tree)) | frozenset(
        node.args[0].value
        for node in tree.find_all(nodes.Call)
        if isinstance(node.node, nodes.Name) and node.node.name in ("lookup", "query") and len(node.args) > 1
        and isinstance(node.args[0], nodes.Const) and isinstance(node.args[0].value, str)
    )  # fmt: skip


def read(text: str, names: Names) -> Any:
    """What it means: text, number, flag, list, mapping or None. Failed."""
    wanted = names_in(text)
    known = {name: names[name] for name in wanted if name in names}
    return (_by_ansible or _by_jinja)(text, known)  # type: ignore[truthy-function]


def _by_jinja(text: str, known: Mapping[str, Any]) -> Any:
    from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError

    try:
        return _environment().from_string(text).render(known)
    except UndefinedError as error:
        raise Failed(_undefined(error.message or str(error)), unknown=True) from None
    except TemplateSyntaxError as error:
        unknown = "No filter named" in str(error) or "No test named" in str(error)
        raise Failed(_syntax(error.message or "", ansible=False), unknown=unknown) from None
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise Failed(f"has an expression that fails: {type(error).__name__}: {error}") from None


def _undefined(message: str) -> str:
    found = re.search(r"'([^']+)' is undefined", message)
    if found and found[1] in ("lookup", "query", "q"):
        return "has a lookup, which only Ansible's templar reads: render where ansible-core is (make deployer)"
    return f"refers to {{{{ {found[1]} }}}}, which is not given" if found else f"has an expression that fails: {message}"


def _syntax(message: str, *, ansible: bool) -> str:
    found = re.search(r"No (filter|test) named '([^']+)'", message)
    if not found:
        return f"has an expression that cannot be read: {message}"
    cure = "" if ansible else " in this environment; Ansible's own are where ansible-core is installed (make deployer)"
    return f"uses the {found[1]} '{found[2]}', which is not known here{cure}"


def _ansible() -> Callable[[str, Mapping[str, Any]], Any] | None:
    """Ansible's templar, where it is installed."""
    try:
        from ansible.errors import AnsibleError, AnsibleUndefinedVariable
        from ansible.parsing.dataloader import DataLoader
        from ansible.template import Templar, trust_as_template
    except ImportError:
        return None
    loader = DataLoader()

    def by_ansible(text: str, known: Mapping[str, Any]) -> Any:
        try:
            return _plain(Templar(loader=loader, variables=dict(known)).template(trust_as_template(text)))
        except AnsibleUndefinedVariable as error:
            raise Failed(_undefined(str(error)), unknown=True) from None
        except AnsibleError as error:
            text = str(error).partition("\n")[0]
            raise Failed(_syntax(text.removeprefix("Syntax error in template: "), ansible=True),
                         unknown="No filter named" in text or "No test named" in text) from None  # fmt: skip

    return by_ansible


def _plain(value: Any) -> Any:
    """Without the tags that Ansible hangs on values."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


_by_ansible: Final = _ansible()

# Jinja, where Ansible is not


@functools.cache
def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.nativetypes import NativeEnvironment
    from jinja2.sandbox import SandboxedEnvironment

    class _Native(SandboxedEnvironment, NativeEnvironment):
        """Native types, no way out."""

    made = _Native(undefined=StrictUndefined, autoescape=False, extensions=["jinja2.ext.do"])  # noqa: S701 - no HTML
    made.code_generator_class = NativeEnvironment.code_generator_class
    made.concat = staticmethod(_concat)  # type: ignore[assignment]
    made.template_class = NativeEnvironment.template_class
    made.template_class.environment_class = _Native
    made.filters |= _FILTERS
    made.tests |= {
        "match": lambda text, pattern: re.match(pattern, str(text)) is not None,
        "search": lambda text, pattern: re.search(pattern, str(text)) is not None,
        "contains": lambda items, item: item in items,
        "truthy": bool,
        "falsy": lambda value: not value,
        "subset": lambda some, all_: set(some) <= set(all_),
        "superset": lambda all_, some: set(some) <= set(all_),
    }
    return made


def _concat(parts: Any) -> Any:
    """As Ansible: one expression keeps its type, a text around it makes a text. Nothing is evaluated a second time."""
    found = list(parts)
    if not found:
        return None
    return found[0] if len(found) == 1 else "".join(str(part) for part in found)


def _bool(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in ("yes", "true", "on", "1", "y", "t")


def _combine(*maps: Any, recursive: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for one in maps:
        for name, value in one.items():
            if recursive and isinstance(value, dict) and isinstance(made.get(name), dict):
                made[name] = _combine(made[name], value, recursive=True)
            else:
                made[name] = value
    return made


def _mandatory(value: Any, message: str = "") -> Any:
    from jinja2 import Undefined, UndefinedError

    if isinstance(value, Undefined):
        raise UndefinedError(message or "a mandatory value is undefined")
    return value


_FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "bool": _bool,
    "ternary": lambda value, yes, no, none=None: none if value is None and none is not None else yes if value else no,
    "combine": _combine,
    "mandatory": _mandatory,
    "regex_replace": lambda text, pattern, by="": re.sub(pattern, by, str(text)),
    "regex_search": lambda text, pattern: (found := re.search(pattern, str(text))) and found[0],
    "regex_findall": lambda text, pattern: re.findall(pattern, str(text)),
    "split": lambda text, by=None: str(text).split(by),
    "basename": os.path.basename,
    "dirname": os.path.dirname,
    "to_json": json.dumps,
    "from_json": json.loads,
    "to_yaml": yaml.safe_dump,
    "from_yaml": yaml.safe_load,
    "b64encode": lambda text: base64.b64encode(str(text).encode()).decode(),
    "b64decode": lambda text: base64.b64decode(str(text)).decode(),
    "union": lambda a, b: list(dict.fromkeys([*a, *b])),
    "intersect": lambda a, b: [item for item in a if item in b],
    "difference": lambda a, b: [item for item in a if item not in b],
    "flatten": lambda items: [inner for item in items for inner in (item if isinstance(item, list) else [item])],
    "dict2items": lambda value: [{"key": name, "value": item} for name, item in value.items()],
    "items2dict": lambda items: {item["key"]: item["value"] for item in items},
    "extract": lambda name, among: among[name],
    "put_address_in_context": lambda address, context: f"[{address}]" if ":" in address and context == "url" else address,
}  # fmt: skip

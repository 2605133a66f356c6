"""Expressions in globals, `{{ … }}` and `{% … %}`, as Ansible means them: native types, and nothing else decided here.

Where ansible-core is installed (the control host), its own templar reads them, with every filter, test and lookup that
it has: the globals are the operator's, who may run any program here anyway. Elsewhere Jinja reads them in its sandbox,
with the filters of Ansible that globals use; a lookup, or another filter, is refused with the cure.
"""

from __future__ import annotations

import base64
import datetime
import functools
import json
import os.path
import re
from collections.abc import Callable, Iterator, Mapping, ValuesView
from collections.abc import Set as AbstractSet
from typing import Any, Final

import yaml

_DEEPEST: Final = 50
# what Python writes for what has no text of its own
_REPRESENTED: Final = re.compile(r"<[\w. <>]{1,100} at 0x[0-9a-f]{6,16}>|\bdict_(?:keys|values|items)\(\[")


class Failed(Exception):
    """An expression that cannot be read, with half a sentence: what the value does. `unknown`: it names something that
    is not here, such as the facts of a node or the groups of an inventory; `name`: which, if it is a variable."""

    def __init__(self, text: str, *, unknown: bool = False, name: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.unknown = unknown
        self.name = name


class Unsafe(str):
    """A text that is none of ours to read: `!unsafe`, or what was encrypted. Braces in it are braces."""

    __slots__ = ()


class Unread(Unsafe):
    """Stands for a value that cannot be read, of a key that is not ours: half a sentence, why not."""

    __slots__ = ()


def is_one(text: object) -> bool:
    """Whether a text holds an expression."""
    return isinstance(text, str) and not isinstance(text, Unsafe) and ("{{" in text or "{%" in text)


def names_in(text: str) -> frozenset[str]:
    """What an expression may refer to; empty when it cannot be read."""
    from jinja2 import Environment, TemplateSyntaxError, nodes

    try:
        tree = Environment(autoescape=False).parse(text)  # noqa: S701 - nothing is rendered
    except (TemplateSyntaxError, RecursionError):
        return frozenset()
    return frozenset(node.name for node in tree.find_all(nodes.Name))


def read(text: str, known: Callable[[str], Any]) -> Any:
    """What it means: text, number, flag, list, mapping or None. Failed.

    `known` gives the value of a name; KeyError: there is none; Failed: it cannot be read, which matters only if the
    expression comes to it.
    """
    values: dict[str, Any] = {}
    failed: dict[str, Failed] = {}
    for name in names_in(text):
        try:
            values[name] = known(name)
        except KeyError:
            continue
        except Failed as error:
            failed[name] = error
    try:
        return (_ansible() or _by_jinja)(text, values)
    except Failed as error:
        if error.name in failed:
            raise failed[error.name] from None
        raise


def _by_jinja(text: str, known: Mapping[str, Any]) -> Any:
    from jinja2 import TemplateSyntaxError, Undefined, UndefinedError

    try:
        found = _environment().from_string(text).render(known)
        if isinstance(found, Undefined):
            str(found)  # raises
        return _plain(found)
    except Failed:
        raise
    except UndefinedError as error:
        raise _undefined(error.message or str(error)) from None
    except TemplateSyntaxError as error:
        unknown = "No filter named" in str(error) or "No test named" in str(error)
        raise Failed(_syntax(error.message or "", ansible=False), unknown=unknown) from None
    except Exception as error:  # noqa: BLE001 - whatever a filter makes of its values
        raise _fails(error) from None


def _fails(error: Exception) -> Failed:
    # other lines of a reader of YAML repeat the text, which may be secret
    reason = str(getattr(error, "problem", None) or error).partition("\n")[0]
    return Failed(f"has an expression that fails: {type(error).__name__}{': ' * bool(reason)}{reason}")


def _undefined(message: str) -> Failed:
    found = re.search(r"'([^']+)' is undefined", message)
    if found is None:
        return Failed(f"has an expression that fails: {message}", unknown=True)
    if found[1] in ("lookup", "query", "q"):
        return Failed("has a lookup, which only Ansible's templar reads: render where ansible-core is (make deployer)",
                      unknown=True)  # fmt: skip
    return Failed(f"refers to {{{{ {found[1]} }}}}, which is not given", unknown=True, name=found[1])


def _syntax(message: str, *, ansible: bool) -> str:
    found = re.search(r"No (filter|test) named '([^']+)'", message)
    if not found:
        return f"has an expression that cannot be read: {message}"
    cure = "" if ansible else " in this environment; Ansible's own are where ansible-core is installed (make deployer)"
    return f"uses the {found[1]} '{found[2]}', which is not known here{cure}"


@functools.cache
def _ansible() -> Callable[[str, Mapping[str, Any]], Any] | None:
    """Ansible's templar, where it is installed: loaded for the first expression, as most globals have none."""
    try:
        from ansible.errors import AnsibleError, AnsibleUndefinedVariable
        from ansible.parsing.dataloader import DataLoader
        from ansible.plugins.loader import init_plugin_loader
        from ansible.template import Templar, trust_as_template
    except ImportError:
        return None
    loader = DataLoader()
    init_plugin_loader()

    def by_ansible(text: str, known: Mapping[str, Any]) -> Any:
        try:
            return _plain(Templar(loader=loader, variables=dict(known)).template(trust_as_template(text)))
        except AnsibleUndefinedVariable as error:
            raise _undefined(str(error)) from None
        except AnsibleError as error:
            text = str(error).partition("\n")[0]
            raise Failed(_syntax(text.removeprefix("Syntax error in template: "), ansible=True),
                         unknown="No filter named" in text or "No test named" in text) from None  # fmt: skip
        except Failed:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a filter makes of its values
            raise _fails(error) from None

    return by_ansible


def _plain(value: Any, depth: int = 0) -> Any:
    """Text, number, flag, list, mapping or None, without the tags that Ansible hangs on values.

    What is walked through but once (`map`, `select`, `.keys()`) is a list. Failed: it is nothing of these.
    """
    if depth > _DEEPEST:
        raise Failed("has an expression whose value is nested too deeply")
    if isinstance(value, Mapping):
        return {str(name): _plain(item, depth + 1) for name, item in value.items()}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and _REPRESENTED.search(value):
        raise Failed("has an expression that shows an object of the program inside a text: end it with `| list`")
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return str(value)
    if isinstance(value, (list, tuple, range, AbstractSet, ValuesView, Iterator)):
        return [_plain(item, depth + 1) for item in value]
    raise Failed(f"has an expression that gives a {type(value).__name__}, which is no value: a text, a number, a flag, "
                 "a list or a mapping is needed")  # fmt: skip


# Jinja, where Ansible is not


@functools.cache
def _environment() -> Any:
    from jinja2 import StrictUndefined, nodes
    from jinja2.nativetypes import NativeCodeGenerator, NativeEnvironment, NativeTemplate
    from jinja2.sandbox import SandboxedEnvironment

    class _Generator(NativeCodeGenerator):
        """A list that stands in an expression stays one: elsewhere constants become text."""

        def _output_child_to_const(self, node: nodes.Expr, frame: Any, finalize: Any) -> Any:
            if not isinstance(node, nodes.TemplateData):
                raise nodes.Impossible
            return super()._output_child_to_const(node, frame, finalize)

    class _Native(SandboxedEnvironment, NativeEnvironment):
        """Native types, no way out."""

        code_generator_class = _Generator
        concat = staticmethod(_concat)

    class _Template(NativeTemplate):
        environment_class = _Native

    _Native.template_class = _Template
    made = _Native(undefined=StrictUndefined, autoescape=False)
    made.filters |= _FILTERS
    tests: dict[str, Any] = {
        "match": lambda text, pattern: re.match(pattern, str(text)) is not None,
        "search": lambda text, pattern: re.search(pattern, str(text)) is not None,
        "contains": lambda items, item: item in items,
        "truthy": bool,
        "falsy": lambda value: not value,
        "subset": lambda some, all_: set(some) <= set(all_),
        "superset": lambda all_, some: set(some) <= set(all_),
    }
    made.tests |= tests
    return made


def _concat(values: Any) -> Any:
    """As Ansible: one expression keeps its type, a text around it makes a text. Nothing is evaluated a second time."""
    found = list(values)
    if not found:
        return None
    return found[0] if len(found) == 1 else "".join(_in_text(part) for part in found)


def _in_text(part: Any) -> str:
    from jinja2 import Undefined

    return str(part if isinstance(part, (str, Undefined)) else _plain(part))


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


_FILTERS: Final[dict[str, Any]] = {
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
    "put_address_in_context": lambda text, context: f"[{text}]" if ":" in text and context == "url" else text,
}  # fmt: skip

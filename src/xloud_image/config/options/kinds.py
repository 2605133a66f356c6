"""How an option of a configuration file is stated. The statements stand in `config.settings` and beside this file."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from oslo_config import cfg

from xloud_image.config.findings import Kind

T = TypeVar("T")


class NearestOpt(cfg.IntOpt):
    """A whole number whose lower bound is ours alone: Glance takes any. What is less counts as the bound."""

    def nearest(self, text: str) -> int | None:
        """The number that counts instead of this one; None when it is no number."""
        try:
            number = math.ceil(float(text))
        except (ValueError, OverflowError):
            return None
        bounds: Any = self.type
        return max(number, int(bounds.min))


# the form of an option by the type of its default; of text where there is none
FORMS: Final[Mapping[type, type[cfg.Opt]]] = {
    bool: cfg.BoolOpt,
    int: cfg.IntOpt,
    tuple: cfg.ListOpt,
    list: cfg.ListOpt,
}
_STATED: Final = "option"


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """An option, the section it stands in, and its class.

    `into`: the setting that it becomes, as Class.field, when it is honoured. `why` ends the sentence about any other.
    `harmless`: the pattern of values that ask for nothing, beside the default and an empty one.
    """

    group: str
    opt: cfg.Opt
    kind: Kind = Kind.HONOURED
    into: str = ""
    why: str = ""
    harmless: str = ""

    def concerns(self, value: Any) -> bool:
        """Whether this value, set in a file, is to be told."""
        items = value if isinstance(value, list) else [value]
        quiet = all(re.fullmatch(self.harmless, str(item).strip()) for item in items)
        return bool(value != self.opt.default) and not quiet


def option(group: str, default: T, text: str, **more: Any) -> T:
    """A field of a class of settings that is an option of this section: its name, its type and its default are one.

    `text` says what it does; `more`: what oslo.config wants to know besides (min, choices, deprecated_name, secret …);
    `near`: it is a `NearestOpt`.
    """
    form = NearestOpt if more.pop("near", False) else FORMS.get(type(default), cfg.StrOpt)
    plain = list(default) if isinstance(default, tuple) else default
    stated = (group, functools.partial(form, default=plain, help=text, **more))
    field: Any = dataclasses.field(default=default, repr=not more.get("secret"), metadata={_STATED: stated})
    return cast("T", field)


@functools.cache
def stated(part: Any) -> tuple[Option, ...]:
    """The options that fields of a class of settings are."""
    fields = ((field, field.metadata[_STATED]) for field in dataclasses.fields(part) if _STATED in field.metadata)
    return tuple(
        Option(group, form(field.name), into=f"{part.__name__}.{field.name}") for field, (group, form) in fields
    )

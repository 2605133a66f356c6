"""The tables of keys in the operators' guide, made from the options' definitions: `make docs` writes them, `--check`
only says whether they are up to date (exit code 1: they are not)."""

import re
import sys
from pathlib import Path

from xavs import variables
from xavs.variables import Key
from xloud_image.stores import TYPES

GUIDE = Path(__file__).parent / "operating" / "image-storage-backends.md"
_MARKED = re.compile(r"(<!-- options: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(type_: str) -> str:
    """The rows of one type: what a deployment can be told, with the value that counts when it is told nothing."""
    table = variables.table()
    found = [table[name] for name in (TYPES[type_].switch, *TYPES[type_].more_keys)]
    found += [table[f"glance_{opt.dest}"] for opt in TYPES[type_].options if f"glance_{opt.dest}" in table]
    rows = [f"| {_name(key)} | {_default(key)} | {_escaped(key.help)} |\n" for key in found]
    return "| key | default | what it says |\n|---|---|---|\n" + "".join(rows)


def _name(key: Key) -> str:
    names = [f"`{name}`" for name in (key.name, *key.also)]
    return names[0] if len(names) == 1 else f"{names[0]}, also {', '.join(names[1:])}"


def _default(key: Key) -> str:
    value = key.default
    if value is None and key.option is not None and key.option.required:
        return "must be given"
    if value is None and key.option is not None:
        value = key.option.default
    if callable(value):
        return f"`{key.why}`" if key.why in variables.table() else _escaped(key.why)
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def written(text: str) -> str:
    """The guide with its tables made anew."""
    return _MARKED.sub(lambda match: f"{match[1]}{table(match[2])}{match[4]}", text)


def main(words: list[str]) -> int:
    old = GUIDE.read_text(encoding="utf-8")
    new = written(old)
    if words == ["--check"]:
        return int(old != new)
    if old != new:
        GUIDE.write_text(new, encoding="utf-8")
        sys.stdout.write(f"written: {GUIDE.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

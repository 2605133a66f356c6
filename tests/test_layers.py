"""The house rules that a machine can check: who may import whom, and what no file may say."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import remarks
from tests.servers.place import ROOT
from xloud_image.stores import TYPES

PACKAGE = "xloud_image"
SOURCE = ROOT / "src" / PACKAGE

# The rooms of the package, floor by floor. A room imports from the floors below its own, never from its
# own floor or from above. A new room is put on a floor here.
FLOORS = (
    ("cli", "server", "__main__"),
    ("api", "worker"),
    ("services", "bootstrap", "client", "broker"),
    ("db", "stores", "fetching", "identity", "cache"),
    ("streams", "policy", "schemas", "metadefs", "patch", "resuming", "audit"),
    ("inspection", "checking", "conversion", "events"),
    ("model",),
    ("logs",),
    ("config",),
    ("failpoints", "turns", "deaths"),
    ("errors",),
)
FLOOR = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}
# the package itself: the version, importable from everywhere and importing nothing
FLOOR[""] = 0
# what describes the types of stores, for those who must not need the stores
DESCRIPTIONS = {"stores", "stores.store_type", *(f"stores.{name}.options" for name in TYPES)}
# modules that stand lower than their room, because they are what rooms below it are given
LOWER = {
    "identity.context": FLOOR["model"],
    **dict.fromkeys((*DESCRIPTIONS, "stores.kit.filters"), FLOOR["failpoints"]),
}

# one room beside another on the same floor, with the reason
BESIDE = {
    ("__main__", "cli"),  # only hands over
    ("cli", "server"),  # `serve` starts it
    ("fetching", "stores"),  # its kit: requests to URLs that others chose
    ("cache", "stores"),  # files that are open for reading
}

# of stores/, what is no type of store
STORES_ITSELF = {"__init__", "base", "kit", "layers", "registry", "store_type", "suite"}
# what a type of store may import besides its own package, so that one from outside can be written with no more
FOR_BACKENDS = {"errors", "failpoints", "stores.base", "stores.kit", "stores.store_type"}
LONG = 400


# the deployer, a package of its own, and what it may import of the service
DEPLOYER = ROOT / "src" / "xavs"
FOR_DEPLOYER = {"", "config", "errors"}
# who of the service may import the deployer
OF_DEPLOYER = {"cli"}


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _name(path: Path) -> str:
    """The dotted name inside the package; "" is the package itself."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name inside the package) of everything of the package that a file imports."""
    names = {_name(module) for module in _modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            # `from xloud_image.stores import base` imports stores.base
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            head, _, rest = name.partition(".")
            if head == PACKAGE:
                yield node.lineno, rest if rest in names else rest.rpartition(".")[0]


def _wrong_imports(path: Path) -> Iterator[str]:
    name = _name(path)
    room = name.partition(".")[0]
    for line, imported in _imports(path):
        target = imported.partition(".")[0]
        theirs, own = LOWER.get(imported, FLOOR[target]), LOWER.get(name, FLOOR[room])
        if target == "" or (room, target) in BESIDE or theirs < own or (target == room and theirs == own):
            continue
        yield f"{path.relative_to(ROOT)}:{line}: {room or PACKAGE} may not import {target}"


def test_every_room_has_a_floor() -> None:
    rooms = {_name(path).partition(".")[0] for path in _modules()}
    assert rooms <= set(FLOOR), f"no floor for {sorted(rooms - set(FLOOR))}: give it one at the top of this file"


def test_imports_go_one_way() -> None:
    wrong = [line for path in _modules() for line in _wrong_imports(path)]
    assert not wrong, "\n".join(wrong)


def test_one_module_knows_the_library_of_the_message_bus() -> None:
    """And imports it where it is needed: no process of the API does."""
    words = "import sys, xloud_image.server; print({'oslo_messaging', 'eventlet'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
    assert [_name(path) for path in _modules() if "import oslo_messaging" in path.read_text()] == ["broker"]
    assert {_name(path) for path in _modules() for _, used in _imports(path) if used == "broker"} == {"worker"}


def test_no_file_is_in_a_circle() -> None:
    """Whatever is imported, wherever in the file: a circle is one thing in several files, or two in one."""
    found = {_name(path): {imported for _, imported in _imports(path)} for path in _modules()}
    found |= {f"xavs.{path.stem}": set(_deployers(path)) for path in DEPLOYER.rglob("*.py")}
    try:
        tuple(graphlib.TopologicalSorter({name: used - {name} for name, used in found.items()}).static_order())
    except graphlib.CycleError as error:
        raise AssertionError(" → ".join(error.args[1])) from None


def _deployers(path: Path) -> Iterator[str]:
    """The files of the deployer that one of them imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] == DEPLOYER.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == DEPLOYER.name:
            parts = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "xavs" else [node.module]
            yield from (part for part in parts if part is not None)


def test_a_type_of_store_needs_the_contract_only() -> None:
    wrong = []
    for path in sorted((SOURCE / "stores").rglob("*.py")):
        kind = path.relative_to(SOURCE / "stores").with_suffix("").parts[0]
        if kind in STORES_ITSELF - {"kit"}:
            continue
        allowed = FOR_BACKENDS | {f"stores.{kind}"}
        for line, imported in _imports(path):
            if not any(imported == one or imported.startswith(f"{one}.") for one in allowed):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {kind} may not import {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_store_names_itself_in_its_errors() -> None:
    """`layers.Named` does, for all of them. The names of threads and tasks, and the log's lines, have no layer."""
    wrong = []
    for path in sorted((SOURCE / "stores").rglob("*.py")):
        kind = path.relative_to(SOURCE / "stores").with_suffix("").parts[0]
        if kind in STORES_ITSELF - {"kit", "base"}:
            continue
        tree = ast.parse(path.read_text())
        named = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "name"}
        said = {id(part) for node in ast.walk(tree) if isinstance(node, ast.Raise) for part in ast.walk(node)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.JoinedStr) or id(node) in named:
                continue
            begins = isinstance(node.values[0], ast.Constant) and re.match(
                r"(the )?store '?$", node.values[0].value, re.IGNORECASE
            )
            holds = {ast.unparse(part.value) for part in node.values if isinstance(part, ast.FormattedValue)}
            if begins or (path.name in ("store.py", "base.py") and id(node) in said and "self.name" in holds):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_a_type_of_store_is_a_package_of_its_name() -> None:
    types = {path.name for path in (SOURCE / "stores").iterdir() if path.is_dir()} - STORES_ITSELF - {"__pycache__"}
    assert types == set(TYPES)
    for kind in types:
        assert TYPES[kind].store.startswith(f"{PACKAGE}.stores.{kind}.store:")


def test_the_types_are_known_without_their_libraries() -> None:
    """Whoever imports the table of types has imported no store and nothing that only a store needs."""
    program = "import sys; import xloud_image.stores; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    ours = {name.removeprefix(f"{PACKAGE}.") for name in found if name.startswith(f"{PACKAGE}.")}
    packages = {f"stores.{name}" for name in TYPES}
    assert ours == DESCRIPTIONS | packages | {"errors"}
    assert not {"aiohttp", "yarl", "rbd", "rados", "pyVmomi", "os_brick", "sqlalchemy"} & set(found)


def test_the_deployer_needs_the_options_only() -> None:
    wrong = []
    for path in sorted(DEPLOYER.rglob("*.py")):
        for line, imported in _imports(path):
            if imported.partition(".")[0] not in FOR_DEPLOYER and imported not in DESCRIPTIONS:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: the deployer may not import {imported}")
    wrong += [
        f"{path.relative_to(ROOT)}: the service may not import the deployer"
        for path in _modules()
        if _name(path).partition(".")[0] not in OF_DEPLOYER
        and re.search(r"^\s*(from|import) xavs\b", path.read_text(), re.MULTILINE)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is_for() -> None:
    modules = [*_modules(), *DEPLOYER.rglob("*.py")]
    silent = [str(path.relative_to(ROOT)) for path in modules if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent, "no docstring: " + ", ".join(silent)


def test_no_room_is_called_utils() -> None:
    vague = {"utils", "util", "common", "helpers", "misc"}
    paths = [path.relative_to(ROOT).with_suffix("") for path in (*_modules(), *DEPLOYER.rglob("*.py"))]
    assert not [str(path) for path in paths if vague & set(path.parts)]


def test_long_files_are_named(pytestconfig: pytest.Config) -> None:
    """Not a failure: a remark at the end of the output."""
    for path in (*_modules(), *DEPLOYER.rglob("*.py")):
        lines = path.read_text().count("\n")
        if lines > LONG:
            pytestconfig.stash[remarks].append(f"long: {path.relative_to(ROOT)} has {lines} lines")


def _tracked() -> list[Path]:
    """The files that git knows or would add; without git, those of the source folders."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        paths = [path for folder in ("src", "tests", "requirements", "docs") for path in (ROOT / folder).rglob("*")]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


# put together here so that this file passes its own test
FORBIDDEN = re.compile(
    "|".join(
        (
            r"pypi\." + "org",
            "pythonhosted" + r"\.",
            r"(?:deb|security|snapshot|ftp)\." + r"debian\.org",
            r"(?<![\w.~-])/" + r"work/(?:main|shared)",
            r"(?<![\w])\.\./" + "shared",
        )
    )
)


def test_no_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    found = []
    for path in _tracked():
        text = path.read_bytes().decode(errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if match := FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("lock", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_a_lock_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=sha256:)", text, re.MULTILINE), "an option in a lock file"
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    assert entries
    for entry in filter(str.strip, entries):
        assert re.match(r"[A-Za-z0-9._-]+(\[[^]]*\])?==\S+", entry), entry[:100]
        assert "--hash=sha256:" in entry, entry[:100]

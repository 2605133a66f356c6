"""Writes the table of the names that kolla-ansible's globals may have: `make kolla-keys`.

usage: .venv/bin/python deploy/kolla_keys.py WHEEL…  > src/xavs/kolla.json

Of each release (a wheel of PyPI): the keys of etc/kolla/globals.yml, those behind a # included, of passwords.yml, of
group_vars/all and of the roles' defaults. Names are facts; of values the short plain ones of group_vars are kept, which
expressions may refer to, and of the expressions of keys that are ours as well a fingerprint, by which a line that only
repeats a default is known again.
"""

import json
import re
import sys
import zipfile

import yaml

from xavs import foreign_names, variables

# numbers of the package → names of the release
SERIES = {
    "10": "Ussuri", "11": "Victoria", "12": "Wallaby", "13": "Xena", "14": "Yoga", "15": "Zed", "16": "2023.1",
    "17": "2023.2", "18": "2024.1", "19": "2024.2", "20": "2025.1", "21": "2025.2", "22": "2026.1",
}  # fmt: skip
GROUP_VARS = re.compile(r".*/ansible/group_vars/all(?:\.yml|/[^/]+\.yml)")
DEFAULTS = re.compile(r".*/ansible/roles/[^/]+/defaults/[^/]+\.yml")
EXAMPLES = re.compile(r".*/etc_examples/kolla/(?:globals|passwords)\.yml")
KEY = re.compile(r"^#?([A-Za-z_]\w*):(?:\s|$)")
LONGEST = 60  # characters of a value that is kept
SPACE = "  "


def plain(node):
    """Texts, lists and mappings of a YAML node."""
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return {name.value: plain(item) for name, item in node.value}
    return None if node.tag == "tag:yaml.org,2002:null" else node.value


def blocks(text):
    """Each key of a file of examples as a small document, whether it is behind a # or not."""
    lines, found = text.splitlines(), []
    for number, line in enumerate(lines):
        if not KEY.match(line):
            continue
        block = [line.removeprefix("#")]
        for more in lines[number + 1 :]:
            more = more.removeprefix("#")
            if not more.startswith(SPACE) or not more.strip():
                break
            block.append(more)
        found.append("\n".join(block))
    return found


def read(text, *, examples):
    """The pairs of one file."""
    for part in blocks(text) if examples else [text]:
        try:
            root = yaml.compose(part, yaml.SafeLoader)
        except yaml.YAMLError:
            root = None
        if isinstance(root, yaml.MappingNode):
            for name, node in root.value:
                yield name.value, plain(node)
        elif match := KEY.match(part):
            yield match[1], None


def main(wheels):
    releases, names, values, fingerprints = {}, set(), {}, {}
    for wheel in sorted(wheels, key=lambda path: [int(n) for n in re.findall(r"-([\d.]+)-", path)[0].split(".")]):
        version = re.findall(r"-([\d.]+)-", wheel)[0]
        releases[SERIES[version.partition(".")[0]]] = version
        with zipfile.ZipFile(wheel) as archive:
            for member in sorted(archive.namelist()):
                kinds = [bool(kind.fullmatch(member)) for kind in (GROUP_VARS, DEFAULTS, EXAMPLES)]
                if not any(kinds):
                    continue
                for name, value in read(archive.read(member).decode(), examples=kinds[2]):
                    names.add(name)
                    ours = (
                        name in variables.names()
                        or name in variables.shared()
                        or foreign_names.looks_like_ours(name)
                    )
                    if "{{" in str(value) or "{%" in str(value):
                        if ours:
                            fingerprints.setdefault(name, set()).add(foreign_names.fingerprint(value))
                        values.pop(name, None)  # what newer releases compute is no fact
                    elif kinds[0] and isinstance(value, str) and value and len(value) <= LONGEST:
                        values[name] = value
    table = {
        "from": "PyPI, kolla-ansible",
        "releases": releases,
        "names": sorted(names),
        "values": dict(sorted(values.items())),
        "defaults": {name: sorted(found) for name, found in sorted(fingerprints.items())},
    }
    json.dump(table, sys.stdout, indent=0)
    print()


if __name__ == "__main__":
    main(sys.argv[1:])

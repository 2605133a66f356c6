#!/usr/bin/python
"""Ansible module: a directory holds exactly these files. Shows what changes, with secrets masked; each file is replaced
whole, after all of them are written and synced. What nobody here knows of stays."""

import base64
import hashlib
import os
import re
import tempfile

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: xloud_config
short_description: the configuration files of the image service on a node
options:
  directory: {type: path, required: true}
  files: {type: dict, required: true, description: path → mode}
  contents: {type: dict, required: true, description: path → base64}
  owner: {type: int, default: -1, description: 'user and group id of the files; -1: of whoever writes them'}
"""
LIST = ".files"
SECRET = re.compile(
    r"^(?P<name>\s*(?:connection|transport_url|key|\S*(?:password|secret|_key|store_user)\S*)\s*=\s*).*$", re.MULTILINE
)


def masked(path, data):
    """A file as it may be shown."""
    if path.endswith(".keyring"):
        return "(a key)\n"
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "(no text)\n"

    def hide(match):
        return f"{match['name']}*** ({hashlib.sha256(match[0].encode()).hexdigest()[:8]})"

    return SECRET.sub(hide, text)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def same(path, data, mode, owner):
    try:
        found = os.stat(path)
    except OSError:
        return False
    owned = owner in (-1, found.st_uid) and owner in (-1, found.st_gid)
    return read(path) == data and found.st_mode & 0o7777 == mode and owned


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "contents": {"type": "dict", "required": True, "no_log": True},
            "owner": {"type": "int", "default": -1},
        },
        supports_check_mode=True,
    )
    directory, owner = module.params["directory"], module.params["owner"]
    contents = module.params["contents"]
    wanted = {
        path: (base64.b64decode(contents[path]), int(str(mode), 8)) for path, mode in module.params["files"].items()
    }
    if any(path.startswith("/") or ".." in path.split("/") for path in wanted):
        module.fail_json(msg="a path leaves the directory")
    ours = (read(os.path.join(directory, LIST)) or b"").decode().split("\n")
    gone = [path for path in ours if path and path not in wanted and os.path.exists(os.path.join(directory, path))]
    changed = [
        path for path, (data, mode) in wanted.items() if not same(os.path.join(directory, path), data, mode, owner)
    ]
    diff = [
        {
            "before_header": os.path.join(directory, path),
            "after_header": os.path.join(directory, path),
            "before": masked(path, read(os.path.join(directory, path)) or b""),
            "after": masked(path, wanted[path][0]) if path in wanted else "",
        }
        for path in (*changed, *gone)
    ]
    if (changed or gone) and not module.check_mode:
        try:
            write(directory, owner, wanted, changed, gone)
        except OSError as error:
            module.fail_json(msg=f"{error.filename} cannot be written: {error.strerror}; the files are as they were")
    module.exit_json(changed=bool(changed or gone), diff=diff, written=changed, removed=gone)


def write(directory, owner, wanted, changed, gone):
    folder(directory, owner)
    ready = {}
    try:
        for path in (*changed, LIST):
            data, mode = wanted.get(path) or ("\n".join(sorted(wanted)).encode(), 0o640)
            target = os.path.join(directory, path)
            folder(os.path.dirname(target), owner)
            handle, name = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(target))
            ready[target] = name
            with os.fdopen(handle, "wb") as file:
                os.fchmod(handle, mode)
                os.fchown(handle, owner, owner)
                file.write(data)
                file.flush()
                os.fsync(handle)
        for target, name in list(ready.items()):
            os.replace(name, target)
            del ready[target]
        for path in gone:
            os.unlink(os.path.join(directory, path))
    finally:
        for name in ready.values():
            if os.path.exists(name):
                os.unlink(name)


def folder(path, owner):
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o750)
        os.chown(path, owner, owner)


if __name__ == "__main__":
    main()

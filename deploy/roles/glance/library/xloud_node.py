#!/usr/bin/python
"""Ansible module: what must hold on a node before the image service is deployed there. All that is wrong, in one list.

It changes one thing only, and not in check mode: a directory for images that is empty, or owned by a user that guides
name for it, is handed to the service's own user. It never writes into a directory that ought to be a mount and is not.
"""

import errno
import json
import os
import shutil
import socket
import time

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: xloud_node
short_description: checks of a node before the image service is deployed on it
options:
  facts: {type: dict, required: true, description: deployment.json}
  engine: {type: str}
  config: {type: path, required: true}
  now: {type: float, required: true, description: seconds since 1970 on the control host when the task began}
  skew: {type: float, default: 5.0}
  room: {type: int, default: 1073741824, description: bytes that the disks of images and configuration must have}
"""


def port(api, running):
    """The port is free, or ours."""
    if running:
        return []
    family = socket.AF_INET6 if ":" in api["address"] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((api["address"], api["port"]))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return [f"port {api['port']} of {api['address']} is taken by another process: ss -ltnp 'sport = "
                        f":{api['port']}' names it; or set glance_api_port"]  # fmt: skip
            return [f"{api['address']} port {api['port']} cannot be listened on: {error.strerror}; "
                    "set api_interface_address"]  # fmt: skip
    return []


def in_fstab(path):
    try:
        with open("/etc/fstab") as file:
            places = {line.split()[1].rstrip("/") for line in file if len(line.split()) > 1 and line[0] != "#"}
    except OSError:
        return False
    return path.rstrip("/") in places


def directory(one, facts, check):
    """What is wrong with a directory of images, and whether it was handed over."""
    path, owner = one["path"], facts["owner"]
    must = one["mount"] if one["mount"] is not None else in_fstab(path)
    if not os.path.isdir(path):
        return [f"{path} does not exist; type: mkdir -p {path} && chown {owner}:{owner} {path}"], False
    if must and not os.path.ismount(path):
        return [f"{path} should be a mount and is none: nothing is written there; type: mount {path} (or set "
                'glance_datadir_is_mount: "no")'], False  # fmt: skip
    found = os.stat(path)
    if found.st_uid == owner:
        return [], False
    if not os.listdir(path) or found.st_uid in facts["former_owners"]:
        if not check:
            for folder, _, names in os.walk(path):
                for name in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(name, owner, owner, follow_symlinks=False)
        return [], True
    return [f"{path} belongs to user {found.st_uid} and holds files; the service is user {owner}: "
            f"type: chown -R {owner}:{owner} {path}"], False  # fmt: skip


def room(paths, least):
    found = []
    for path in paths:
        while not os.path.exists(path):
            path = os.path.dirname(path)
        free = shutil.disk_usage(path).free
        if free < least:
            found.append(f"{path} has {free >> 20} MiB of room; {least >> 20} MiB are wanted")
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "facts": {"type": "dict", "required": True},
            "engine": {"type": "str", "default": ""},
            "config": {"type": "path", "required": True},
            "now": {"type": "float", "required": True},
            "skew": {"type": "float", "default": 5.0},
            "room": {"type": "int", "default": 1 << 30},
        },
        supports_check_mode=True,
    )
    p, arrived = module.params, time.time()
    facts = p["facts"]
    problems = [f"missing: {one}" for one in facts["missing"]]
    engine = p["engine"] or next((one for one in ("podman", "docker") if shutil.which(one)), "")
    running, volumes = False, []
    if not engine or not shutil.which(engine):
        problems.append(f"{p['engine'] or 'neither podman nor docker'} is not installed; type: apt-get install podman")
    else:
        code, out, _ = module.run_command([engine, "container", "inspect", facts["container"]["name"]])
        running = code == 0 and json.loads(out)[0]["State"]["Running"]
        code, out, err = module.run_command([engine, "info", "--format", "json"])
        if code:
            problems.append(f"{engine} does not work here: {err.strip()[-300:]}")
        elif engine == "podman":
            volumes = [json.loads(out).get("store", {}).get("volumePath", "")]
    problems += port(facts["api"], running)
    changed = False
    for one in facts["directories"]:
        wrong, handed = directory(one, facts, module.check_mode)
        problems += wrong
        changed = changed or handed
    places = [p["config"], *filter(None, volumes), *(one["path"] for one in facts["directories"])]
    problems += room(dict.fromkeys(places), p["room"])
    # the time of the control host was taken before the module travelled here: only what cannot be travelling counts
    ahead = arrived - p["now"]
    if ahead < -p["skew"] or ahead > 120 + p["skew"]:
        problems.append(f"the clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the control host's: "
                        "tokens would be refused; let chrony set both")  # fmt: skip
    if problems:
        module.fail_json(msg="this node is not ready:\n- " + "\n- ".join(problems), problems=problems, changed=changed)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()

#!/usr/bin/python
"""Ansible module: the container of the image service is as described, by the command line of podman or docker.

A container carries a hash of its image and description as a label: another hash makes it anew, and nothing else does.
A changed file makes the service read its configuration again (SIGHUP), another address restarts it. What a container
has taken is written beside its configuration, so that a run that broke off half-way is finished by the next one.
Transfers under way get `graceful_timeout` in each case. It waits until the service answers, and puts the former
container back when a new one does not. A service that was away is given the balancers' time to be seen again, so that
the next node may go.
"""

import hashlib
import json
import os
import shutil
import time
import urllib.request

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: xloud_container
short_description: the container of the image service
options:
  state: {type: str, choices: [started, stopped, absent, once], default: started}
  engine: {type: str, description: podman or docker; empty takes what is there}
  container: {type: dict, required: true, description: as deployment.json has it}
  api: {type: dict, description: address, port, health}
  config: {type: path, description: the directory that is mounted at /etc/glance}
  commands:
    type: list
    elements: dict
    description: >-
      what a run that ends does (state once), one after the other; of each its name, its words, whether it must succeed
      (else the others are run all the same), and secrets, its own environment. Answers by name: rc, stdout, stderr, msg.
  volumes: {type: bool, default: false, description: 'with state absent, remove named volumes too'}
  patience: {type: int, default: 60, description: seconds until the service must answer}
  notice: {type: int, default: 0, description: seconds that balancers need to see that it answers again}
"""
LABEL = "xloud.image.hash"


class Engine:
    """One engine's command line."""

    def __init__(self, module, name):
        self.module = module
        self.name = name or next((one for one in ("podman", "docker") if shutil.which(one)), "")
        if not self.name or not shutil.which(self.name):
            module.fail_json(msg=f"{name or 'neither podman nor docker'} is not installed on this node")

    def run(self, *words, check=True, environ=None):
        code, out, err = self.module.run_command(
            [self.name, *map(str, words)], environ_update=environ or {}, check_rc=False
        )
        if code and check:
            self.module.fail_json(msg=f"{self.name} {words[0]}: {(err or out).strip()}", rc=code)
        return code, out, err

    def inspect(self, name):
        code, out, _ = self.run("container", "inspect", name, check=False)
        return json.loads(out)[0] if code == 0 else None

    def image(self, name):
        """The id of an image, fetched when it is not here."""
        code, out, _ = self.run("image", "inspect", "--format", "{{.Id}}", name, check=False)
        if code:
            code, _, err = self.run("pull", "--quiet", name, check=False)
            if code:
                self.module.fail_json(
                    msg=f"the image {name} is not on this node and cannot be fetched: {err.strip()[-300:]}; build it "
                    "here (deploy/build-image), or name another (glance_api_image_full)"
                )
            out = self.run("image", "inspect", "--format", "{{.Id}}", name)[1]
        return out.strip()


def arguments(spec, config):
    """What every run of the container gets."""
    words = ["--network", "host", "--user", spec["user"], "-v", f"{config}:/etc/glance:ro"]
    if os.path.isdir(os.path.join(config, "ceph")):
        words += ["-v", f"{os.path.join(config, 'ceph')}:/etc/ceph:ro"]
    for volume in spec["volumes"]:
        words += ["-v", volume]
    if spec.get("privileged"):
        words += ["--privileged"]
    else:
        words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    dimensions = spec.get("dimensions") or {}
    for option, flag in (("mem_limit", "--memory"), ("cpus", "--cpus"), ("pids_limit", "--pids-limit")):
        if dimensions.get(option):
            words += [flag, dimensions[option]]
    for name, limit in (dimensions.get("ulimits") or {}).items():
        both = f"{limit['soft']}:{limit['hard']}" if isinstance(limit, dict) else limit
        words += ["--ulimit", f"{name}={both}"]
    return words


def service(spec, api):
    """What only the service itself gets."""
    health = spec["health"]
    words = ["--restart", "unless-stopped", "--stop-timeout", spec["stop_timeout"]]
    if health["enabled"]:
        ask = f"import urllib.request as u; u.urlopen('{api['health']}', timeout={health['timeout']})"
        words += ["--health-cmd", f'/opt/xloud-image/bin/python -c "{ask}"']
        for option, flag in (("interval", "interval"), ("timeout", "timeout"), ("start_period", "start-period")):
            words += [f"--health-{flag}", f"{health[option]}s"]
        words += ["--health-retries", health["retries"]]
    else:
        words += ["--no-healthcheck"]
    return words


def answers(url, seconds):
    """Whether the service says that it is well, within so many seconds."""
    end = time.monotonic() + seconds
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end:
        try:
            with opener.open(url, timeout=5) as answer:
                if answer.status == 200:
                    return True
        except OSError:
            pass
        time.sleep(0.5)
    return False


def digest(config):
    """Of every file in the configuration directory."""
    found = hashlib.sha256()
    for folder, folders, names in os.walk(config):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not name.startswith("."):
                with open(path, "rb") as file:
                    found.update(f"{os.path.relpath(path, config)}\0".encode() + file.read() + b"\0")
    return found.hexdigest()


def taken(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def remember(path, what):
    with open(f"{path}.new", "w") as file:
        json.dump(what, file)
    os.replace(f"{path}.new", path)


def started(module, engine):
    p = module.params
    spec, api, config, name = p["container"], p["api"], p["config"], p["container"]["name"]
    id_ = engine.image(spec["image"])
    words = [*map(str, arguments(spec, config)), *map(str, service(spec, api))]
    # our own stops name their time, so another `graceful_timeout` alone is no reason for a new container
    fixed = [word for n, word in enumerate(words) if "--stop-timeout" not in (word, words[n - 1])]
    wanted = hashlib.sha256(json.dumps([id_, fixed]).encode()).hexdigest()
    there = engine.inspect(name)
    running = bool(there and there["State"]["Running"])
    has = ((there or {}).get("Config", {}).get("Labels") or {}).get(LABEL)
    note = f"{config}.taken"
    now = {"files": digest(config), "address": f"{api['address']} {api['port']}"}
    before = taken(note)
    if there is None:
        action = "created"
    elif has != wanted:
        action = "recreated"
    elif not running:
        action = "started"
    elif before.get("address") != now["address"]:
        action = "restarted"
    elif before.get("files") != now["files"]:
        action = "reloaded"
    else:
        action = ""
    if module.check_mode or not action:
        module.exit_json(changed=bool(action), action=action or "none")
    former = f"{name}_former"

    def put_back():
        engine.run("rm", "-f", "-t", "0", name, check=False)
        engine.run("rename", former, name)
        engine.run("start", name)

    if action in ("created", "recreated"):
        engine.run("rm", "-f", former, check=False)
        if there is not None:
            engine.run("stop", "-t", spec["stop_timeout"], name)
            engine.run("rename", name, former)
        made = ("run", "-d", "--name", name, "--label", f"{LABEL}={wanted}", *words, spec["image"])
        code, out, err = engine.run(*made, check=False)
        if code:
            if action == "recreated":
                put_back()
            module.fail_json(msg=f"the container cannot be started: {(err or out).strip()[-3000:]}")
    elif action == "started":
        engine.run("start", name)
    elif action == "restarted":
        engine.run("restart", "-t", spec["stop_timeout"], name)
    else:
        engine.run("kill", "--signal", "HUP", name)
        time.sleep(1)
    if not answers(api["health"], p["patience"]):
        log = engine.run("logs", "--tail", "20", name, check=False)
        text = f"the service does not answer at {api['health']} after {p['patience']} s"
        if action == "recreated":
            put_back()
            text += "; the former container runs again"
        module.fail_json(msg=f"{text}. Its last words:\n{(log[1] + log[2])[-3000:]}")
    engine.run("rm", "-f", former, check=False)
    remember(note, now)
    if action != "reloaded":
        time.sleep(p["notice"])
    module.exit_json(changed=True, action=action)


def once(module, engine):
    """Run commands of the image with this configuration, to their end, in one container."""
    p = module.params
    if module.check_mode:
        module.exit_json(changed=False, answers={}, skipped=True)
    engine.image(p["container"]["image"])
    words, secrets, batch = ["run", "--rm"], {}, []
    for number, command in enumerate(p["commands"]):
        own = {}
        for key, value in (command.get("secrets") or {}).items():
            own[key] = f"XLOUD_IMAGE_SECRET_{number}_{key}"
            secrets[own[key]] = str(value)
            words += ["-e", own[key]]  # from our own environment: nobody reads it in a list of processes
        batch.append({"words": command["words"], "must": command.get("must", False), "environment": own})
    code, out, err = engine.run(
        *words, *arguments(p["container"], p["config"]), p["container"]["image"], "batch", json.dumps(batch),
        check=False, environ=secrets,
    )  # fmt: skip
    if code:
        module.fail_json(msg=f"{p['container']['image']}: {(err or out).strip()}", rc=code, stdout=out, stderr=err)
    said, changed = {}, False
    for command, done in zip(p["commands"], json.loads(out)):
        done["msg"] = f"{' '.join(command['words'])}: {(done['stderr'] or done['stdout']).strip()}"
        said[command["name"]] = done
        changed = changed or "changed:" in done["stdout"]
        if done["rc"] and command.get("must"):
            module.fail_json(changed=changed, answers=said, **done)
    module.exit_json(changed=changed, answers=said)


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "stopped", "absent", "once"], "default": "started"},
            "engine": {"type": "str", "default": ""},
            "container": {"type": "dict", "required": True},
            "api": {"type": "dict"},
            "config": {"type": "path", "default": ""},
            "commands": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "words": {"type": "list", "elements": "str", "required": True},
                    "must": {"type": "bool", "default": False},
                    "secrets": {"type": "dict", "no_log": True},
                },
            },
            "volumes": {"type": "bool", "default": False},
            "patience": {"type": "int", "default": 60},
            "notice": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    p = module.params
    engine = Engine(module, p["engine"])
    if p["state"] == "started":
        started(module, engine)
    if p["state"] == "once":
        once(module, engine)
    name = p["container"]["name"]
    there = engine.inspect(name)
    running = bool(there and there["State"]["Running"])
    changed = running if p["state"] == "stopped" else there is not None
    if running and not module.check_mode:
        engine.run("stop", "-t", p["container"]["stop_timeout"], name)
    if p["state"] == "absent":
        if there and not module.check_mode:
            engine.run("rm", "-f", name)
        for volume in p["container"]["named_volumes"] if p["volumes"] else ():
            if engine.run("volume", "inspect", volume, check=False)[0] == 0:
                changed = True
                if not module.check_mode:
                    engine.run("volume", "rm", volume)
        if p["config"] and os.path.exists(f"{p['config']}.taken") and not module.check_mode:
            os.unlink(f"{p['config']}.taken")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()

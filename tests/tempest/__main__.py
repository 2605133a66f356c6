"""Starts Keystone, a web server and the service, and runs Tempest against them; exit 1 when a test failed that is not
known to, or passed that was. Counts and reasons stand at the end.
"""

import argparse
import configparser
import contextlib
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.keystone import REGION, USERS, Keystone
from tests.servers.place import HOST, environment, free_port, new_directory, program
from tests.servers.process import Process, answers
from tests.servers.service import Service
from tests.tempest import KNOWN, WHAT

ENVIRONMENT = ".venv-tempest"
_LINE = re.compile(r"^\{\d+\} (?P<name>.+?) (?:\[[\d.]+s\] )?\.\.\. (?P<state>ok|FAILED|SKIPPED)(?:: (?P<reason>.*))?$")


def service(folder: Path, keystone: Keystone, port: int) -> Service:
    """With two stores to write and one to read, all ways of import, and everything shown."""
    return Service(
        {
            "DEFAULT": {
                "enabled_backends": "files:file,more:file,web:http",
                "show_multiple_locations": True,
                "show_image_direct_url": True,
                "enabled_import_methods": "[glance-direct,web-download,copy-image]",
            },
            "more": {"filesystem_store_datadir": folder / "more"},
            "os_glance_staging_store": {"filesystem_store_datadir": folder / "staging"},
            "import_filtering_opts": {"allowed_hosts": f"[{HOST}]", "allowed_ports": f"[{port}]"},
            "xloud": {"job_workers": 1},
            **keystone.sections(),
        }
    )


def configure(folder: Path, keystone: Keystone, port: int) -> None:
    """The tempest.conf of `folder`."""
    admin = USERS["admin"]
    sections: dict[str, dict[str, Any]] = {
        "DEFAULT": {"log_file": "tempest.log"},
        "auth": {
            "use_dynamic_credentials": True,
            "create_isolated_networks": False,
            "admin_username": admin.name,
            "admin_password": admin.password,
            "admin_project_name": admin.project,
            "admin_domain_name": "Default",
        },
        "identity": {"uri_v3": keystone.url, "auth_version": "v3", "region": REGION, "v3_endpoint_type": "public"},
        "service_available": {
            "glance": True, "nova": False, "cinder": False, "neutron": False, "swift": False, "horizon": False
        },
        "image": {
            "http_image": f"http://{HOST}:{port}/image.raw",
            "http_qcow2_image": f"http://{HOST}:{port}/image.qcow2",
            "disk_formats": "qcow2,raw,ami,ari,aki,vhd,vmdk,vdi,iso,vhdx",
            "build_interval": 1,
        },
        "image-feature-enabled": {"import_image": True, "manage_locations": True, "http_store_enabled": True},
        "enforce_scope": {"glance": True},
        "oslo_concurrency": {"lock_path": folder / "lock"},
    }  # fmt: skip
    parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
    for name, options in sections.items():
        parser[name] = {key: str(value) for key, value in options.items()}
    (folder / "etc").mkdir(exist_ok=True)
    with (folder / "etc" / "tempest.conf").open("w") as file:
        parser.write(file)


@contextlib.contextmanager
def web(folder: Path) -> Iterator[int]:
    """A web server with two images; its port."""
    port, files = free_port(), folder / "web"
    files.mkdir()
    (files / "image.raw").write_bytes(os.urandom(1 << 20))
    qemu = program("qemu-img", "qemu-utils")
    subprocess.run([qemu, "create", "-q", "-f", "qcow2", files / "image.qcow2", "16M"], check=True)
    words = [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "--directory", str(files)]
    process = Process("web", words, log=folder / "web.log", directory=files)
    try:
        process.wait_for(lambda: answers(f"http://{HOST}:{port}/"))
        yield port
    finally:
        process.kill()


def workspace(folder: Path) -> Path:
    """A new folder that Tempest takes as its own."""
    work = folder / "workspace"
    words = [environment(ENVIRONMENT, "tempest"), "init", work]
    subprocess.run(words, check=True, capture_output=True, env={**os.environ, "HOME": str(folder)})
    return work


def run(folder: Path, what: str) -> tuple[dict[str, tuple[str, str]], str]:
    """Every test's state and reason, by name; all that was printed."""
    tempest = environment(ENVIRONMENT, "tempest")
    quiet = {"PYTHONWARNINGS": "ignore", "PATH": f"{tempest.parent}:{os.environ['PATH']}"}
    surroundings = {**os.environ, **quiet, "HOME": str(folder)}
    command = [tempest, "run", "--regex", what, "--concurrency", "2"]
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    found = {}
    for line in text.splitlines():
        if match := _LINE.match(line):
            found[match["name"]] = (match["state"], match["reason"] or "")
    return found, text


def main() -> int:
    """The whole run."""
    parser = argparse.ArgumentParser(prog="python -m tests.tempest", description=__doc__)
    parser.add_argument("--only", default=WHAT, metavar="REGEX", help="these tests only")
    parser.add_argument("--log", type=Path, help="where all that Tempest prints goes")
    options = parser.parse_args()
    folder = new_directory("tempest")
    with contextlib.ExitStack() as stack:
        keystone = Keystone()
        stack.callback(keystone.close)
        keystone.start()
        port = stack.enter_context(web(folder))
        (folder / "staging").mkdir()
        (folder / "more").mkdir()
        one = service(folder, keystone, port)
        stack.callback(one.kill)
        one.start()
        one.run("metadefs", "load")
        keystone.set_image_url(one.url)
        work = workspace(folder)
        configure(work, keystone, port)
        found, text = run(work, options.only)
        code = one.stop()
    if options.log:
        options.log.write_text(text)
        options.log.with_suffix(".service").write_text(one.log)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return report(found, text, code, usage.ru_utime + usage.ru_stime, "Traceback" in one.log)


def report(found: dict[str, tuple[str, str]], text: str, code: int, seconds: float, traceback: bool) -> int:
    """Print what came of it; the exit code."""
    wrong = []
    if not found:
        print(text[-8000:])
    for name, (state, _) in sorted(found.items()):
        known = next((why for part, why in KNOWN.items() if name.endswith(part)), None)
        if state == "FAILED" and known is None:
            wrong.append(f"failed: {name}")
        elif state == "FAILED":
            print(f"failed, as known: {name}: {known}")
        elif state == "ok" and known is not None:
            wrong.append(f"passed, and stands among those that do not: {name}")
    skipped = Counter(
        re.sub(r"^\S+ skipped", "… skipped", reason) for state, reason in found.values() if state == "SKIPPED"
    )
    for reason, count in skipped.most_common():
        print(f"skipped, {count}: {reason}")
    for line in wrong:
        print(line)
    states = Counter(state for state, _ in found.values())
    print(f"{states['ok']} passed, {states['FAILED']} failed, {states['SKIPPED']} skipped; {seconds:.0f} s of CPU")
    if code or traceback:
        print(f"the service ended with {code}{', and logged a traceback' if traceback else ''}")
    return int(bool(wrong or code or traceback or not found))


if __name__ == "__main__":
    sys.exit(main())

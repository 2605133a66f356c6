"""Runs `make install` and `make run` in a clone, as a person would, and looks at what comes of it.

For the Python of a bare Debian 12: standard library only. Started in the clone by `tests/install/prove`;
ends with code 1 and a sentence when a promise is broken.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

CHUNK = 1 << 20
SIZE = 64 * CHUNK


def promise(kept: bool, sentence: str) -> None:
    if not kept:
        sys.exit(f"drive: broken: {sentence}")
    print(f"drive: {sentence}", flush=True)


def make(*words: str) -> float:
    begun = time.monotonic()
    code = subprocess.run(["make", *words], check=False).returncode
    if code:
        sys.exit(f"drive: broken: make {' '.join(words)} ended with {code}")
    return time.monotonic() - begun


def install() -> None:
    seconds = make("install")
    promise(Path(".venv/bin/xloud-image").is_file(), f"make install took {seconds:.0f} s")
    again = make("install")
    promise(again < 1, f"a second make install took {again:.2f} s")
    subprocess.run([".venv/bin/python", "-m", "pip", "check"], check=True)


def call(method: str, url: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        content: bytes = answer.read()
        return content


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Run:
    """`make run` in a terminal of its own."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._output = Path(f"run-{time.monotonic_ns()}.log")
        with self._output.open("wb") as output:
            self._make = subprocess.Popen(
                ["make", "run", f"PORT={port}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        begun = time.monotonic()
        while True:
            try:
                call("GET", f"{self.url}/healthcheck")
                break
            except (urllib.error.URLError, OSError):
                if self._make.poll() is not None or time.monotonic() - begun > 60:
                    sys.exit(f"drive: broken: make run does not answer:\n{self.output()}")
                time.sleep(0.1)
        print(f"drive: make run answers after {time.monotonic() - begun:.1f} s", flush=True)

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def interrupt(self) -> None:
        """Ctrl-C: SIGINT to everything in the foreground of the terminal."""
        begun = time.monotonic()
        os.killpg(self._make.pid, signal.SIGINT)
        try:
            code = self._make.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._make.pid, signal.SIGKILL)
            sys.exit(f"drive: broken: it still runs 20 s after Ctrl-C:\n{self.output()}")
        seconds = time.monotonic() - begun
        promise("Traceback" not in self.output(), f"it ended {seconds:.1f} s after Ctrl-C, make with code {code}")
        promise(not listens(self._port), "nothing listens any more")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def main() -> None:
    install()
    if sys.argv[1:] == ["install"]:
        return
    port = free_port()
    run = Run(port)
    said = run.output()
    promise("openstack" in said and "image create" in said, "it prints the client commands to try")
    data = os.urandom(SIZE)
    wanted = hashlib.sha256(data).hexdigest()
    description = {"name": "proof", "disk_format": "raw", "container_format": "bare"}
    image = json.loads(call("POST", f"{run.url}/v2/images", json.dumps(description).encode()))
    path = f"/v2/images/{image['id']}"
    call("PUT", f"{run.url}{path}/file", data, "application/octet-stream")
    shown = json.loads(call("GET", run.url + path))
    promise(shown["status"] == "active" and shown["size"] == SIZE, "an uploaded image is active and has its size")
    got = hashlib.sha256(call("GET", f"{run.url}{path}/file")).hexdigest()
    promise(got == wanted, "the downloaded image has the same sha256")
    run.interrupt()
    promise(Path("state").is_dir(), "the state is in ./state")
    run = Run(port)
    got = hashlib.sha256(call("GET", f"{run.url}{path}/file")).hexdigest()
    promise(got == wanted, "after another start the image is still there")
    call("DELETE", run.url + path)
    run.interrupt()
    status = subprocess.run(["git", "status", "--porcelain"], text=True, capture_output=True, check=True).stdout
    others = [line for line in status.splitlines() if not line.startswith("?? run-")]
    promise(not others, "git sees no file that is not its own")
    print(said)


if __name__ == "__main__":
    main()

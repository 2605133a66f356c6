"""Programs of Python, imported once, which costs each of them a second at its start.

    python imported.py serve SOCKET SET               for ever; by the Python of the programs' environment
    python imported.py call SOCKET PROGRAM [WORDS]    one command, by any Python: its streams, folder and environment
                                                      are the caller's, its code too, and it ends with its caller

A command is a fork of the first process that runs the program's own `main`, in a session of its own. Nothing of the
tests is imported here. `ask` is the other end, for both.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import json
import os
import selectors
import signal
import site
import socket
import struct
import sys
from pathlib import Path
from typing import Any

# by set: the module of each program
SETS = {
    "clients": {
        "openstack": "openstackclient.shell",
        "glance": "glanceclient.shell",
        "callers": "tests.clients.callers",
    },
    "clients-2022": {"glance": "glanceclient.shell", "callers": "tests.clients.callers"},
    "service": {
        "xloud-image": "xloud_image.cli",
        "glance-cache-manage": "xloud_image.cli.glance_cache",
        "glance-cache-prefetcher": "xloud_image.cli.glance_cache",
    },
}
# what every command loads by its name, after it has begun
LATER = {
    "clients": (
        "keystoneauth1.extras.kerberos",
        "keystoneauth1.http_basic",
        "keystoneauth1.loading._plugins.http_basic",
        "keystoneauth1.loading._plugins.noauth",
        "keystoneauth1.token_endpoint",
        "openstackclient.image.client",
        "openstackclient.image.v2.image",
        "openstackclient.identity.client",
        "openstack.connection",
        "glanceclient.v2.client",
        "glanceclient.v2.shell",
    ),
    # not the module with its commands: it reads a file in the home folder when it is imported
    "clients-2022": ("keystoneauth1.token_endpoint", "glanceclient.v2.client"),
    "service": (
        "xloud_image.cli.ready",
        "xloud_image.config.check",
        "xloud_image.config.loader",
        "xloud_image.db.schema",
        "xloud_image.api.info",
        "xloud_image.api.listing",
        "xloud_image.api.openapi",
        "xloud_image.services.ingest",
        "xloud_image.client.sending",
        "keystoneauth1.extras.kerberos",
        "keystoneauth1.http_basic",
        "keystoneauth1.loading._plugins.http_basic",
        "keystoneauth1.loading._plugins.noauth",
        "keystoneauth1.token_endpoint",
        "requests",
    ),
}
# modules that look at the environment when they are imported: each command imports them, and what needs them, itself
OWN = {"clients": (), "clients-2022": (), "service": ("xloud_image.failpoints", "prometheus_client")}
# what leads to all libraries of the set, with those that are a command's own
ALL = {"clients": (), "clients-2022": (), "service": ("xloud_image.server",)}
# a command that loads what all of its set load, with an end that needs no server
USUAL = {
    "clients": ("openstack", "image", "list", "--help"),
    "clients-2022": (),
    "service": (),
}
_PR_SET_PDEATHSIG = 1


def serve(path: str, name: str) -> dict[str, Any]:
    """Fork for each connection; returns in the forked process alone, with what it was asked for."""
    sys.argv = ["openstack"]  # it reads its own name when it is imported
    _load(name)
    library = ctypes.CDLL(None)
    gc.collect()
    gc.freeze()
    running: dict[int, tuple[int, socket.socket]] = {}  # by descriptor of the process: its id, its caller
    with selectors.DefaultSelector() as waiting, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{path}.new")
        listening.listen()
        Path(f"{path}.new").rename(path)  # where it is found it can be asked
        waiting.register(listening, selectors.EVENT_READ)
        while True:
            key = waiting.select()[0][0]  # one at a time: what is done for it may end what the next one is about
            if key.fileobj is listening:
                connection, _ = listening.accept()
                try:
                    asked, streams = _receive(connection)
                except (OSError, ValueError, struct.error):  # the caller has gone
                    connection.close()
                    continue
                child = os.fork()
                if child == 0:
                    os.setsid()
                    library.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
                    with contextlib.suppress(OSError):
                        connection.sendall(struct.pack("!i", os.getpid()))
                    for process, (_, caller) in running.items():
                        os.close(process)
                        caller.close()
                    connection.close()
                    asked["streams"] = streams
                    return asked
                for stream in streams:
                    os.close(stream)
                process = os.pidfd_open(child)
                running[process] = child, connection
                waiting.register(process, selectors.EVENT_READ)
                waiting.register(connection, selectors.EVENT_READ, child)
            elif key.fd in running:
                child, connection = running.pop(key.fd)
                code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                with contextlib.suppress(OSError):
                    connection.sendall(struct.pack("!i", code))
                waiting.unregister(key.fd)
                os.close(key.fd)
                with contextlib.suppress(KeyError):
                    waiting.unregister(connection)
                connection.close()
            else:  # the caller has gone
                waiting.unregister(key.fileobj)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(key.data, signal.SIGKILL)


def _load(name: str) -> None:
    for module in (*SETS[name].values(), *LATER[name]):
        with contextlib.suppress(Exception):  # other releases have other names, and then load theirs later
            importlib.import_module(module)
    # a process that ends at once finds the libraries: it tells their names, without ours
    ours, theirs = os.pipe()
    if os.fork() == 0:
        for module in ALL[name]:
            importlib.import_module(module)
        if USUAL[name]:
            sys.argv = [*USUAL[name]]
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.suppress(SystemExit):
                importlib.import_module(SETS[name][sys.argv[0]]).main()
        own = tuple(f"{module}." for module in OWN[name])
        with os.fdopen(theirs, "w") as file:
            for module in sys.modules:
                if not f"{module}.".startswith(("xloud_image.", "__main__.", *own)):
                    file.write(f"{module}\n")
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as file:
        libraries = file.read().split()
    os.wait()
    for module in libraries:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    if name == "clients":
        with contextlib.suppress(
            Exception
        ):  # which package each module is of: they all ask, and read every package for it
            importlib.import_module("cliff.command")._get_distributions_by_modules()
    loaded = [module for module in OWN[name] if module in sys.modules]
    assert not loaded, f"{loaded} must not be imported before a command begins"


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    (size,) = struct.unpack("!I", head)
    text = b""
    while len(text) < size:
        block = connection.recv(size - len(text))
        if not block:
            raise OSError("the caller has gone")
        text += block
    return json.loads(text), streams


def become(asked: dict[str, Any]) -> Any:
    """This process is the program from now on; its `main`."""
    for number, stream in enumerate(asked["streams"]):
        os.dup2(stream, number)
        os.close(stream)
    os.umask(asked["umask"])
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = os.fdopen(0, closefd=False)
    output = os.fdopen(1, "wb", 0 if unbuffered else -1, closefd=False)
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(output, write_through=unbuffered, line_buffering=os.isatty(1))
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    sys.argv = [asked["program"], *asked["words"]]
    if more := os.environ.get("PYTHONPATH"):
        sys.path[:0] = more.split(os.pathsep)
        sys.modules.pop("sitecustomize", None)
        site.execsitecustomize()
    module = next(programs[asked["program"]] for programs in SETS.values() if asked["program"] in programs)
    return importlib.import_module(module).main


def ask(path: str, program: str, words: list[str], directory: str, environment: dict[str, str],
        streams: list[int]) -> socket.socket:  # fmt: skip
    """Start a program. The answers are the id of its process, then its code (negative: a signal), each as `receive`
    reads it; when the socket is closed before, the process is killed."""
    umask = os.umask(0o077)
    os.umask(umask)
    asked = {"program": program, "words": words, "directory": directory, "environment": environment, "umask": umask}
    text = json.dumps(asked).encode()
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        socket.send_fds(connection, [struct.pack("!I", len(text))], streams)
        connection.sendall(text)
    except OSError:
        connection.close()
        raise
    return connection


def receive(connection: socket.socket) -> int:
    """The next answer; OSError when there is none."""
    (number,) = struct.unpack("!i", _whole(connection))
    return int(number)


def _whole(connection: socket.socket) -> bytes:
    text = connection.recv(4, socket.MSG_WAITALL)
    if len(text) < 4:
        raise OSError("the process that forks has ended")
    return text


def call(path: str, program: str, words: list[str]) -> int:
    """One command; its code."""
    with ask(path, program, words, str(Path.cwd()), dict(os.environ), [0, 1, 2]) as connection:
        receive(connection)
        code = receive(connection)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        sys.exit(become(serve(*sys.argv[2:4]))())
    sys.exit(call(sys.argv[2], sys.argv[3], sys.argv[4:]))

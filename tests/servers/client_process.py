"""The programs `openstack` and `glance`, imported once, which costs each of them a second at its start.

    python client_process.py serve SOCKET             for ever; by the Python of the clients' environment
    python client_process.py SOCKET PROGRAM [WORDS]   one command, by any Python: its streams, folder and environment
                                                      are the caller's, its code too, and it ends with its caller

A command is a fork of the first process that runs the program's own `main`. Nothing of the tests is imported here.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path

PROGRAMS = {"openstack": "openstackclient.shell", "glance": "glanceclient.shell"}
# what every command loads by its name, after it has begun
LATER = (
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
)


def serve(path: str) -> None:
    """Fork for each connection."""
    sys.argv = ["openstack"]  # it reads its own name when it is imported
    for name in PROGRAMS.values():
        importlib.import_module(name)
    for name in LATER:
        with contextlib.suppress(Exception):  # other releases have other names, and then load theirs later
            importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _command(connection)
                os._exit(0)
            connection.close()


def _command(connection: socket.socket) -> None:
    """One command to its end; its code is sent as one byte."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    (size,) = struct.unpack("!I", head)
    text = b""
    while len(text) < size:
        text += connection.recv(size - len(text))
    asked = json.loads(text)
    child = os.fork()
    if child == 0:
        connection.close()
        _become(asked, streams)
    for stream in streams:
        os.close(stream)
    with contextlib.closing(os.fdopen(os.pidfd_open(child), "rb", buffering=0)) as ended:
        ready, _, _ = select.select([ended, connection], [], [])
        if ended not in ready:  # the caller has gone
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(bytes([code & 255]))


def _become(asked: dict, streams: list[int]) -> None:  # type: ignore[type-arg]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    code = 1
    try:
        os.chdir(asked["directory"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        sys.argv = [asked["program"], *asked["words"]]
        sys.exit(importlib.import_module(PROGRAMS[asked["program"]]).main())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code & 255)


def call(path: str, program: str, words: list[str]) -> int:
    """One command; its code."""
    asked = {"program": program, "words": words, "directory": str(Path.cwd()), "environment": dict(os.environ)}
    text = json.dumps(asked).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [struct.pack("!I", len(text))], [0, 1, 2])
        connection.sendall(text)
        return (connection.recv(1) or b"\1")[0]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    sys.exit(call(sys.argv[1], sys.argv[2], sys.argv[3:]))

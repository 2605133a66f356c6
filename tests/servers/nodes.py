"""Nodes of a deployment on one machine: each a network namespace with an address, a podman and forwards of its own.

What listens on this machine's loopback (databases, Keystone, Ceph) is met at the same address and port on the loopback
of every node, as servers expect that tell clients where they are. Nothing leaves the machine: the addresses are of the
network for measurements (RFC 2544), and each link ends here.
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.servers.haproxy import HAProxy
from tests.servers.place import HOST, Missing, new_directory, program
from tests.servers.podman import Podman
from tests.servers.process import Stuck, run

_PREFIX = "xi"
_SPACE = re.compile(rf"{_PREFIX}(\d+)n\d+")


class Node:
    """`name`, `address` and `podman` of a node; `python` is the path of a program that is its /usr/bin/python3."""

    def __init__(self, number: int, subnet: str, images: Podman) -> None:
        self.name = f"{_PREFIX}{os.getpid()}n{number}"
        # the two hosts of a /30
        self.gateway, self.address = f"{subnet}.{4 * number + 1}", f"{subnet}.{4 * number + 2}"
        self.directory = new_directory(f"node{number}")
        self.python = self.directory / "python3"
        # not `ip netns exec`: mounts of containers are to be seen by the next command as well
        self._enter = [program("nsenter", "util-linux"), f"--net=/run/netns/{self.name}", "--"]
        self.podman = Podman(images, enter=self._enter)

    def start(self) -> None:
        """Make namespace and link, and an empty podman."""
        ip("netns", "add", self.name)
        ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("addr", "add", f"{self.gateway}/30", "dev", self.name)
        ip("link", "set", self.name, "up")
        inside = ("-n", self.name)
        ip(*inside, "link", "set", "lo", "up")
        ip(*inside, "addr", "add", f"{self.address}/30", "dev", "eth0")
        ip(*inside, "link", "set", "eth0", "up")
        self.podman.start()
        words = shlex.join(f"{name}={value}" for name, value in self.podman.environment.items())
        self.python.write_text(f'#!/bin/sh\nexec {shlex.join(self._enter)} env {words} /usr/bin/python3 "$@"\n')
        self.python.chmod(0o755)

    def listens(self, port: int) -> bool:
        """Whether its loopback listens there."""
        local = int.from_bytes(socket.inet_aton(HOST), "little")
        return f" {local:08X}:{port:04X} 00000000:0000 0A " in run([*self._enter, "cat", "/proc/net/tcp"])

    def close(self) -> None:
        """Remove all of it: containers, their storage, processes, the namespace with its link."""
        try:
            self.podman.close()
        finally:
            remove(self.name)


class Nodes:
    """`count` nodes. `ports`: those of this machine's loopback that they see on their own."""

    def __init__(self, count: int, images: Podman, ports: Sequence[int]) -> None:
        subnet = _free_subnet()
        self.all = [Node(number, subnet, images) for number in range(1, count + 1)]
        every = [*itertools.product(self.all, dict.fromkeys(ports))]
        self._forwards = HAProxy(
            "".join(
                f"listen {node.name}-{port}\n    mode tcp\n    bind {HOST}:{port} namespace {node.name}\n"
                f"    server here {HOST}:{port}\n"
                for node, port in every
            ),
            ready=lambda: all(node.listens(port) for node, port in every),
        )

    def start(self) -> None:
        """Make them; raises `Missing` where no namespace can be made."""
        program("ip", "iproute2")
        if os.geteuid() != 0:
            raise Missing("nodes with networks of their own need root")
        _remove_left()
        for node in self.all:
            node.start()
        self._forwards.start()

    def close(self) -> None:
        """Remove them, as many as were made."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._forwards.close)
            for node in self.all:
                stack.callback(node.close)


def ip(*words: str) -> str:
    """One command of `ip`."""
    return run([program("ip", "iproute2"), *words])


def remove(name: str) -> None:
    """A namespace with everything that runs in it; nothing when it is not there."""
    if name not in _spaces():
        return
    for number in ip("netns", "pids", name).split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(number), signal.SIGKILL)
    with contextlib.suppress(Stuck):
        ip("link", "del", name)
    ip("netns", "del", name)


def _spaces() -> list[str]:
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()]


def _remove_left() -> None:
    """Those of sessions that were killed."""
    for name in _spaces():
        found = _SPACE.fullmatch(name)
        if found and not Path("/proc", found[1]).exists():
            remove(name)


def _free_subnet() -> str:
    """The first three bytes of addresses that no interface here has."""
    taken = {
        address["local"].rpartition(".")[0]
        for link in json.loads(ip("-j", "-4", "addr"))
        for address in link.get("addr_info", ())
    }
    begin = os.getpid()
    for number in range(begin, begin + 512):
        subnet = f"198.{18 + number % 2}.{number // 2 % 256}"
        if subnet not in taken:
            return subnet
    raise Missing("every network of 198.18.0.0/15 is in use here")

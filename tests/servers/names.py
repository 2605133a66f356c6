"""Names as a test wants them resolved, and hosts that all mean this machine."""

import socket
from typing import Any

SPELLINGS = """
    127.0.0.1 localhost LOCALHOST localhost. 127.0.0.1. 127.1 127.0.1 0x7f.1 0x7f.0.0.1 0X7F.0.0.1 0177.0.0.1
    2130706433 0x7f000001 017700000001 0 0.0.0.0 127.0.0.1.. 127.0.0.01 [::1] [::] [::ffff:127.0.0.1]
    [0:0:0:0:0:ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [fe80::1%25lo] [::ffff:7f00:1%25lo]
    127.0.0.1%00.example.org 127%2e0%2e0%2e1 %6c%6f%63%61%6c%68%6f%73%74
    \uff11\uff12\uff17.0.0.1 \u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3 127\u30020\u30020\u30021
    ip6-localhost
    """.split()


class Names:
    """Answers look-ups as told: one set of addresses after the other, the last one for ever. Real ones otherwise."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []

    def __call__(self, host: str, port: int, *how: Any) -> list[tuple[Any, Any, Any, Any, tuple[Any, ...]]]:
        self.asked.append(host)
        turns = self.answers.get(host)
        if turns is None:
            return list(socket.getaddrinfo(host, port, *how))
        found = turns.pop(0) if len(turns) > 1 else turns[0]
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found
        ]

"""Rounds of: several clients work, the service is killed at a random moment, starts again, and all is proved."""

import os
import random
import signal
import time
from collections.abc import Callable

from tests.crash import points
from tests.crash.client import Client, at_once
from tests.crash.ledger import Ledger
from tests.crash.proof import prove
from tests.servers.place import keep
from tests.servers.service import Service

CLIENTS = 4


class Rounds:
    """`seed` decides what the clients do and when the kill comes (not how the machine schedules it)."""

    def __init__(self, seed: int, *, say: Callable[[str], None] = lambda _: None) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.say = say
        self.ledger = Ledger()
        self.answered = 0
        self.service = Service(points.SETTINGS)

    def run(self, rounds: int) -> list[str]:
        """What went wrong, in sentences; stops at the first round in which something did."""
        self.service.start()
        try:
            for number in range(rounds):
                wrong = self._round(number)
                if wrong:
                    keep("a round failed")
                    return [f"seed {self.seed}, round {number}, see {self.service.directory}: {what}" for what in wrong]
            return prove(self.service, self.ledger)
        finally:
            self.service.kill()

    def _round(self, number: int) -> list[str]:
        clients = [Client(self.service.url, self.ledger, f"{self.seed} {number} {client}") for client in range(CLIENTS)]
        seconds = self.random.uniform(0.05, 0.8)
        whole = self.random.random() < 0.5
        at_once(clients, lambda: self._kill_after(seconds, whole=whole))
        answered = sum(client.answered for client in clients)
        self.answered += answered
        what = "everything" if whole else "one worker"
        self.say(f"round {number}: {what} killed after {seconds:.2f} s, {answered} answers")
        if whole:
            self.service.start()
        else:
            points.wait_until(lambda: len(points.workers(self.service)) == points.SETTINGS["DEFAULT"]["workers"])
        wrong = [what for client in clients for what in client.surprises]
        mine = [record for client in clients for record in client.mine]
        return wrong + prove(self.service, self.ledger, only=mine)

    def _kill_after(self, seconds: float, *, whole: bool) -> None:
        """All at once; or one worker, so that the others clean up behind it while clients go on."""
        time.sleep(seconds)
        if whole:
            self.service.kill()
            return
        os.kill(self.random.choice(sorted(points.workers(self.service))), signal.SIGKILL)
        time.sleep(seconds)

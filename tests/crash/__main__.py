"""`python -m tests.crash`: kill -9 at random moments, as many rounds as wanted, and the proof after each."""

import argparse
import sys
import time

from tests.crash.rounds import Rounds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="repeat a run; default: the time")
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    rounds = Rounds(asked.seed, say=lambda text: print(text, flush=True))
    wrong = rounds.run(asked.rounds)
    for what in wrong:
        print(what)
    images = rounds.ledger.records
    held = sum(record.data is not None and not record.deleted for record in images)
    print(f"{rounds.answered} answers, {len(images)} images, {held} with data: {'BROKEN' if wrong else 'all holds'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python -m tests.faults [--quick] [WORDS]`: every row (or those with WORDS), its answer and the right one."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from tests.faults import rows


def main() -> int:
    """The exit code: 1 when one is not right."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, as `make test` does it")
    parser.add_argument("words", nargs="*", help="only rows whose name has these words")
    given = parser.parse_args()
    chosen = [one for one in rows.everything() if all(word in one.name for word in given.words)]
    wrong = 0
    with rows.shared_servers() as server, contextlib.closing(rows.Usual()) as usual:
        for one in chosen:
            begun = time.monotonic()
            try:
                got = rows.run(one, server, usual, quick=given.quick)
            except Exception as error:  # noqa: BLE001 - a row that breaks is not right; the others go on
                got = f"{type(error).__name__}: {error}"
            right = one.is_right(got)
            wrong += not right
            print(f"{'right' if right else 'WRONG'}  {one.name}  ({time.monotonic() - begun:.1f} s)")
            print(f"       is:     {got}\n       should: {one.wanted}", flush=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

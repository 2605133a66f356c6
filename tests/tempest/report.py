"""What came of runs of Tempest, in words: counts, what was left out and why, and where two runs differ."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence

from tests.tempest import KNOWN
from tests.tempest.client import Result


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """Results by the tests' names; all that Tempest printed; what was wrong with the server at its end. `ours`: of our
    own service."""

    name: str
    found: Mapping[str, Result]
    text: str
    wrong: str
    ours: bool

    def state(self, test: str) -> str:
        """ok, FAILED, SKIPPED, or that it was not run."""
        return self.found[test].state if test in self.found else "not run"

    @property
    def counts(self) -> str:
        states = Counter(result.state for result in self.found.values())
        return f"{states['ok']} passed, {states['FAILED']} failed, {states['SKIPPED']} skipped"


def known(test: str) -> str | None:
    """Why a test is known to fail."""
    return next((why for part, why in KNOWN.items() if test.endswith(part)), None)


def _skipped(run: Run) -> list[str]:
    reasons = Counter(
        re.sub(r"^\S+ skipped", "… skipped", result.reason)
        for result in run.found.values()
        if result.state == "SKIPPED"
    )
    return [f"skipped, {count}: {reason}" for reason, count in reasons.most_common()]


def _wrong(run: Run) -> list[str]:
    """What makes a run of ours a failed one."""
    found = []
    for test, result in sorted(run.found.items()):
        if result.state == "FAILED" and known(test) is None:
            found.append(f"failed: {test}")
        if result.state == "ok" and known(test) is not None:
            found.append(f"passed, and stands among those that do not: {test}")
    return [*found, *([run.wrong] if run.wrong else []), *([] if run.found else [run.text[-8000:], "no test was run"])]


def _differences(ours: Run, other: Run) -> tuple[list[str], list[str]]:
    """Where two runs differ, and that of it which must not be."""
    told, wrong = [], []
    for test in sorted(set(ours.found) | set(other.found)):
        here, there = ours.state(test), other.state(test)
        if here == there:
            continue
        why = ours.found[test].reason if here == "SKIPPED" else other.found[test].reason if there == "SKIPPED" else ""
        line = f"{test}: {here} by {ours.name}, {there} by {other.name}{f' ({why})' if why else ''}"
        told.append(line)
        if there == "ok":
            wrong.append(f"passed by {other.name} and not by {ours.name}: {test}")
    return told, wrong


def report(runs: Sequence[Run]) -> int:
    """Print it; the exit code."""
    wrong: list[str] = []
    for run in runs:
        print(f"\n{run.name}")
        for line in _skipped(run):
            print(f"  {line}")
        for test, result in sorted(run.found.items()):
            if result.state == "FAILED":
                print(f"  failed{f', as known ({why})' if (why := known(test)) else ''}: {test}")
        wrong += [f"{run.name}: {line}" for line in _wrong(run)] if run.ours else []
        if not run.found and not run.ours:
            wrong.append(f"{run.name}: no test was run\n{run.text[-8000:]}")
    mine = [run for run in runs if run.ours]
    others = [run for run in runs if not run.ours]
    for other in others:
        told, must_not = _differences(mine[0], other)
        wrong += must_not
        print(f"\n{mine[0].name} and {other.name} differ in {len(told)} tests")
        for line in told:
            print(f"  {line}")
    if len(others) == 2:  # the same Glance before and after
        told, must_not = _differences(others[1], others[0])
        wrong += must_not
        print(f"\n{others[1].name} and {others[0].name} differ in {len(told)} tests")
        for line in told:
            print(f"  {line}")
    print()
    for line in wrong:
        print(f"WRONG: {line}")
    for run in runs:
        print(f"{run.name}: {run.counts}")
    return int(bool(wrong))

"""What was measured, as lines: a number of the peer, one of ours, what ours must reach. Table and JSON."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rich.console import Console

LOWER = "lower"
HIGHER = "higher"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One figure. `ratio`: how many times better ours is than the peer's (over 1: better)."""

    row: str
    work: str
    unit: str
    better: str
    peer: float | None
    ours: float | None
    ratio: float | None
    target: str
    met: bool | None
    note: str = ""


class Report:
    """The lines of a run, shown as they come. `steady`: the one aim of every line, as a ratio to the peer."""

    def __init__(self, console: Console, steady: float | None = None) -> None:
        self.lines: list[Line] = []
        self._steady = steady
        self._console = console

    def add(
        self,
        row: str,
        work: str,
        unit: str,
        better: str,
        *,
        peer: float | None = None,
        ours: float | None = None,
        times: float | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        target: str = "",
        note: str = "",
    ) -> Line:
        """Add a figure with its aim: `times` better than the peer, or a bound of its own, or none."""
        if self._steady is not None:
            times, at_most, at_least, target = self._steady, None, None, ""
        ratio = None
        if peer and ours:
            ratio = peer / ours if better == LOWER else ours / peer
        met: bool | None = None
        if times is not None:
            target = target or f"{times:g}× the peer"
            if ours is not None and peer is not None:
                met = ratio is not None and ratio >= times
        if at_most is not None:
            target = f"≤ {figure(at_most)}" + (f" ({target})" if target else "")
            if ours is not None:
                met = ours <= at_most and met is not False
        if at_least is not None:
            target = f"≥ {figure(at_least)}" + (f" ({target})" if target else "")
            if ours is not None:
                met = ours >= at_least and met is not False
        line = Line(row, work, unit, better, peer, ours, ratio, target, met, note)
        self.lines.append(line)
        self._console.print(
            f"  {row}: {work}: peer {figure(peer)}, ours {figure(ours)} {unit}"
            + (f", ×{ratio:.2f}" if ratio else "")
            + (f", aim {target}: {verdict(met)}" if target else "")
            + (f" [dim]({escape(note)})[/]" if note else ""),
            highlight=False,
        )
        return line

    def table(self) -> Table:
        """All lines, for a person."""
        table = Table(title="Image service beside its peers, one run")
        for name in ("row", "work"):
            table.add_column(name, overflow="fold")
        for name in ("peer", "ours"):
            table.add_column(name, justify="right")
        table.add_column("unit")
        table.add_column("ratio", justify="right")
        table.add_column("aim", overflow="fold")
        table.add_column("met")
        last = ""
        for line in self.lines:
            if last and line.row != last:
                table.add_section()
            table.add_row(
                line.row if line.row != last else "",
                line.work,
                figure(line.peer),
                figure(line.ours),
                line.unit,
                f"×{line.ratio:.2f}" if line.ratio else "",
                line.target,
                verdict(line.met),
            )
            last = line.row
        return table

    def write(self, path: Path, **about: Any) -> None:
        """All lines and what they were measured on, for a machine."""
        path.parent.mkdir(parents=True, exist_ok=True)
        known = [line.met for line in self.lines if line.met is not None]
        path.write_text(
            json.dumps(
                {
                    "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                    "machine": machine(),
                    **about,
                    "met": sum(known),
                    "missed": len(known) - sum(known),
                    "lines": [dataclasses.asdict(line) for line in self.lines],
                },
                indent=1,
                ensure_ascii=False,
            )
            + "\n"
        )


def figure(value: float | None) -> str:
    """A number with about three digits that mean something."""
    if value is None:
        return "–"
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"


def verdict(met: bool | None) -> str:
    """Yes, no, or nothing to say."""
    return "" if met is None else "[green]yes[/]" if met else "[bold red]NO[/]"


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(pages / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_end": os.getloadavg(),
    }


def revision() -> str:
    """The commit that was measured, with + when the tree differs from it."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "../src") else "")

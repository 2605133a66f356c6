"""`python -m bench`: measure, print a table, write `results/latest.json`. Exit 1 when an aim was missed.

The exit is 2 when a row could not be measured.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from bench.peers import Bare, Earlier, Everything, Glance, Ours
from bench.report import Report, revision
from bench.rows import BESIDE, ROWS
from bench.runs import Broken, Run
from tests.servers import Missing, Stuck

RESULTS = Path(__file__).parent / "results"
# per cent of a core that others (writing to the disk, too) may use before we speak of it
QUIET = 15
# no line may be worse than this share of what it was in the other checkout
STEADY = 0.95
# and none with everything on worse than this share of what it is with nothing
WITH_EVERYTHING = 1 / 1.15


def main() -> int:
    """Parse, prepare, run the rows, report."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROW", choices=ROWS, help="these rows only")
    parser.add_argument("--quick", action="store_true", help="small sizes, short loads: a look, no result")
    parser.add_argument("--peers-only", action="store_true", help="leave ours out")
    parser.add_argument(
        "--beside", type=Path, metavar="TREE", help="beside this service in another checkout (installed), not Glance"
    )
    parser.add_argument(
        "--with-everything",
        action="store_true",
        help="beside this service without them: quotas, Keystone's limits, a protection file, notifications",
    )
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--output", type=Path, default=RESULTS / "latest.json", help="where the JSON goes")
    parser.add_argument("--fail-missed", action="store_true", help="exit 1 when an aim was missed")
    options = parser.parse_args()
    console = Console() if sys.stdout.isatty() else Console(width=150)
    if options.list:
        for name, row in ROWS.items():
            console.print(f"[bold]{name:10}[/] {(row.__doc__ or '').splitlines()[0]}", highlight=False)
        return 0

    # as Ctrl-C, so that everything that was started is stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        _packages(console)
    except (subprocess.CalledProcessError, Missing) as error:
        console.print(f"[red]{error}[/]")
        return 2
    with_ours = not options.peers_only
    if with_ours and not Ours.installed():
        console.print("[yellow]ours is not installed (`make install`): only the peers are measured[/]")
        with_ours = False

    alone = bool(options.beside or options.with_everything)
    steady = STEADY if options.beside else WITH_EVERYTHING if options.with_everything else None
    report = Report(console, steady)
    run = Run(report, quick=options.quick, with_ours=with_ours)
    if options.beside:
        run.peer = Earlier
        Earlier.command = options.beside.resolve() / ".venv" / "bin" / "xloud-image"
    if options.with_everything:
        run.peer, run.kind = Bare, Everything
    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    others: dict[str, int] = {}
    interrupted = False
    with run.stack:
        for name in options.only or (BESIDE if alone else ROWS):
            console.print(f"[bold]{name}[/]: {(ROWS[name].__doc__ or '').splitlines()[0]}", highlight=False)
            began = time.perf_counter()
            try:
                ROWS[name](run)
            except (Broken, Missing, Stuck, OSError) as error:
                failed[name] = str(error)
                console.print(f"  [red]not measured:[/] {escape(str(error))}", highlight=False)
            except KeyboardInterrupt:
                interrupted = True
                console.print("interrupted: stopping what was started")
                break
            seconds[name] = round(time.perf_counter() - began, 1)
            if run.others:
                others[name] = round(100 * statistics.mean(run.others))
                if others[name] > QUIET:
                    console.print(f"  [yellow]others used {others[name]} % of a core meanwhile[/]")
            run.others.clear()
    console.print(report.table())
    for name, why in failed.items():
        console.print(f"{name} was not measured: {why}", markup=False, highlight=False)
    if interrupted:
        return 130
    report.write(
        options.output,
        revision=revision(),
        quick=options.quick,
        versions={} if alone else _versions(),
        beside=str(options.beside.name) if options.beside else None,
        seconds=seconds,
        others_percent_of_a_core=others,
        failed=failed,
    )
    console.print(f"written: {options.output}", highlight=False)
    if failed:
        return 2
    return int(options.fail_missed and any(line.met is False for line in report.lines))


def _packages(console: Console) -> None:
    """The Debian packages of the peers (as root); they are those of the tests."""
    if all(shutil.which(name, path="/usr/bin:/usr/sbin") for name in ("mariadbd", "nginx", "memcached")):
        return
    console.print("installing MariaDB, nginx and memcached")
    subprocess.run([Path(__file__).parents[1] / "tests" / "install" / "packages"], check=True)


def _versions() -> dict[str, str]:
    """What was measured."""
    python = Glance.python()
    script = (
        "from importlib.metadata import version as v;"
        "print(*(f'{n} {v(n)}' for n in ('glance', 'glance_store', 'pyuwsgi', 'SQLAlchemy')), sep='\\n')"
    )
    lines = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout
    found = dict(line.split(" ", 1) for line in lines.splitlines())
    found["mariadb"] = subprocess.run(
        ["/usr/sbin/mariadbd", "--version"], capture_output=True, text=True, check=False
    ).stdout.strip()
    found["nginx"] = subprocess.run(
        ["/usr/sbin/nginx", "-v"], capture_output=True, text=True, check=False
    ).stderr.strip()
    return found


if __name__ == "__main__":
    sys.exit(main())

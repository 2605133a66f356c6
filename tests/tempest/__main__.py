"""Starts Keystone, a web server and the service, and runs OpenStack's own tests against them. `--beside-glance`: then
against a Glance that reads the same configuration, too. `--swapped`: Glance, ours and Glance again serve one database.

Exit 1 when a test failed here that is not known to, or passed on Glance and not here. Counts and reasons at the end.
"""

import argparse
import contextlib
import resource
import sys
import time
from pathlib import Path

from tests.servers.keystone import Keystone
from tests.servers.mariadb import MariaDB
from tests.servers.place import new_directory
from tests.tempest import WHAT
from tests.tempest.client import Workspace
from tests.tempest.report import Run, report
from tests.tempest.site import GLANCE, OURS, Site, web


def run(site: Site, who: str, workspace: Workspace, what: str, *, name: str = "", log: Path | None = None) -> Run:
    """One run of Tempest against a site that `who` serves; it runs before and has ended after it."""
    begun = time.monotonic()
    site.start(who)
    found, text = workspace.run(what)
    wrong = site.stop()
    done = Run(name or who, found, text, wrong, ours=who == OURS)
    if log:
        log.with_suffix(f".{done.name.replace(' ', '-')}").write_text(text)
        log.with_suffix(f".{done.name.replace(' ', '-')}.server").write_text(site.log)
    print(f"{done.name}: {done.counts}, in {time.monotonic() - begun:.0f} s", flush=True)
    return done


def main() -> int:
    """The whole run."""
    parser = argparse.ArgumentParser(prog="python -m tests.tempest", description=__doc__)
    parser.add_argument("--only", default=WHAT, metavar="REGEX", help="these tests only")
    parser.add_argument("--log", type=Path, help="where all that Tempest and the servers print goes")
    parser.add_argument("--beside-glance", action="store_true", help="also against a Glance, and compare")
    parser.add_argument("--swapped", action="store_true", help="Glance, ours, and Glance again on one database")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = new_directory("tempest")
        keystone = Keystone()
        stack.callback(keystone.close)
        keystone.start()
        workspace = Workspace(folder, keystone, stack.enter_context(web(folder)))

        def site() -> Site:
            one = Site(keystone, connection())
            stack.callback(one.kill)
            return one

        def connection() -> str | None:
            if not (options.beside_glance or options.swapped):
                return None
            if not databases:
                databases.append(MariaDB())
                stack.callback(databases[0].close)
                databases[0].start()
            # tables as most Glances have them; the words of the connection as operators do
            made = databases[0].create_database(charset="utf8mb3")
            return made.replace("charset=utf8mb3", "charset=utf8mb4")

        databases: list[MariaDB] = []
        only, log = options.only, options.log
        runs = []
        if options.swapped:
            swapped = site()
            runs.append(run(swapped, GLANCE, workspace, only, name="Glance before", log=log))
            print(swapped.take_over(), flush=True)
            runs.append(run(swapped, OURS, workspace, only, name="ours on its database", log=log))
            print(swapped.give_back(), flush=True)
            runs.append(run(swapped, GLANCE, workspace, only, name="Glance after", log=log))
        else:
            runs.append(run(site(), OURS, workspace, only, log=log))
            if options.beside_glance:
                runs.append(run(site(), GLANCE, workspace, only, log=log))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of processor time, Keystone's among them")
    return report(runs)


if __name__ == "__main__":
    sys.exit(main())

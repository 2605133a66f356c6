"""What limits of time mean on a machine that others use as well."""

import os
from pathlib import Path


def quiet(seconds: float) -> float:
    """So many seconds of a quiet machine: as many times longer as there are processes for each processor now.

    For limits of what would otherwise hang, or wait for something else: never for how fast something is.
    """
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return seconds * max(1.0, max(os.getloadavg()[0], running) / (os.cpu_count() or 1))

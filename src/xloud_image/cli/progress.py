"""How far long work is, for whoever waits at a terminal: bars on standard error, and none where nobody looks. Several
pieces of work run side by side in threads; Ctrl-C ends all of them where they are.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
_GRACE = 3.0  # seconds that work has to end where it is


class Bars:
    """One bar for each piece of work. `stop` is set when all shall end."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self._shown: Progress | None = None

    def __enter__(self) -> "Bars":
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            self._shown = progress.Progress(
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.TaskProgressColumn(),
                progress.DownloadColumn(binary_units=True),
                progress.TransferSpeedColumn(),
                progress.TimeRemainingColumn(compact=True),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
            )
            self._shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown is not None:
            self._shown.stop()

    def bar(self, text: str, total: int | None) -> Callable[[int], None]:
        """A new bar; call what is returned with how many bytes of all are there."""
        shown = self._shown
        if shown is None:
            return lambda _done: None
        number = shown.add_task("".join(char if char.isprintable() else "?" for char in text)[:40], total=total)
        return lambda done: shown.update(number, completed=done)

    def say(self, text: str, *, error: bool = False) -> None:
        """A line above the bars; results go to standard output, errors to standard error."""
        line = "".join(char if char.isprintable() or char == "\n" else "?" for char in text)
        stream = sys.stderr if error else sys.stdout
        if self._shown is not None and stream.isatty():
            self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            stream.write(line + "\n")
            stream.flush()

    def each(
        self, work: "Callable[[T], object]", things: "Sequence[T]", *, at_once: int, name: "Callable[[T], str]"
    ) -> int:
        """Do it for each, so many side by side; how many failed. What was wrong has been said, with the thing's name.
        KeyboardInterrupt when somebody ends it."""
        from xloud_image.client.data import Stopped
        from xloud_image.errors import ImageServiceError

        failed = 0
        pool = ThreadPoolExecutor(max_workers=max(1, min(at_once, len(things))))
        running: dict[Future[Any], T] = {pool.submit(work, thing): thing for thing in things}
        try:
            while running:
                done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for one in done:
                    thing = running.pop(one)
                    try:
                        one.result()
                    except Stopped:
                        failed += 1
                    except ImageServiceError as error:
                        failed += 1
                        self.say(f"{name(thing)}: {error.message}", error=True)
        except BaseException:
            self.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            if wait(running, timeout=_GRACE).not_done:  # a server that says nothing holds them
                sys.stderr.flush()
                os._exit(130)
            raise
        pool.shutdown()
        return failed

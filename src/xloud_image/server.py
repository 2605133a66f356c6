"""Processes: gunicorn's arbiter keeps worker processes, each an event loop that serves the application.

The arbiter binds the port and forks; every connection (database, stores, identity) is opened after the fork. SIGTERM
and SIGINT drain and stop; SIGHUP reads the configuration again and replaces the workers, old ones drain first. A worker
whose event loop stands still for `_HEARTBEAT` seconds is replaced, one that dies as well (`deaths` says when).

No call is lost on the way out. A node that stops says 503 at its health check first, and serves everything until the
balancers have seen it (`shutdown_delay`; not on Ctrl-C, nor when the node stays and only its workers change). Then the
port closes; connections without a request may still bring one; answers say that they are the last; transfers get
`graceful_timeout`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import mmap
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import web
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from xloud_image import __version__, deaths, logs, turns, worker
from xloud_image.api import app as api
from xloud_image.api import connections, metrics
from xloud_image.api.state import ENDING, Ending
from xloud_image.config.loader import Loaded
from xloud_image.config.settings import Server, Settings
from xloud_image.errors import ConfigError
from xloud_image.services import cache_keeping, reaper
from xloud_image.services.runtime import ALL, Runtime

log = structlog.get_logger(__name__)

_HEARTBEAT: Final = 60  # seconds
_DESCRIPTORS: Final = 1024 * 1024  # open files that a process asks for; some systems offer a thousand times as many
_LAST_CALL: Final = 1.0  # seconds in which a connection without a request may bring one, once the port is closed
_READ_BUFFER: Final = 256 * 1024  # bytes that a connection reads ahead; twice that is held at most


def run(loaded: Loaded, complete: Callable[[Loaded], Loaded]) -> int:
    """Serve until stopped; the exit code. The configuration has been checked by `complete`, and will be on a reload."""
    if loaded.settings.log_file is None:
        sys.stderr.flush()
    _take_descriptors()
    gc.collect()
    gc.freeze()  # else each process would have a copy of what is loaded now: the collector writes into what it walks
    try:
        _Arbiter(_Application(loaded, complete)).run()
    except SystemExit as end:
        return int(end.code or 0)
    except OSError as error:
        server = loaded.settings.server
        raise ConfigError(f"cannot listen on {server.bind_host} port {server.bind_port}: {error.strerror}") from None
    return 0


def _take_descriptors() -> None:
    """As many open files as the system allows this process; what is set is often a small number for shells."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            log.warning("the limit of open files stays as it is", soft=soft, hard=hard, reason=str(error))


class _Log(Logger):  # type: ignore[misc]  # gunicorn has no types
    """The arbiter's words go where all others go."""

    def setup(self, cfg: Any) -> None:
        self.loglevel = logging.INFO
        self.error_log = logging.getLogger("xloud_image.processes")
        self.access_log = logging.getLogger("xloud_image.processes.access")

    def reopen_files(self) -> None:
        """`logs.setup` has reopened them."""

    def close_on_exec(self) -> None:
        """Nothing is executed."""


class _Arbiter(Arbiter):  # type: ignore[misc]
    """Gunicorn's, which tells its workers whether the node goes away or only they do, and does not start for ever what
    dies at once. Beside the workers, which serve, it keeps those processes that do long work (`worker`)."""

    def __init__(self, app: Any) -> None:
        self._record = deaths.Record()
        self._ever_ready = self._stopping = False
        self._job_workers: dict[int, float] = {}  # process → when it was started
        self._relay = 0  # of these, the one that knows the message bus
        self._finishing: set[int] = set()  # of these, those that finish what they do, with an older configuration
        self._leaving: dict[int, float] = {}  # of these, when they were told to end
        self._job_record = deaths.Record()
        super().__init__(app)

    def manage_workers(self) -> None:
        """As many of both kinds as there should be."""
        super().manage_workers()
        for pid, since in self._leaving.items():
            if time.monotonic() - since > worker.HAND_OVER:
                self._signal(pid, signal.SIGKILL)
        loaded: Loaded = self.app.loaded
        wanted = loaded.settings.imports.job_workers
        there = len(self._job_workers) - len(self._finishing)
        if not self._stopping and there < wanted and self._job_record.may_start:
            self._start_job_worker()

    def _start_job_worker(self) -> None:
        born = time.monotonic()
        relays = self._relay not in self._job_workers or self._relay in self._finishing
        # a signal that comes before the child has its own handler waits for it
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
            self._job_workers[pid] = born
            self._relay = pid if relays else self._relay
            return
        try:
            for number in self.SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for listener in self.LISTENERS:
                listener.close()
            deaths.leave(worker.run(self.app.loaded, self.app.bell, parent=self.pid, relays=relays))
        finally:
            os._exit(1)

    def _end_job_workers(self) -> None:
        for pid in self._job_workers:
            self._leaving.setdefault(pid, time.monotonic())
            self._signal(pid, signal.SIGTERM)

    def _renew_job_workers(self) -> None:
        """Others follow, of a fresh configuration. What is under way is finished, but for what still was at the last
        time: it is handed over, so that there are never more than twice as many."""
        for pid in self._job_workers:
            if pid in self._finishing:
                self._leaving.setdefault(pid, time.monotonic())
                self._signal(pid, signal.SIGTERM)
            else:
                self._finishing.add(pid)
                self._signal(pid, signal.SIGUSR1)

    @staticmethod
    def _signal(pid: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def stop(self, graceful: bool = True) -> None:
        """End the workers: with notice on SIGTERM, without on Ctrl-C."""
        self._stopping = True
        if graceful:
            self.app.leaving[0] = 1
        self._end_job_workers()
        super().stop(graceful)
        end = time.monotonic() + worker.HAND_OVER
        while self._job_workers and time.monotonic() < end:
            self.reap_workers()
            time.sleep(0.05)
        for pid in self._job_workers:
            self._signal(pid, signal.SIGKILL)

    def reload(self) -> None:
        """SIGHUP: workers of a fresh configuration start at once."""
        self._record.forget()
        self._job_record.forget()
        super().reload()
        self._renew_job_workers()

    def spawn_workers(self) -> None:
        """Start those that are missing, unless they would only die again."""
        if self._record.may_start:
            super().spawn_workers()

    def reap_workers(self) -> None:
        """Take note of every child that has ended. Raises `HaltServer` when starting others would lead nowhere."""
        if self._stopping:  # one that was forked a moment ago had not set its signals yet
            for pid, worker in list(self.WORKERS.items()):
                if not worker.ready:
                    self.kill_worker(pid, signal.SIGTERM)
            for pid in self._job_workers:
                self._signal(pid, signal.SIGTERM)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid == self.reexec_pid:  # type: ignore[has-type]
                self.reexec_pid = 0
            metrics.forget(pid)
            if (born := self._job_workers.pop(pid, None)) is not None:
                self._leaving.pop(pid, None)
                self._finishing.discard(pid)
                self._mourn_job_worker(deaths.Death(pid, status, time.monotonic() - born, ready=True))
                continue
            dead: _Worker | None = self.WORKERS.pop(pid, None)  # none: an orphan that the kernel gave to process 1
            if dead is not None:
                dead.tmp.close()
                self._mourn(dead, pid, status)

    def _mourn(self, worker: _Worker, pid: int, status: int) -> None:
        self._ever_ready |= any(one.ready for one in (worker, *self.WORKERS.values()))
        death = deaths.Death(pid, status, time.monotonic() - worker.born, ready=worker.ready, hung=bool(worker.aborted))
        if not death.orderly:
            log.error(str(death))
        if self._stopping:
            return
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == self.WORKER_BOOT_ERROR:
            raise HaltServer("a worker cannot start", self.WORKER_BOOT_ERROR)
        try:
            pause = self._record.add(death, workers=self.num_workers, ever_ready=self._ever_ready)
        except deaths.TooManyDeaths:
            reason = "no worker was ever ready and they die one after the other: the service ends; see why they died"
            raise HaltServer(reason, self.WORKER_BOOT_ERROR) from None
        if pause:
            log.warning("workers die soon after their start: the next one starts later", seconds=pause)

    def _mourn_job_worker(self, death: deaths.Death) -> None:
        """The service goes on without it; another follows, later and later when they die young."""
        if death.orderly:
            return
        log.error("a process for long work ended", reason=str(death))
        self._job_record.add(death, workers=1, ever_ready=True)


class _Application(BaseApplication):  # type: ignore[misc]
    """What gunicorn asks for: its settings, made from ours, and a fresh reading on SIGHUP.

    `leaving`: one byte that all processes share; 1 when the node goes away.
    """

    def __init__(self, loaded: Loaded, complete: Callable[[Loaded], Loaded]) -> None:
        self.loaded = loaded
        self._complete = complete
        self.leaving = mmap.mmap(-1, 1)
        self.bell = worker.Bell()
        super().__init__()

    def load_config(self) -> None:
        settings = self.loaded.settings
        server = settings.server
        bind = [_address(server.bind_host, server.bind_port)]
        if server.metrics_port:
            bind.append(_address(server.metrics_host, server.metrics_port))
        for name, value in {
            "bind": bind,
            "workers": server.workers,
            "backlog": server.backlog,
            "worker_class": _Worker,
            "logger_class": _Log,
            "timeout": _HEARTBEAT,
            "graceful_timeout": server.shutdown_delay + server.graceful_timeout,
            "proc_name": "xloud-image",
            "default_proc_name": "xloud-image",
            "control_socket_disable": True,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> web.Application:
        raise AssertionError("the worker builds its application itself")

    def wsgi(self) -> None:
        """No WSGI here."""

    def reload(self) -> None:
        """SIGHUP: a configuration that cannot be served leaves the one in force."""
        try:
            fresh = self._complete(self.loaded.again())
            settings = fresh.require()
        except ConfigError as error:
            log.error("the new configuration is not taken", reason=error.message)
            return
        old, new = self.loaded.settings.server, settings.server
        if (old.bind_host, old.bind_port) != (new.bind_host, new.bind_port):
            log.warning("another address takes a restart", now=f"{old.bind_host}:{old.bind_port}")
        self.loaded = fresh
        logs.setup(settings)
        log.info("the configuration was read again")
        self.load_config()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Worker(Worker):  # type: ignore[misc]
    """One process: an event loop on the shared port. Made by the arbiter, which then forks."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.born = time.monotonic()
        self._ready = mmap.mmap(-1, 1)  # shared with the arbiter: 1 when it serves

    @property
    def ready(self) -> bool:
        """Whether it has served; asked by the arbiter."""
        return bool(self._ready[0])

    def init_signals(self) -> None:
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the group; the arbiter tells us what to do
        signal.signal(signal.SIGABRT, signal.SIG_DFL)

    def run(self) -> None:
        loaded: Loaded = self.app.loaded
        try:
            asyncio.run(self._serve(loaded.settings))
        except ConfigError as error:
            log.error("a worker cannot start", reason=error.message)
            deaths.leave(Arbiter.WORKER_BOOT_ERROR)
        deaths.leave()

    async def _serve(self, settings: Settings) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, stop.set)
        listeners = [one.sock for one in self.sockets]
        try:
            await serve(settings, listeners, stop, self._alive, lambda: bool(self.app.leaving[0]), self.app.bell)
        finally:
            signal.set_wakeup_fd(-1)  # another signal may come while the loop is closed

    def _alive(self) -> bool:
        """It serves: tell the arbiter that the loop turns. False when the arbiter is gone."""
        self._ready[0] = 1
        self.notify()
        return bool(os.getppid() == self.ppid)


async def serve(
    settings: Settings,
    listeners: list[socket.socket],
    stop: asyncio.Event,
    alive: Callable[[], bool],
    leaving: Callable[[], bool],
    bell: worker.Bell | None = None,
) -> None:
    """Serve until `stop`, then drain for at most `graceful_timeout` seconds. `alive()` is called every second.

    `leaving()`: whether the node goes away with this process; asked when it is to stop. `bell`: tells those who do
    long work that there is some, and those who send events.
    """
    listeners, others = listeners[:1], listeners[1:]  # as `bind` has them
    async with Runtime.open(settings, *ALL) as runtime:
        if bell is not None:
            runtime.ring, runtime.db.told = bell.ring, bell.tell
        beside = [asyncio.create_task(reaper.run(runtime))]
        if runtime.journal is not None:
            runtime.journal.start()
        if runtime.cache is not None:
            beside.append(asyncio.create_task(cache_keeping.keep(runtime)))
        app = api.build(runtime)
        runner = connections.Runner(app, **_protocol(settings.server))
        await runner.setup()
        numbers = web.AppRunner(metrics.build(runtime), access_log=None)
        await numbers.setup()
        try:
            for listener in others:
                await web.SockSite(numbers, listener).start()
            for listener in listeners:
                # A backlog of one makes a worker take one connection at a time and leave the others to its idle
                # siblings; the kernel's queue keeps the length that the operator chose.
                await web.SockSite(runner, listener, backlog=1).start()
                listener.listen(settings.server.backlog)
            # What is there now stays: the collector need not walk it in a turn of the loop again and again.
            gc.collect()
            gc.freeze()
            turns.begin_if_asked()
            log.info("ready", pid=os.getpid(), version=__version__)
            while not stop.is_set() and alive():
                try:
                    await asyncio.wait_for(stop.wait(), 1)
                except TimeoutError:
                    continue
            await _give_notice(app[ENDING], settings.server.shutdown_delay if leaving() else 0, alive)
            await _close_port(runner, listeners)
            await _drain(runner, settings.server.graceful_timeout, alive)
        finally:
            for task in beside:
                task.cancel()
            await numbers.cleanup()
            await runner.cleanup()


async def _give_notice(ending: Ending, seconds: int, alive: Callable[[], bool]) -> None:
    """Everything is still served, at its connection's last answer, until the balancers have turned to other nodes."""
    ending.last_answers = True
    if seconds:
        ending.unwell = True
        log.info("stopping: balancers are told", seconds=seconds)
        for _ in range(seconds * 10):
            if alive():
                await asyncio.sleep(0.1)


async def _close_port(runner: web.AppRunner, listeners: list[socket.socket]) -> None:
    """No new connections. Those that were taken a moment ago have not met their protocol yet: they do first."""
    for listener in listeners:
        asyncio.get_running_loop().remove_reader(listener)
    await asyncio.sleep(0.05)
    for site in list(runner.sites):
        await site.stop()


async def _drain(runner: web.AppRunner, seconds: float, alive: Callable[[], bool]) -> None:
    """Until every connection has ended, and what it was answered has left this process; at most so long."""
    server = runner.server
    assert server is not None
    begun = asyncio.get_running_loop().time()
    while server.connections and (spent := asyncio.get_running_loop().time() - begun) < max(0.0, seconds - 2):
        if spent >= _LAST_CALL:
            connections.end_idle(server)
        alive()
        await asyncio.sleep(0.1)


def _protocol(server: Server) -> dict[str, Any]:
    return {
        "handle_signals": False,
        "access_log": None,
        "header_seconds": min(connections.HEADER_SECONDS, server.client_socket_timeout or connections.HEADER_SECONDS),
        "unread_seconds": server.client_socket_timeout,
        "keepalive_timeout": (server.client_socket_timeout or 3600) if server.http_keepalive else 0,
        "tcp_keepalive": True,
        "keepidle": server.tcp_keepidle,
        "max_line_size": server.max_header_line,
        "max_field_size": server.max_header_line,
        "read_bufsize": _READ_BUFFER,
        "lingering_time": 0,  # the application reads what a client still sends, as much as is sensible
        "auto_decompress": False,
        "shutdown_timeout": 1,
    }

"""A RabbitMQ broker for tests, with its own port mapper and cookie."""

import shutil
import socket
from pathlib import Path

from tests.servers.place import HOST, free_port, new_directory, program
from tests.servers.process import Process

USER = "image"
PASSWORD = "broker-secret"

_CONFIGURATION = """\
listeners.tcp.default = {host}:{port}
default_user = {user}
default_pass = {password}
loopback_users = none
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 100MB
"""


class RabbitMQ:
    def __init__(self, port: int | None = None) -> None:
        self.port = port or free_port()
        self._ports = (free_port(), free_port())  # between nodes; of the port mapper
        self._directory: Path | None = None
        self._mapper: Process | None = None
        self._broker: Process | None = None

    @property
    def url(self) -> str:
        """The address as in `transport_url`."""
        return f"rabbit://{USER}:{PASSWORD}@{HOST}:{self.port}/"

    def start(self) -> None:
        """Start it; some seconds."""
        # /usr/sbin has a wrapper that changes the user
        server = program("rabbitmq-server", "rabbitmq-server", "/usr/lib/rabbitmq/bin")
        if self._directory is None:
            self._directory = new_directory("rabbitmq")
        directory = self._directory
        (directory / "rabbitmq.conf").write_text(
            _CONFIGURATION.format(host=HOST, port=self.port, user=USER, password=PASSWORD)
        )
        (directory / "plugins").write_text("[].\n")
        surroundings = {
            "RABBITMQ_NODENAME": "image@localhost",
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_LOG_BASE": str(directory),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_PID_FILE": str(directory / "pid"),
            "RABBITMQ_DIST_PORT": str(self._ports[0]),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": str(self._ports[1]),
            # one scheduler that does not spin
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
            " +S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
            "HOME": str(directory),
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        # the broker would start one that outlives it
        self._mapper = Process(
            "epmd",
            [program("epmd", "erlang-base"), "-address", HOST, "-port", str(self._ports[1])],
            log=directory / "epmd.log",
            directory=directory,
            environment=surroundings,
        )
        self._mapper.wait_for(lambda: _listens(self._ports[1]))
        self._broker = Process(
            "rabbitmq", [server], log=directory / "log", directory=directory, environment=surroundings
        )
        self._broker.wait_for(lambda: _listens(self.port), 120)

    def stop(self) -> None:
        """Stop it; the queues stay for another `start()` of the same object."""
        for process in (self._broker, self._mapper):
            if process is not None:
                process.stop()
                process.kill()  # what Erlang started beside itself
        self._broker = self._mapper = None

    def close(self) -> None:
        """Stop it and forget its data."""
        self.stop()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._directory = None


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5):
            return True
    except OSError:
        return False

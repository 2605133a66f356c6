"""An nginx server for tests: serves a folder of files, or stands in front of the service."""

import os
from pathlib import Path

from tests.servers.place import HOST, free_port, new_directory, program
from tests.servers.process import Process, answers

_CONFIGURATION = """\
{user}
worker_processes {workers};
pid {directory}/pid;
error_log {directory}/error.log warn;
daemon off;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    client_max_body_size 0;
    server {{
        listen {host}:{port}{listen};
        location = /nginx-is-there {{ return 204; }}
{server}
    }}
}}
"""

_PROXY = (
    "proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; "
    "proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme;"
)


class Nginx:
    """`files`: a folder served at /. `upstream`: an http address that everything goes to instead.
    `server`: further lines of the server block. `certificate`: (certificate, key) to listen with TLS."""

    def __init__(
        self,
        *,
        files: Path | None = None,
        upstream: str | None = None,
        server: str = "",
        certificate: tuple[Path, Path] | None = None,
        workers: int = 1,
        port: int | None = None,
        host: str = HOST,
    ) -> None:
        self.host = host
        self.files = files
        self.port = port or free_port()
        self.tls = certificate is not None
        self._workers = workers
        lines = [server]
        if files is not None:
            lines.append(f"location / {{ root {files}; }}")
        if upstream is not None:
            lines.append(f"location / {{ proxy_pass {upstream}; {_PROXY} }}")
        if certificate is not None:
            lines.append(f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]};")
        self._server = "\n".join(lines)
        self._process: Process | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; it answers 204 at /nginx-is-there."""
        nginx = program("nginx", "nginx-light")
        directory = new_directory("nginx")
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                user="user root;" if os.geteuid() == 0 else "",
                workers=self._workers,
                directory=directory,
                host=self.host,
                port=self.port,
                listen=" ssl" if self.tls else "",
                server=self._server,
            )
        )
        self._process = Process(
            "nginx",
            [nginx, "-p", directory, "-e", directory / "error.log", "-c", configuration],
            log=directory / "log",
            directory=directory,
        )
        # with TLS, an answer to plain HTTP (400) also says that it listens
        self._process.wait_for(lambda: answers(f"http://{self.host}:{self.port}/nginx-is-there"))

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    close = stop

"""A certificate authority of one test run, and certificates of servers that it signs. No server is started here."""

import functools
from pathlib import Path
from typing import NamedTuple

from tests.servers.place import HOST, new_directory, program
from tests.servers.process import run


class Certificate(NamedTuple):
    """PEM files."""

    certificate: Path
    key: Path


class Authority:
    """An authority of its own; `ca` is what its clients have to trust."""

    def __init__(self, name: str = "xloud test authority") -> None:
        self._openssl = program("openssl", "openssl")
        self._directory = new_directory("certificates")
        self.ca, self._key = self._directory / "ca.pem", self._directory / "ca.key"
        self._count = 0
        self._run(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", f"/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", str(self._key), "-out", str(self.ca)),
        )

    def issue(self, *names: str, days: int = 2) -> Certificate:
        """A certificate for these DNS names and IP addresses; by default for localhost and the test host."""
        self._count += 1
        names = names or ("localhost", HOST, "::1")
        place = self._directory / str(self._count)
        request, key, certificate = (place.with_suffix(f".{end}") for end in ("csr", "key", "pem"))
        kinds = [f"IP:{name}" if name.replace(".", "").isdigit() or ":" in name else f"DNS:{name}" for name in names]
        extensions = place.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={','.join(kinds)}\nextendedKeyUsage=serverAuth,clientAuth\n")
        self._run(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={names[0]}"),
            *("-keyout", str(key), "-out", str(request)),
        )
        self._run(
            *("x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey", str(self._key), "-CAcreateserial"),
            *("-days", str(days), "-extfile", str(extensions), "-out", str(certificate)),
        )
        key.chmod(0o644)  # servers may run as other users
        return Certificate(certificate, key)

    def _run(self, *words: str) -> None:
        run([self._openssl, *words])


@functools.cache
def authority() -> Authority:
    """The authority of this run."""
    return Authority()

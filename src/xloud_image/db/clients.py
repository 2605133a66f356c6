"""What the files and variables of other clients add to an operator's connection URL, which counts more than they do.

For MySQL the option files of PyMySQL and of the C library, for PostgreSQL libpq's service files, variables and the
files in the home of the user. What the words mean, and which are known, is for `arguments`.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from xloud_image.db.tls import refused

_OFF: Final = frozenset({"false", "0", "no", "off", "none"})
# names in a client's option file → ours
_OPTION_FILE: Final[Mapping[str, str]] = {
    "socket": "unix_socket", "default-character-set": "charset", "bind-address": "bind_address",
    "ssl-ca": "ssl_ca", "ssl-capath": "ssl_capath", "ssl-cert": "ssl_cert", "ssl-key": "ssl_key",
    "ssl-cipher": "ssl_cipher",
}  # fmt: skip
# and those that only the C library reads, not PyMySQL
_LIBRARYS: Final[Mapping[str, str]] = {
    "ssl": "ssl", "ssl-mode": "ssl_mode", "ssl-crl": "ssl_crl", "ssl-enforce": "ssl",
    "ssl-verify-server-cert": "ssl_verify_identity", "tls-version": "tls_version", "ssl-passphrase": "ssl_key_password",
    "tls-passphrase": "ssl_key_password",
}  # fmt: skip
_LIBRARYS_GROUPS: Final = ("client", "client-server", "client-mariadb")
# what libpq takes from the environment; the second ones count for connections that must be encrypted
_PG_ENVIRONMENT: Final[Mapping[str, str]] = {
    "PGSSLMODE": "sslmode", "PGSSLROOTCERT": "sslrootcert", "PGCHANNELBINDING": "channel_binding",
    "PGGSSENCMODE": "gssencmode", "PGSSLNEGOTIATION": "sslnegotiation", "PGSSLCERTMODE": "sslcertmode",
    "PGREQUIREPEER": "requirepeer", "PGREQUIREAUTH": "require_auth",
}  # fmt: skip
_PG_ENCRYPTED: Final[Mapping[str, str]] = {
    "PGSSLCERT": "sslcert", "PGSSLKEY": "sslkey", "PGSSLCRL": "sslcrl",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version", "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
}  # fmt: skip


# MySQL and MariaDB


def option_file(given: sa.URL, query: dict[str, str], notes: list[str]) -> tuple[sa.URL, dict[str, str]]:
    """A client's option file as the driver of the URL reads it; what the URL says counts more.

    PyMySQL reads one group, and of TLS the files. The C library (mysql://, mysql+mysqldb://) reads the client's group
    as well, files that are included, and every word of TLS: one that is not known here is refused.
    """
    library = given.drivername.partition("+")[2] in ("", "mysqldb")
    path = os.path.expanduser(query.get("read_default_file") or "/etc/my.cnf")
    group = query.get("read_default_group") or "client"
    parser = configparser.RawConfigParser(allow_no_value=True, strict=False)
    parser.optionxform = lambda optionstr: optionstr.lower().replace("_", "-")  # type: ignore[method-assign]
    try:
        _read_options(parser, path, set() if library else None)
    except FileNotFoundError:
        notes.append(f"read_default_file {path} does not exist, so nothing is read from it")
        return given, query
    except OSError as error:
        raise refused(f"read_default_file {error.filename or path} cannot be read: {error.strerror}") from None
    except configparser.Error as error:
        line = getattr(error, "lineno", None)
        where = f", line {line}" if line else ""
        raise refused(f"read_default_file {path}{where} is no option file ({type(error).__name__})") from None
    said: dict[str, str] = {}
    for one in (*(_LIBRARYS_GROUPS if library else ()), group):
        if parser.has_section(one):
            said |= {name: (value or "").strip().strip("'\"") for name, value in parser.items(one)}
    for name, ours in _OPTION_FILE.items():
        if said.get(name) and ours != "bind_address":
            query.setdefault(ours, said[name])
        elif said.get(name):
            notes.append(f"{name} in {path} is not used: the system chooses the address to connect from")
    if library:
        _library_tls(said, query, path)
    elif unread := sorted(name for name in said if name in _LIBRARYS):
        notes.append(f"{', '.join(unread)} in {path} is not used, as PyMySQL does not read it: say it in the URL")
    port = said.get("port", "")
    if port and not port.isdecimal():
        raise refused(f"read_default_file {path}: port is no number")
    given = given.set(
        username=given.username or said.get("user") or None,
        password=given.password or said.get("password") or None,
        host=given.host or said.get("host") or None,
        port=given.port or (int(port) if port else None),
        database=given.database or said.get("database") or None,
    )
    return given, query


def _read_options(parser: configparser.RawConfigParser, path: str, seen: set[str] | None) -> None:
    """A file and those that it includes, which come after its own lines. `seen`: read already; None: none is followed.

    OSError, configparser.Error.
    """
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    parser.read_file(line for line in lines if not line.lstrip().startswith("!"))
    if seen is None:
        return
    seen.add(os.path.realpath(path))
    for word, _, place in (line.strip().partition(" ") for line in lines):
        included: list[str] = []
        if word == "!include":
            included = [place.strip()]
        elif word == "!includedir" and os.path.isdir(place.strip()):
            included = [os.path.join(place.strip(), name) for name in sorted(os.listdir(place.strip()))
                        if name.endswith((".cnf", ".ini"))]  # fmt: skip
        for one in included:
            if os.path.isfile(one) and os.path.realpath(one) not in seen:
                _read_options(parser, one, seen)


def _library_tls(said: Mapping[str, str], query: dict[str, str], path: str) -> None:
    """What an option file says of TLS to the C library, into the arguments. ConfigError: a word that is not done."""
    for written, value in said.items():
        name = written.removeprefix("loose-")
        off = name.startswith(("skip-", "disable-"))
        name = re.sub(r"^(?:skip|disable|enable)-", "", name)
        if not name.startswith(("ssl", "tls")) or name in _OPTION_FILE:
            continue
        ours = _LIBRARYS.get(name)
        if ours is None:
            raise refused(f"{written} in {path} is not done by this driver; take it out if it may be without")
        if ours in ("ssl", "ssl_verify_identity") and (off or value.lower() in _OFF):
            if ours == "ssl":
                query.setdefault("ssl", "false")
            elif "ssl_verify_identity" not in query:
                query.setdefault("ssl_check_hostname", "false")
        elif value or ours in ("ssl", "ssl_verify_identity"):
            query.setdefault(ours, value)


# PostgreSQL


def _with(given: sa.URL, more: Mapping[str, str]) -> sa.URL:
    """The URL with arguments that it does not have."""
    return given.update_query_dict({name: value for name, value in more.items() if not given.query.get(name)})


def of_service(given: sa.URL) -> sa.URL:
    """The URL with what its service (`service=`, PGSERVICE) says in libpq's service files; the URL counts more.

    ConfigError: there is no such service.
    """
    if given.query.get("ssl") and not given.query.get("sslmode"):
        given = given.update_query_dict({"sslmode": given.query["ssl"]})
    service = given.query.get("service") or os.environ.get("PGSERVICE")
    if not service:
        return given
    if not isinstance(service, str):
        raise refused("service stands several times in its arguments")
    own = given.query.get("servicefile") or os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf"
    places = [os.path.expanduser(str(own)),
              os.path.join(os.environ.get("PGSYSCONFDIR") or "/etc/postgresql-common", "pg_service.conf")]  # fmt: skip
    for path in places:
        parser = configparser.RawConfigParser(delimiters="=", comment_prefixes="#", strict=False, default_section="")
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                parser.read_file(file)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise refused(f"the service file {path} cannot be read: {error.strerror}") from None
        except configparser.Error as error:
            raise refused(f"{path} is no service file ({type(error).__name__})") from None
        if parser.has_section(service):
            return _filled(given, dict(parser.items(service)), path)
    raise refused(f"the service {service} stands neither in {places[0]} nor in {places[1]}")


def _filled(given: sa.URL, said: dict[str, str], path: str) -> sa.URL:
    hosts, ports = said.pop("host", ""), said.pop("port", "")
    if ports and not all(port.isdecimal() for port in ports.split(",")):
        raise refused(f"the service file {path}: port is no number")
    several = "," in hosts or hosts.startswith("/")
    if hosts and not given.host and "host" not in given.query:
        if several:
            given = given.update_query_dict({"host": hosts, **({"port": ports} if ports else {})})
        else:
            given = given.set(host=hosts)
    return _with(
        given.set(
            username=given.username or said.pop("user", None),
            password=given.password or said.pop("password", None),
            port=given.port or (int(ports) if ports.isdecimal() and not several else None),
            database=given.database or said.pop("dbname", None),
        ),
        {name: value for name, value in said.items() if name not in ("user", "password", "dbname")},
    )


def from_environment(given: sa.URL) -> sa.URL:
    """The URL with what libpq's variables say of TLS and of the login."""

    def of(names: Mapping[str, str]) -> dict[str, str]:
        return {ours: value for name, ours in names.items() if (value := os.environ.get(name))}

    given = _with(given, of(_PG_ENVIRONMENT))
    if os.environ.get("PGREQUIRESSL", "0")[:1] == "1":
        given = _with(given, {"sslmode": "require"})
    query = given.query
    if query.get("sslmode") in ("require", "verify-ca", "verify-full") or (
        query.get("sslrootcert") and not query.get("sslmode")
    ):
        given = _with(given, of(_PG_ENCRYPTED))
    return given


def at_home(name: str) -> str | None:
    """A file of libpq in the home of the service's user, if it is there."""
    path = os.path.expanduser(f"~/.postgresql/{name}")
    return path if os.path.isfile(path) else None

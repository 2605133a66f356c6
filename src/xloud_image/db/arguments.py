"""An operator's connection URL as our drivers take it: each argument of other drivers honoured, told, or refused.

URLs come from files that were written for PyMySQL, mysqlclient and psycopg2. What their drivers read from the query of
the URL means the same here. What means nothing here and endangers nobody is left out with a note; whatever else is not
known is refused: it may be what keeps a stranger out (a certificate, a rule of who may be talked to).
"""

from __future__ import annotations

import dataclasses
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import sqlalchemy as sa

from xloud_image.db.clients import at_home, from_environment, of_service, option_file
from xloud_image.db.tls import context, readable, refused
from xloud_image.errors import ConfigError

if TYPE_CHECKING:
    from xloud_image.config.settings import DatabaseSettings

CONNECT_TIME: Final = 5  # seconds for a connection, unless the URL says how many
_TRUE: Final = frozenset({"", "true", "1", "yes", "on", "required"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "none"})

# MySQL: what only other drivers do, each with the reason
_MYSQL_NOTES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("read_timeout", "write_timeout", "timeout"), "the service has its own time limits"),
    **dict.fromkeys(("use_unicode", "binary_prefix", "conv", "raise_on_warnings", "buffered", "consume_results",
                     "use_pure", "cursorclass", "use_result", "named_pipe", "max_allowed_packet", "multi_statements",
                     "get_warnings"), "it belongs to another driver"),
    "compress": "traffic is not compressed",
    "plugin": "it belongs to a debugging aid of SQLAlchemy",
    "local_infile": "no file of this machine is ever sent",
    "autocommit": "the service begins and ends its transactions itself",
    "sql_mode": "[database] mysql_sql_mode counts",
    "collation": "it follows the character set",
    "bind_address": "the system chooses the address to connect from",
    **dict.fromkeys(("auth_plugin", "default_auth"), "the server says how to log in"),
}  # fmt: skip
_MYSQL_TLS: Final = (
    "ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_key_password", "ssl_cipher", "ssl_crl", "ssl_check_hostname",
    "ssl_verify_cert", "ssl_verify_identity", "ssl_mode", "ssl_disabled", "ssl",
)  # fmt: skip
_MYSQL: Final = ("charset", "unix_socket", "connect_timeout", "init_command", "program_name", "server_public_key",
                 "read_default_file", "read_default_group", "client_flag", *_MYSQL_TLS)  # fmt: skip
_CLIENT_SSL: Final = 1 << 11
_CLIENT_SSL_VERIFY: Final = 1 << 30
_WIDE: Final = frozenset({"utf8", "utf8mb3", "utf8mb4"})

# PostgreSQL
_PG_NOTES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
                    "the service has its own time limits"),
    **dict.fromkeys(("client_encoding", "fallback_application_name"), "the driver says it itself"),
    **dict.fromkeys(("sslcompression", "sslsni", "gssdelegation"), "it belongs to another driver"),
    "plugin": "it belongs to a debugging aid of SQLAlchemy",
    **dict.fromkeys(("read_timeout", "write_timeout"), "the service has its own time limits"),
}  # fmt: skip
# words of libpq that ask for no more than the driver does
_PG_HARMLESS: Final[Mapping[str, frozenset[str]]] = {
    "gssencmode": frozenset({"disable", "prefer"}),
    "channel_binding": frozenset({"disable", "prefer"}),
    "load_balance_hosts": frozenset({"disable"}),
    "sslnegotiation": frozenset({"postgres"}),
    "sslcertmode": frozenset({"allow", "disable"}),
    "replication": frozenset({"false", "off", "no", "0"}),
    "requiressl": frozenset({"0"}),
}
_PG_TLS: Final = ("sslmode", "ssl", "sslrootcert", "sslcert", "sslkey", "sslpassword", "sslcrl",
                  "ssl_min_protocol_version", "ssl_max_protocol_version")  # fmt: skip
_PG_DRIVER: Final = ("passfile", "target_session_attrs", "krbsrvname", "gsslib")
_PG: Final = ("application_name", "connect_timeout", "timeout", "options", "service", "servicefile", *_PG_DRIVER,
              *_PG_TLS)  # fmt: skip
_PG_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERSIONS: Final[Mapping[str, ssl.TLSVersion]] = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """`url`: with our driver, without arguments but the hosts of PostgreSQL. `arguments`: for the driver.

    `notes`: a sentence for each argument that means nothing here.
    """

    url: sa.URL
    arguments: Mapping[str, Any] = dataclasses.field(repr=False)
    notes: tuple[str, ...] = ()


def parse(connection: str) -> sa.URL:
    """The URL as SQLAlchemy reads it, and also the arguments without a value (`…&ssl_verify_cert`), which it drops.

    ConfigError: it is none.
    """
    try:
        found = sa.make_url(connection)
    except (sa.exc.ArgumentError, ValueError):
        # the text itself may hold a password
        raise ConfigError(
            "[database] connection is no database URL, such as mysql+pymysql://user:password@host/name"
        ) from None
    rest = connection.partition("://")[2]
    account = re.match(r"(?:[^:/@]*(?::[^@]*)?@)?", rest)
    query = rest[account.end() if account else 0 :].partition("?")[2]
    empty = {name: "" for name, value in parse_qsl(query, keep_blank_values=True) if not value}
    return found.update_query_dict(empty) if empty else found


def read(settings: DatabaseSettings, *, files: bool = True) -> Target:
    """The URL of the settings for our drivers. ConfigError, one sentence without a secret, for what cannot be served.

    `files` False: files that it names (certificates, option files) lie on another machine and are not looked for.
    """
    given = parse(settings.connection)
    match given.get_backend_name():
        case "sqlite":
            return _sqlite(given)
        case "postgresql" | "postgres":
            return _postgresql(given, files=files)
        case "mysql" | "mariadb":
            return _mysql(given, files=files)
        case other:
            raise refused(f"{other} is not supported; use sqlite, postgresql or mysql")


def _texts(
    given: sa.URL, known: tuple[str, ...], notes: Mapping[str, str], *more: str
) -> tuple[dict[str, str], list[str]]:
    """The arguments that are known, and a note for each that means nothing. ConfigError for all others."""
    found: dict[str, str] = {}
    said: list[str] = []
    unknown = sorted(set(given.query) - {*known, *notes, *more})
    if unknown:
        listed = ", ".join(sorted({*known, *more}))
        raise refused(f"unknown argument {', '.join(unknown)}; known are {listed}")
    for name, value in given.query.items():
        if name in more:
            continue
        if not isinstance(value, str):
            raise refused(f"{name} stands {len(value)} times in its arguments")
        if name in known:
            found[name] = value
        else:
            said.append(f"{name} is not used: {notes[name]}")
    return found, said


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    """An argument of yes or no; None: not given."""
    if name not in query:
        return None
    text = query[name].strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    raise refused(f"{name}={query[name]} is neither true nor false")


def _seconds(query: Mapping[str, str], *names: str) -> int:
    for name in names:
        if name in query:
            if not re.fullmatch(r"\d{1,6}", query[name]):
                raise refused(f"{name} is no whole number of seconds")
            return int(query[name]) or CONNECT_TIME
    return CONNECT_TIME


def _sqlite(given: sa.URL) -> Target:
    driver = given.drivername.partition("+")[2]
    if driver == "pysqlcipher":
        raise refused("encrypted SQLite files cannot be read; use sqlite:////path")
    if given.database in (None, "", ":memory:"):
        raise refused("SQLite needs a file here; every worker opens it by itself")
    if str(given.database).startswith("file:"):
        raise refused("SQLite's file: addresses are not read; write sqlite:////path")
    notes = tuple(f"{name} is not used: the service has its own settings of SQLite" for name in sorted(given.query))
    return Target(given.set(drivername="sqlite+aiosqlite", query={}), {}, notes)


# MySQL and MariaDB


def _mysql(given: sa.URL, *, files: bool) -> Target:
    query, notes = _texts(given, _MYSQL, _MYSQL_NOTES)
    if "client_flag" in query:
        _flags(query, notes)
    if ("read_default_file" in query or "read_default_group" in query) and files:
        given, query = option_file(given, query, notes)
    charset = query.get("charset") or "utf8mb4"
    if charset.lower() not in _WIDE:
        notes.append("charset is not used: text is exchanged as utf8mb4")
    arguments: dict[str, Any] = {"charset": "utf8mb4", "connect_timeout": _seconds(query, "connect_timeout")}
    for name in ("unix_socket", "init_command", "program_name"):
        if query.get(name):
            arguments[name] = query[name]
    if "server_public_key" in query:
        arguments["server_public_key"] = query["server_public_key"].encode()
    tls = _mysql_tls(query, notes, files=files)
    if tls is not None:
        if "unix_socket" in arguments:
            notes.append("TLS is not used: the connection does not leave this machine (unix_socket)")
        else:
            arguments["ssl"] = tls
    return Target(given.set(drivername="mysql+asyncmy", query={}), arguments, tuple(notes))


def _flags(query: dict[str, str], notes: list[str]) -> None:
    """Bits of client_flag: those of TLS as the arguments that say the same, the others are a driver's own."""
    if not re.fullmatch(r"\d{1,10}", query["client_flag"]):
        raise refused("client_flag is no whole number")
    bits = int(query["client_flag"])
    if bits & _CLIENT_SSL:
        query.setdefault("ssl", "true")
    if bits & _CLIENT_SSL_VERIFY:
        query.setdefault("ssl_verify_identity", "true")
    if bits & ~(_CLIENT_SSL | _CLIENT_SSL_VERIFY):
        notes.append("client_flag is not used but for TLS: it belongs to another driver")


def _mysql_tls(query: Mapping[str, str], notes: list[str], *, files: bool) -> ssl.SSLContext | None:
    """How TLS is spoken; None: not at all. As the drivers do, a CA alone verifies the certificate and its name."""
    disabled, mode = _flag(query, "ssl_disabled"), query.get("ssl_mode", "").upper()
    if mode not in ("", "DISABLED", "PREFERRED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"):
        raise refused(
            f"ssl_mode={query['ssl_mode']} is unknown; it is DISABLED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"
        )
    plain = _flag(query, "ssl")
    verify, identity = _flag(query, "ssl_verify_cert"), _flag(query, "ssl_verify_identity")
    named = _flag(query, "ssl_check_hostname")
    authority = query.get("ssl_ca") or query.get("ssl_capath")
    asked = bool(authority or plain or verify or identity or query.get("ssl_cert") or query.get("ssl_key")
                 or query.get("ssl_cipher") or query.get("ssl_crl")
                 or mode in ("REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY"))  # fmt: skip
    if disabled or mode == "DISABLED" or plain is False:
        if asked:
            raise refused("TLS is switched off and asked for at once (ssl_disabled, ssl_mode, ssl_ca, …); keep one")
        return None
    if mode == "PREFERRED" and not asked:
        notes.append("ssl_mode=PREFERRED is not used: TLS is spoken when it is asked for, as with REQUIRED")
    if not asked:
        return None
    # the same rules as theirs, the more particular word first
    if mode in ("VERIFY_CA", "VERIFY_IDENTITY") or identity:
        chain = True
    elif verify is not None:
        chain = verify
    else:
        chain = bool(authority)
    if named is not None:
        name = named
    elif identity is not None or mode:
        name = bool(identity) or mode == "VERIFY_IDENTITY"
    else:
        name = verify is None
    if not chain:
        notes.append("the server's certificate is not verified: name its CA with ssl_ca, without ssl_verify_cert=false")
    elif not name:
        notes.append(
            "the server's certificate is verified, its name is not compared: ssl_verify_identity=true does that"
        )
    paths = {name: query.get(name) or None for name in ("ssl_ca", "ssl_capath", "ssl_cert", "ssl_key", "ssl_crl")}
    for one, path in paths.items():
        if path and files:
            readable(one, path)
    if paths["ssl_key"] and not paths["ssl_cert"]:
        raise refused("ssl_key needs ssl_cert beside it")
    if not files:
        return None
    made = context(
        chain=chain, name=chain and name, ca=paths["ssl_ca"], capath=paths["ssl_capath"], cert=paths["ssl_cert"],
        key=paths["ssl_key"], password=query.get("ssl_key_password"), crl=paths["ssl_crl"],
        cipher=query.get("ssl_cipher"),
    )  # fmt: skip
    if query.get("tls_version"):
        listed = [_VERSIONS[one.strip()] for one in query["tls_version"].split(",") if one.strip() in _VERSIONS]
        if not listed:
            raise refused(f"tls-version={query['tls_version']} is not spoken; it is one of {', '.join(_VERSIONS)}")
        made.minimum_version, made.maximum_version = min(listed), max(listed)
    return made


# PostgreSQL


def _postgresql(given: sa.URL, *, files: bool) -> Target:
    if files:
        given = from_environment(of_service(given))
    query, notes = _texts(given, (*_PG, *_PG_HARMLESS), _PG_NOTES, "host", "port")
    for name, harmless in _PG_HARMLESS.items():
        if name in query and query[name].lower() not in harmless:
            raise refused(f"{name}={query[name]} is not done by this driver; take it out if it may be without")
    settings = {"application_name": query.get("application_name") or "xloud-image"}
    if query.get("options"):
        settings["options"] = query["options"]
    arguments: dict[str, Any] = {
        "timeout": _seconds(query, "connect_timeout", "timeout"),
        "ssl": _postgresql_tls(query, files=files),
        "server_settings": settings,
        **{name: query[name] for name in _PG_DRIVER if query.get(name)},
    }
    hosts = {name: given.query[name] for name in ("host", "port") if name in given.query}
    return Target(given.set(drivername="postgresql+asyncpg", query=hosts), arguments, tuple(notes))


def _postgresql_tls(query: Mapping[str, str], *, files: bool) -> ssl.SSLContext | str:
    """libpq's words for TLS as asyncpg takes them. verify-ca and verify-full need sslrootcert or the system's CAs."""
    root = query.get("sslrootcert") or None
    mode = query.get("sslmode") or query.get("ssl") or ("verify-full" if root else "prefer")
    mode = {"true": "require", "1": "require", "false": "disable", "0": "disable"}.get(mode.lower(), mode)
    if mode not in _PG_MODES:
        raise refused(f"sslmode={mode} is unknown; it is one of {', '.join(_PG_MODES)}")
    encrypted = mode in ("require", "verify-ca", "verify-full")
    if files and encrypted and root is None:
        root = at_home("root.crt")
    chain = mode in ("verify-ca", "verify-full") or (mode == "require" and root is not None)
    if root == "system":
        root, mode, chain = None, "verify-full", True
    wanted = {name: query.get(name) or None for name in ("sslcert", "sslkey", "sslcrl")}
    if files and chain and not wanted["sslcrl"]:
        wanted["sslcrl"] = at_home("root.crl")
    versions = {}
    for name in ("ssl_min_protocol_version", "ssl_max_protocol_version"):
        if query.get(name):
            if query[name] not in _VERSIONS:
                raise refused(f"{name}={query[name]} is not spoken; it is one of {', '.join(_VERSIONS)}")
            versions[name] = _VERSIONS[query[name]]
    for name, path in {"sslrootcert": root, **wanted}.items():
        if path and files:
            readable(name, path)
    if not files or (not chain and not wanted["sslcert"] and not versions):
        return mode
    if mode in ("disable", "allow", "prefer"):
        if mode != "disable" and (wanted["sslcert"] or versions):
            raise refused(f"with sslmode={mode} a connection may go without TLS, and sslcert or a version would not "
                           "count: say require, verify-ca or verify-full")  # fmt: skip
        return mode
    made = context(
        chain=chain, name=mode == "verify-full", ca=root, cert=wanted["sslcert"], key=wanted["sslkey"],
        password=query.get("sslpassword"), crl=wanted["sslcrl"],
    )  # fmt: skip
    if low := versions.get("ssl_min_protocol_version"):
        made.minimum_version = low
    if high := versions.get("ssl_max_protocol_version"):
        made.maximum_version = high
    return made

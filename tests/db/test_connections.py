"""URLs of databases as other tools write them, and what is said when none can be reached. Real servers, real TLS."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.servers.certificates import Authority, authority
from tests.servers.mariadb import PASSWORD, USER, MariaDB
from tests.servers.place import HOST, free_port
from tests.servers.postgresql import PostgreSQL
from xloud_image.config.settings import DatabaseSettings
from xloud_image.db import arguments, connect, schema
from xloud_image.errors import ConfigError, DatabaseUnavailable


def settings(url: str) -> DatabaseSettings:
    return DatabaseSettings(connection=url, max_retries=0)


async def ask(url: str, question: str) -> str:
    """The last column of one row, over a connection of the service."""
    engine = connect.engine(settings(url), poolclass=sa.NullPool)
    try:
        async with engine.connect() as conn:
            row = (await conn.exec_driver_sql(question)).one()
            return str(row[-1])
    finally:
        await engine.dispose()


@pytest.fixture(scope="module")
def tls_mariadb() -> Iterator[MariaDB]:
    mine = authority().issue("localhost", HOST)
    server = MariaDB(options=[f"--ssl-cert={mine.certificate}", f"--ssl-key={mine.key}", f"--ssl-ca={authority().ca}"])
    server.start()
    yield server
    server.close()


@pytest.fixture(scope="module")
def tls_postgresql() -> Iterator[PostgreSQL]:
    server = PostgreSQL(tls=authority().issue("localhost", HOST))
    server.start()
    yield server
    server.close()


CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"
PG_TLS = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


# what tools write: the arguments, and whether the connection is encrypted
MYSQL = {
    "the plain one of kolla": ("", False),
    "charset=utf8": ("charset=utf8", False),
    "TripleO, with a file that is not there": (
        "read_default_file=/nowhere/tripleo.cnf&read_default_group=tripleo", False),
    "TripleO with TLS": ("read_default_file={cnf}&read_default_group=tripleo", True),
    "the client's group": ("read_default_file={cnf}", False),
    "OSA with TLS": ("charset=utf8&ssl_verify_cert=true&ssl_ca={ca}", True),
    "kolla with TLS": ("ssl_ca={ca}", True),
    "openstack-helm": ("charset=utf8&ssl_ca={ca}&ssl_verify_cert", True),
    "with the server's name": ("ssl_ca={ca}&ssl_verify_identity=true", True),
    "mysqlclient": ("ssl_mode=VERIFY_CA&ssl_ca={ca}&use_unicode=1&compress=0", True),
    "a certificate of the client": ("ssl_ca={ca}&ssl_cert={cert}&ssl_key={key}", True),
    "encrypted without a look": ("ssl=true", True),
    "a bit of the protocol": ("client_flag=2050", True),
    "other bits of the protocol": ("client_flag=2", False),
    "nothing verified": ("ssl_ca={other}&ssl_verify_cert=false", True),
    "limits and debugging aids": (
        "connect_timeout=60&read_timeout=5&plugin=dbcounter&local_infile=1&autocommit=1", False),
    "a statement at the beginning": ("init_command=SET+SESSION+wait_timeout%3D77", False),
}  # fmt: skip


@pytest.mark.parametrize("case", MYSQL)
@pytest.mark.parametrize("driver", ["mysql+pymysql", "mysql"])
async def test_urls_of_mysql(tls_mariadb: MariaDB, tmp_path: Path, case: str, driver: str) -> None:
    arguments_, encrypted = MYSQL[case]
    mine, other = authority().issue("client"), Authority("another")
    cnf = tmp_path / "tripleo.cnf"
    cnf.write_text(
        "!includedir /etc/mysql/conf.d\n# of TripleO\n[client]\nport = 1\n[tripleo]\nbind-address = 127.0.0.1\nssl=1\n"
        f"ssl-ca={authority().ca}\n"
    )
    filled = arguments_.format(ca=authority().ca, cert=mine.certificate, key=mine.key, other=other.ca, cnf=cnf)
    url = f"{driver}://{USER}:{PASSWORD}@{HOST}:{tls_mariadb.port}/?{filled}"
    assert bool(await ask(url, CIPHER)) is encrypted
    assert await ask(url, "SELECT @@character_set_connection") == "utf8mb4"
    if "init_command" in arguments_:
        assert await ask(url, "SELECT @@session.wait_timeout") == "77"


async def test_an_option_file_gives_what_the_url_lacks(tls_mariadb: MariaDB, tmp_path: Path) -> None:
    file = tmp_path / "my.cnf"
    file.write_text(f"[glance]\nuser = '{USER}'\npassword = \"{PASSWORD}\"\nport={tls_mariadb.port}\nhost={HOST}\n"
                    "database = mysql\nskip-secure-auth\n")  # fmt: skip
    url = f"mysql+pymysql://?read_default_file={file}&read_default_group=glance"
    assert await ask(url, "SELECT concat(database(), ' ', substring_index(user(), '@', 1))") == f"mysql {USER}"


# an option file (`{more}/x.cnf` asks for an authority that is not the server's) → encrypted, or why it is refused
LIBRARYS = {
    "[client]\nssl-mode=REQUIRED\n": True,
    "[client]\nssl_mode = VERIFY_IDENTITY\nssl-ca={ca}\n": True,
    "[client]\nssl-mode=VERIFY_IDENTITY\nssl-ca={other}\n": "is not accepted",
    "[client]\nssl-verify-server-cert\n": "is not accepted",
    "[client]\nloose-ssl-verify-server-cert=1\nssl-ca={ca}\n": True,
    "[client-mariadb]\nssl\n[glance]\nconnect-timeout=3\n": True,
    "[client]\nskip-ssl\n": False,
    "[client]\nskip-ssl\nssl-ca={ca}\n": "switched off and asked for at once",
    "[client]\nssl-ca={ca}\nskip-ssl-verify-server-cert\n": True,
    "[client]\nssl-ca={ca}\ntls-version=TLSv1.2,TLSv1.3\n": True,
    "[client]\nssl-ca={ca}\ntls-version=TLSv1.1\n": "tls-version=TLSv1.1 is not spoken",
    "[client]\nssl-fp=AA:BB\n": "ssl-fp in {cnf} is not done by this driver",
    "[client]\nssl-verify=1\n": "ssl-verify in {cnf} is not done by this driver",
    "!includedir {more}\n[client]\nport=1\n": "is not accepted",
    "!include {more}/x.cnf\n!include {cnf}\n!include /nowhere.cnf\n": "is not accepted",
}


@pytest.mark.parametrize("text", LIBRARYS)
@pytest.mark.parametrize("driver", ["mysql", "mysql+mysqldb"])
async def test_an_option_file_as_the_c_library_reads_it(
    tls_mariadb: MariaDB, tmp_path: Path, text: str, driver: str
) -> None:
    cnf, more, want = tmp_path / "my.cnf", tmp_path / "more", LIBRARYS[text]
    more.mkdir()
    (more / "x.cnf").write_text(f"[client]\nssl-mode=VERIFY_CA\nssl-ca={Authority('another').ca}\n")
    words = {"ca": authority().ca, "other": Authority("another").ca, "cnf": cnf, "more": more}
    cnf.write_text(text.format(**words))
    url = f"{driver}://{USER}:{PASSWORD}@{HOST}:{tls_mariadb.port}/mysql?read_default_file={cnf}"
    if "[glance]" in text:
        url += "&read_default_group=glance"
    if isinstance(want, bool):
        assert bool(await ask(url, CIPHER)) is want
    else:
        with pytest.raises(ConfigError) as caught:
            await schema.version(settings(url))
        assert want.format(**words) in caught.value.message


async def test_an_option_file_as_pymysql_reads_it(tls_mariadb: MariaDB, tmp_path: Path) -> None:
    """What it leaves out stays without effect, as before, and is told."""
    cnf = tmp_path / "my.cnf"
    cnf.write_text("[client]\nssl-mode=VERIFY_IDENTITY\n")
    url = f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}:{tls_mariadb.port}/mysql?read_default_file={cnf}"
    assert not await ask(url, CIPHER)
    assert f"ssl-mode in {cnf} is not used, as PyMySQL does not read it" in str(arguments.read(settings(url)).notes)


async def test_a_socket_of_this_machine(mariadb: MariaDB, tmp_path: Path) -> None:
    place = mariadb.sql("select concat(@@datadir, @@socket)").strip()
    short = tmp_path / "s"
    short.symlink_to(place)
    assert await ask(f"mysql+pymysql://{USER}:{PASSWORD}@/?unix_socket={short}", "SELECT 7") == "7"


REFUSED = {
    "ssl_ca=/nonexistent.pem": "ssl_ca=/nonexistent.pem cannot be read: No such file or directory",
    "ssl_ca={junk}": "TLS: {junk} cannot be used: ",
    "ssl_ca={other}": "the certificate of the database at 127.0.0.1 port {port} is not accepted: ",
    "ssl_mode=VERIFY_IDENTITY&ssl_ca={other}": "is not accepted: ",
    "ssl_verify_cert=true": "is not accepted: ",
    "ssl_verify_cert=perhaps": "ssl_verify_cert=perhaps is neither true nor false",
    "ssl_disabled=true&ssl_ca={ca}": "TLS is switched off and asked for at once",
    "ssl_key={key}": "ssl_key needs ssl_cert beside it",
    "ssl_ca=a&ssl_ca=b": "ssl_ca stands 2 times",
    "tls_version=TLSv1.3": "unknown argument tls_version",
    "connect_timeout=soon": "connect_timeout is no whole number of seconds",
}


@pytest.mark.parametrize("case", REFUSED)
async def test_tls_that_fails_is_said_and_not_tried_again(tls_mariadb: MariaDB, tmp_path: Path, case: str) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate\n")
    words = {"junk": junk, "other": Authority("another").ca, "ca": authority().ca, "port": tls_mariadb.port,
             "key": authority().issue("client").key}  # fmt: skip
    url = f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}:{tls_mariadb.port}/mysql?{case.format(**words)}"
    with pytest.raises(ConfigError) as caught:
        await schema.version(settings(url))
    assert REFUSED[case].format(**words) in caught.value.message
    assert PASSWORD not in caught.value.message


async def test_a_name_that_is_not_in_the_certificate(tmp_path: Path) -> None:
    mine = authority().issue("elsewhere.example")
    server = MariaDB(options=[f"--ssl-cert={mine.certificate}", f"--ssl-key={mine.key}"])
    server.start()
    try:
        url = f"mysql+pymysql://{USER}:{PASSWORD}@{HOST}:{server.port}/mysql?ssl_ca={authority().ca}"
        with pytest.raises(ConfigError, match="mismatch"):
            await schema.version(settings(url))
        # as PyMySQL does: this word alone asks for the chain and not for the name, which is told
        with_cert = url + "&ssl_verify_cert=true"
        assert await ask(with_cert, CIPHER)
        assert "ssl_verify_identity=true does that" in str(arguments.read(settings(with_cert)).notes)
    finally:
        server.close()


async def test_no_tls_where_it_is_asked_for(mariadb: MariaDB, postgresql: PostgreSQL) -> None:
    """The password never crosses the network in the clear."""
    for url in (
        f"mysql://{USER}:{PASSWORD}@{HOST}:{mariadb.port}/mysql?ssl_ca={authority().ca}",
        f"mysql://{USER}:{PASSWORD}@{HOST}:{mariadb.port}/mysql?ssl=1",
        f"postgresql://{USER}:{PASSWORD}@{HOST}:{postgresql.port}/postgres?sslmode=verify-ca&sslrootcert={authority().ca}",
        f"postgresql://{USER}:{PASSWORD}@{HOST}:{postgresql.port}/postgres?sslmode=require",
    ):
        with pytest.raises(ConfigError, match=r"TLS|SSL"):
            await schema.version(settings(url))


POSTGRESQL = {
    "plain": ("", True),  # as libpq: TLS is preferred
    "psycopg2's": ("sslmode=verify-full&sslrootcert={ca}&connect_timeout=10&application_name=glance", True),
    "a CA alone": ("sslrootcert={ca}", True),
    "required": ("sslmode=require", True),
    "required with a CA": ("sslmode=require&sslrootcert={ca}", True),
    "a client's certificate": ("sslmode=verify-ca&sslrootcert={ca}&sslcert={cert}&sslkey={key}", True),
    "a version": ("sslmode=verify-ca&sslrootcert={ca}&ssl_min_protocol_version=TLSv1.3", True),
    "none": ("sslmode=disable&keepalives_idle=5&client_encoding=utf8&gssencmode=disable", False),
    "options": ("options=-c%20statement_timeout%3D77s", True),
}


@pytest.mark.parametrize("case", POSTGRESQL)
@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg2"])
async def test_urls_of_postgresql(tls_postgresql: PostgreSQL, case: str, driver: str) -> None:
    text, encrypted = POSTGRESQL[case]
    mine = authority().issue("client")
    filled = text.format(ca=authority().ca, cert=mine.certificate, key=mine.key)
    url = f"{driver}://{USER}:{PASSWORD}@{HOST}:{tls_postgresql.port}/postgres?{filled}"
    assert await ask(url, PG_TLS) == str(encrypted).lower()
    if "application_name" in text:
        assert await ask(url, "SHOW application_name") == "glance"
    if "options" in text:
        assert await ask(url, "SHOW statement_timeout") == "77s"


# lines of a service file, the environment, more of the URL → what the connection is: encrypted, or refused
SERVICES = {
    "nothing": ("", {}, "", True),
    "verified": ("sslmode=verify-full\nsslrootcert={ca}\n", {}, "", True),
    "another authority": ("sslmode=verify-full\nsslrootcert={other}\n", {}, "", "is not accepted"),
    "none": ("sslmode=disable\n", {}, "", False),
    "the URL counts more": ("sslmode=disable\n", {}, "sslmode=require", True),
    "the URL counts more in the words of others": ("sslmode=disable\n", {}, "ssl=true", True),
    "the service counts more": ("sslmode=disable\n", {"PGSSLMODE": "require"}, "", False),
    "the environment": ("", {"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": "{other}"}, "", "is not accepted"),
    "the environment, half": ("sslmode=verify-ca\n", {"PGSSLROOTCERT": "{ca}"}, "", True),
    "the environment, its file": ("", {"PGSSLROOTCERT": "{other}"}, "", "is not accepted"),
    "the environment, an old word": ("", {"PGREQUIRESSL": "1"}, "", True),
    "the environment, not done": ("", {"PGCHANNELBINDING": "require"}, "", "channel_binding=require is not done"),
    "not done": ("requirepeer=root\n", {}, "", "unknown argument requirepeer"),
    "no mode": ("sslmode=strict\n", {}, "", "sslmode=strict is unknown"),
}


@pytest.mark.parametrize("case", SERVICES)
@pytest.mark.parametrize("by", ["service", "PGSERVICE"])
async def test_a_service_of_postgresql(
    tls_postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, by: str
) -> None:
    lines, environment, query, want = SERVICES[case]
    words = {"ca": authority().ca, "other": Authority("another").ca}
    file = tmp_path / "services"
    file.write_text(
        f"[other]\nsslmode=disable\n# ours\n[glance]\nhost={HOST}\nport={tls_postgresql.port}\nuser={USER}\n"
        f"password={PASSWORD}\ndbname=postgres\n" + lines.format(**words)
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    for name, value in environment.items():
        monkeypatch.setenv(name, value.format(**words))
    if by == "PGSERVICE":
        monkeypatch.setenv(by, "glance")
    url = f"postgresql://?{'service=glance&' if by == 'service' else ''}{query}".rstrip("?&")
    if isinstance(want, bool):
        assert await ask(url, PG_TLS) == str(want).lower()
    else:
        with pytest.raises(ConfigError) as caught:
            await schema.version(settings(url))
        assert want in caught.value.message
        assert PASSWORD not in caught.value.message


async def test_tls_of_a_service_that_is_not_spoken(postgresql: PostgreSQL, tmp_path: Path) -> None:
    file = tmp_path / "services"
    file.write_text("[glance]\nsslmode=verify-full\n")
    url = f"postgresql://{USER}:{PASSWORD}@{HOST}:{postgresql.port}/postgres?servicefile={file}&service="
    with pytest.raises(ConfigError, match=r"TLS|SSL"):
        await schema.version(settings(url + "glance"))
    with pytest.raises(ConfigError, match=f"the service nova stands neither in {file} nor in "):
        arguments.read(settings(url + "nova"))


async def test_the_authority_in_the_home_of_the_user(
    tls_postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".postgresql" / "root.crt"
    file.parent.mkdir()
    url = f"postgresql://{USER}:{PASSWORD}@{HOST}:{tls_postgresql.port}/postgres?sslmode="
    file.write_bytes(Path(authority().ca).read_bytes())
    assert await ask(url + "verify-full", PG_TLS) == "true"
    file.write_bytes(Path(Authority("another").ca).read_bytes())
    for mode in ("require", "verify-ca", "verify-full"):
        with pytest.raises(ConfigError, match="is not accepted"):
            await schema.version(settings(url + mode))


PG_REFUSED = {
    "sslmode=verify-full&sslrootcert={other}": "database at 127.0.0.1 port {port} is not accepted",
    "sslmode=verify-full&sslrootcert=/none.pem": "sslrootcert=/none.pem cannot be read: No such file or directory",
    "channel_binding=require": "channel_binding=require is not done by this driver",
    "gssencmode=require": "gssencmode=require is not done by this driver",
    "requirepeer=root": "unknown argument requirepeer",
    "sslmode=prefer&ssl_min_protocol_version=TLSv1.3": "a connection may go without TLS",
}


@pytest.mark.parametrize("case", PG_REFUSED)
async def test_what_postgresql_is_asked_and_not_done(tls_postgresql: PostgreSQL, case: str) -> None:
    words = {"other": Authority("another").ca, "port": tls_postgresql.port}
    url = f"postgresql://{USER}:{PASSWORD}@{HOST}:{tls_postgresql.port}/postgres?{case.format(**words)}"
    with pytest.raises(ConfigError) as caught:
        await schema.version(settings(url))
    assert PG_REFUSED[case].format(**words) in caught.value.message


async def test_nobody_is_there() -> None:
    port = free_port()
    for scheme, tail in (("mysql+pymysql", ""), ("postgresql", "")):
        with pytest.raises(DatabaseUnavailable) as caught:
            await schema.version(settings(f"{scheme}://u:hush@{HOST}:{port}/d{tail}"))
        assert caught.value.message == f"Nobody listens: the database at {HOST} port {port} refuses the connection."
    with pytest.raises(
        DatabaseUnavailable, match=r"The name of the database at no\.such\.invalid port 3306 is not found"
    ):
        await schema.version(settings("mysql://u:hush@no.such.invalid/d"))
    with pytest.raises(
        DatabaseUnavailable, match="Nobody listens: the database at the socket /nowhere/s does not exist"
    ):
        await schema.version(settings("mysql://u:hush@/d?unix_socket=/nowhere/s"))


async def test_somebody_is_silent() -> None:
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        port = silent.getsockname()[1]
        for scheme in ("mysql", "postgresql"):
            with pytest.raises(
                DatabaseUnavailable, match=f"No answer from the database at {HOST} port {port} within 1"
            ):
                await schema.version(settings(f"{scheme}://u:hush@{HOST}:{port}/d?connect_timeout=1"))


async def test_who_is_not_let_in(mariadb: MariaDB, postgresql: PostgreSQL) -> None:
    cases = {
        f"mysql://{USER}:wrong@{HOST}:{mariadb.port}/mysql": f"port {mariadb.port} refuses the user '{USER}'",
        f"postgresql://{USER}:wrong@{HOST}:{postgresql.port}/postgres": f"refuses the user '{USER}'",
        f"mysql://{USER}:{PASSWORD}@{HOST}:{mariadb.port}/nothing": f"port {mariadb.port} has no database 'nothing'",
        f"postgresql://{USER}:{PASSWORD}@{HOST}:{postgresql.port}/nothing": "has no database 'nothing'",
    }
    for url, words in cases.items():
        with pytest.raises(ConfigError) as caught:
            await schema.version(settings(url))
        assert words in caught.value.message
        assert "later" not in caught.value.message
        assert PASSWORD not in caught.value.message
